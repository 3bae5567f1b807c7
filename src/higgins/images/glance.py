"""Images of Glance, found and read with the tenant's own token, so that Glance decides who may use which."""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from higgins.images.base import ImageRefused
from higgins.model.errors import Conflict, ImageNotFound, Unauthorized
from higgins.model.images import FoundImage
from higgins.openstack.errors import ServiceUnavailable

LOG = logging.getLogger(__name__)

#: Formats that may hold an archive of docker save. What really is in it shows when it is opened.
_FORMATS = frozenset({"docker", "bare"})
_ALGORITHMS = frozenset({"sha256", "sha512"})
#: Seconds to wait before each further attempt where Glance does not answer, or answers 429 or 5xx.
_PAUSES = (0.25, 0.5, 1.0)
_CHUNK = 2**20


class Glance:
    """The image service at ``endpoint`` (such as http://glance:9292), which is asked for when it is needed first."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Callable[[], Awaitable[str]]) -> None:
        self._session = session
        self._endpoint = endpoint

    async def resolve(self, reference: str, token: str, project_id: str) -> FoundImage:
        """By id (any image that the token may see) or by name (the project's own, else one that others let it use)."""
        entry = await self._by_id(reference, token) if _is_uuid(reference) else None
        if entry is None:
            entry = await self._by_name(reference, token, project_id)
        return found(entry)

    async def _by_id(self, ident: str, token: str) -> dict[str, Any] | None:
        async with self._get(f"images/{ident}", token) as answer:
            return None if answer.status in (403, 404) else dict(await answer.json())

    async def _by_name(self, name: str, token: str, project_id: str) -> dict[str, Any]:
        async with self._get("images", token, {"name": name, "limit": "100"}) as answer:
            listed = (await answer.json())["images"] if answer.status == 200 else []
        same = [entry for entry in listed if entry["name"] == name]
        # Somebody else's public image must not get in the way of one's own.
        candidates = [entry for entry in same if entry.get("owner") == project_id] or same
        if len(candidates) > 1:
            raise Conflict(f"Several images have the name {name}; use the id.")
        if not candidates:
            raise ImageNotFound(f"There is no image {name} in the image service, or you may not use it.")
        return dict(candidates[0])

    async def save(self, image: FoundImage, token: str, target: Path) -> None:
        """Write the image's bytes; raises ImageRefused where they are not those that Glance promised."""
        digest, count = hashlib.new(image.algorithm), 0
        async with self._get(f"images/{image.id}/file", token) as answer:
            if answer.status != 200:
                raise ImageNotFound(f"The image {image.name} has no data that you may read.")
            with target.open("wb") as file:
                try:
                    async for chunk in answer.content.iter_chunked(_CHUNK):
                        digest.update(chunk)
                        count += len(chunk)
                        if count > image.size:
                            break
                        await asyncio.to_thread(file.write, chunk)
                except (aiohttp.ClientError, TimeoutError) as error:
                    raise ServiceUnavailable("Glance", "the image cannot be read") from error
        if count != image.size or digest.hexdigest() != image.digest:
            raise ImageRefused(f"its bytes are not those of the image {image.id}")

    @asynccontextmanager
    async def _get(
        self, path: str, token: str, query: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET, tried again where trying again helps. Statuses below 500 are the caller's, but 401 and 429."""
        url = f"{await self._endpoint()}/v2/{path}"
        for pause in (*_PAUSES, None):
            try:
                answer = await self._session.get(url, params=query, headers={"X-Auth-Token": token})
            except (aiohttp.ClientError, TimeoutError) as error:
                LOG.warning("Glance does not answer: %r", error)
                failed: Exception | None = error
            else:
                if answer.status == 401:
                    answer.release()
                    raise Unauthorized("Glance does not accept the token; it expired or was revoked meanwhile.")
                if answer.status != 429 and answer.status < 500:
                    async with answer:
                        yield answer
                    return
                LOG.warning("Glance answers %s with %d", url, answer.status)
                answer.release()
                failed = None
            if pause is None:
                raise ServiceUnavailable("Glance", "the image cannot be read") from failed
            await asyncio.sleep(pause)


def found(entry: dict[str, Any]) -> FoundImage:
    """From an image of Glance's API v2; pure. Raises ImageRefused for what cannot be an archive or has no digest."""
    name = entry.get("name") or entry["id"]
    if entry["status"] != "active":
        raise ImageRefused(f"{name} is {entry['status']}, not active")
    if entry.get("container_format") not in _FORMATS:
        raise ImageRefused(f"{name} has the container format {entry.get('container_format')}, not docker or bare")
    algorithm, digest = entry.get("os_hash_algo"), entry.get("os_hash_value")
    if algorithm not in _ALGORITHMS or not digest:
        raise ImageRefused(f"{name} has no digest; upload it again")
    return FoundImage(id=entry["id"], name=name, size=int(entry["size"]), algorithm=algorithm, digest=digest)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
