"""Images of Glance, found and read with the tenant's own token, so that Glance decides who may use which."""

import asyncio
import hashlib
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from higgins.model.errors import (
    Conflict,
    Forbidden,
    HigginsError,
    ImageNotFound,
    ImageRefused,
    Invalid,
    Unauthorized,
)
from higgins.model.images import FoundImage
from higgins.openstack.errors import ServiceUnavailable
from higgins.runtimes.uploads import Upload

LOG = logging.getLogger(__name__)

#: Formats that may hold an archive of docker save. What really is in it shows when it is opened.
_FORMATS = frozenset({"docker", "bare"})
_ALGORITHMS = frozenset({"sha256", "sha512"})
#: Seconds to wait before each further attempt where Glance does not answer, or answers 429 or 5xx.
_PAUSES = (0.25, 0.5, 1.0)
_CHUNK = 2**20
#: Images that one page of Glance's list has, and that a search shows at most.
_PAGE, _MOST_FOUND = 100, 1000
#: Whoever is silent for so many seconds does not answer. There is no limit to how long a transfer takes.
PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


class GlanceUnavailable(ServiceUnavailable):
    """Glance answers that it cannot, or breaks off. ``said`` is how."""

    def __init__(self, said: str, doing: str) -> None:
        super().__init__("Glance", doing)
        self.args = (f"Glance {said}, so {doing}; try again later.",)


class NoSuchImage(ImageNotFound):
    """The image service has no such image, as far as the caller may know."""

    status = 404


class Glance:
    """The image service at ``endpoint`` (such as http://glance:9292), which is asked for when it is needed first.

    ``service_token`` gives one of Higgins' own, with which Glance takes a tenant's that has expired meanwhile.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Callable[[], Awaitable[str]],
        service_token: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._service_token = service_token

    async def resolve(self, reference: str, token: str, project_id: str) -> FoundImage:
        """By id (any image that the token may see) or by name (the project's own, else one that others let it use)."""
        entry = await self._by_id(reference, token) if _is_uuid(reference) else None
        if entry is None:
            entry = await self._by_name(reference, token, project_id)
        return found(entry)

    async def _by_id(self, ident: str, token: str) -> dict[str, Any] | None:
        async with self._get(f"images/{ident}", token) as answer:
            if answer.status in (403, 404):
                return None
            return await _document(answer)

    async def _by_name(self, name: str, token: str, project_id: str) -> dict[str, Any]:
        same = await self._named(name, token)
        # Somebody else's public image must not get in the way of one's own.
        candidates = [entry for entry in same if entry.get("owner") == project_id] or same
        if len(candidates) > 1:
            raise Conflict(f"Several images have the name {name}; use the id.")
        if not candidates:
            raise NoSuchImage(f"There is no image {name} in the image service, or you may not use it.")
        return dict(candidates[0])

    async def search(self, name: str, token: str, *, exact: bool) -> list[dict[str, Any]]:
        """As Zun shows them. Glance itself finds by whole names only."""
        if exact:
            listed = await self._named(name, token)
        else:
            listed = [one for one in await self._list({}, token) if name.lower() in (one["name"] or "").lower()]
        return [
            {key: one.get(key) for key in ("id", "name", "tags", "status", "size")} | {"metadata": {}} for one in listed
        ]

    async def _named(self, name: str, token: str) -> list[dict[str, Any]]:
        # With its operator: else what stands before a colon in the name would be taken for one.
        return [entry for entry in await self._list({"name": f"eq:{name}"}, token) if entry["name"] == name]

    async def _list(self, query: dict[str, str], token: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        marker: dict[str, str] = {}
        while len(listed) < _MOST_FOUND:
            async with self._get("images", token, query | marker | {"limit": str(_PAGE)}) as answer:
                page = (await _document(answer))["images"]
            listed += page
            if len(page) < _PAGE:
                break
            marker = {"marker": page[-1]["id"]}
        return listed

    async def save(self, image: FoundImage, token: str, target: Path) -> None:
        """Write the image's bytes; raises ImageRefused where they are not those that Glance promised."""
        digest, count = hashlib.new(image.algorithm), 0
        async with self._get(f"images/{image.id}/file", token) as answer:
            if answer.status in (204, 403, 404, 410):
                raise ImageNotFound(f"The image {image.name} is not in the image service any more, or has no data.")
            if answer.status != 200:
                raise GlanceUnavailable(_said(answer), _READING)
            with target.open("wb") as file:
                try:
                    async for chunk in answer.content.iter_chunked(_CHUNK):
                        digest.update(chunk)
                        count += len(chunk)
                        if count > image.size:
                            break
                        await asyncio.to_thread(file.write, chunk)
                except (aiohttp.ClientError, TimeoutError) as error:
                    raise GlanceUnavailable("broke off while it sent the image", _READING) from error
        if count != image.size or digest.hexdigest() != image.digest:
            raise ImageRefused(f"its bytes are not those of the image {image.id}")

    async def register(self, image: str, name: str, token: str) -> None:
        fields = {"name": name, "container_format": "docker", "disk_format": "raw", "visibility": "private"}
        async with self._change("POST", "images", token, json={"id": image} | fields) as answer:
            if answer.status != 201:
                raise await _refusal(answer)

    async def upload(self, image: str, token: str, archive: AsyncIterator[bytes]) -> int:
        count = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal count
            async for piece in archive:
                count += len(piece)
                yield piece

        source = Upload(counted())
        kind = {"Content-Type": "application/octet-stream"}
        try:
            async with self._change("PUT", f"images/{image}/file", token, data=aiter(source), headers=kind) as answer:
                if answer.status != 204:
                    raise await _refusal(answer)
        except ServiceUnavailable:
            if source.error is not None:  # not Glance broke off, but who sent
                raise source.error from None
            raise
        return count

    async def forget(self, image: str, token: str) -> None:
        async with self._change("DELETE", f"images/{image}", token) as answer:
            if answer.status not in (204, 404):
                raise await _refusal(answer)

    @asynccontextmanager
    async def _change(
        self, method: str, path: str, token: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request that is made once, as it may have been heard although the answer was not."""
        url, sent = f"{await self._endpoint()}/v2/{path}", await self._tokens(token) | (headers or {})
        try:
            async with self._session.request(method, url, headers=sent, **more) as answer:
                if answer.status == 401:
                    raise Unauthorized(_NO_TOKEN)
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise GlanceUnavailable("does not answer", _WRITING) from error

    async def _tokens(self, token: str) -> dict[str, str]:
        own = {} if self._service_token is None else {"X-Service-Token": await self._service_token()}
        return {"X-Auth-Token": token} | own

    @asynccontextmanager
    async def _get(
        self, path: str, token: str, query: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET, tried again where trying again helps. Statuses below 500 are the caller's, but 401 and 429."""
        url, headers = f"{await self._endpoint()}/v2/{path}", await self._tokens(token)
        failed: Exception | None
        for pause in (*_PAUSES, None):
            try:
                answer = await self._session.get(url, params=query, headers=headers)
            except (aiohttp.ClientError, TimeoutError) as error:
                LOG.warning("Glance does not answer: %r", error)
                said, failed = "does not answer now", error
            else:
                if answer.status == 401:
                    answer.release()
                    raise Unauthorized(_NO_TOKEN)
                if answer.status != 429 and answer.status < 500:
                    async with answer:
                        yield answer
                    return
                LOG.warning("Glance answers %s with %d", url, answer.status)
                answer.release()
                said, failed = _said(answer), None
            if pause is None:
                raise GlanceUnavailable(said, _READING) from failed
            await asyncio.sleep(pause)


_READING, _WRITING = "the image cannot be read", "no image can be made"
_NO_TOKEN = "Glance does not accept the token; it expired or was revoked meanwhile."  # noqa: S105 - a sentence


def _said(answer: aiohttp.ClientResponse) -> str:
    return f"answers {answer.status} ({answer.reason})"


async def _refusal(answer: aiohttp.ClientResponse) -> HigginsError:
    """What Glance says to what it does not do."""
    said = re.sub(r"<[^>]*>|\s+", " ", (await answer.content.read(4096)).decode(errors="replace")).strip()
    sentence = f"Glance {_said(answer)}, so {_WRITING}: {said[:300].rstrip('.')}."
    if answer.status in (403, 413):  # the policy, or a quota
        return Forbidden(sentence)
    if answer.status == 409:
        return Conflict(sentence)
    return GlanceUnavailable(_said(answer), _WRITING)


async def _document(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The JSON of an answer. Raises Forbidden, Invalid, GlanceUnavailable for any other."""
    if answer.status in (400, 403):
        raise (Forbidden if answer.status == 403 else Invalid)(f"Glance {_said(answer)}, so {_READING}.")
    if answer.status != 200:
        raise GlanceUnavailable(_said(answer), _READING)
    try:
        return dict(await answer.json())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise GlanceUnavailable("answers with what cannot be read", _READING) from error


def found(entry: dict[str, Any]) -> FoundImage:
    """From an image of Glance's API v2; pure. Raises ImageRefused for what cannot be an archive or has no digest."""
    name = entry.get("name") or entry["id"]
    if entry["status"] != "active":
        raise Conflict(f"The image {name} is {entry['status']}, not active.")
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
