"""Images on an engine: names, pulls that many may wait for, and the pause image that is built on the spot."""

import asyncio
import base64
import json
import platform
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from higgins.images.base import ImageFiles
from higgins.images.packing import packed
from higgins.model.errors import EngineError, EngineUnavailable, HigginsError, ImageNotFound, ImagePullFailed
from higgins.runtimes.base import Image, RegistryAuth
from higgins.runtimes.docker import pause
from higgins.runtimes.docker.client import Client
from higgins.runtimes.pulls import Pulls, Readers, check_free
from higgins.runtimes.wording import one_line

PAUSE = "higgins-pause:1"


#: What names may consist of, by the reference grammar of the OCI distribution specification. A name becomes a part of
#: the engine's URLs, so nothing else may pass: neither ``..`` nor a question mark.
_NAME = re.compile(r"[A-Za-z0-9\[]([A-Za-z0-9_\-:@\[\]]|[./](?![./]))*")


def full_name(image: str) -> str:
    """The name with its tag; without one it is ``latest``. A digest or an id needs none.

    Raises ``ImageNotFound`` for what cannot be a name.
    """
    if not _NAME.fullmatch(image):
        raise ImageNotFound(f"{image!r} is not the name of an image.")
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def split_name(image: str) -> tuple[str, str]:
    """Repository and tag."""
    repository, _, tag = full_name(image).rpartition(":")
    return repository, tag


def auth_header(auth: RegistryAuth | None) -> dict[str, str]:
    """The header ``X-Registry-Auth`` of the Docker Engine API."""
    if auth is None:
        return {}
    said = {"username": auth.username, "password": auth.password, "serveraddress": auth.domain}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(said).encode()).decode()}


def image(payload: dict[str, Any]) -> Image:
    """From an entry of the list or an inspect payload."""
    names = tuple(name for name in payload.get("RepoTags") or () if name != "<none>:<none>")
    return Image(id=payload["Id"], names=names, size=int(payload.get("Size") or 0))


async def pull(client: Client, name: str, auth: RegistryAuth | None) -> None:
    """One pull, to its end. Raises ``ImageNotFound`` and ``ImagePullFailed`` with the registry's words."""
    params = {"fromImage": name}
    missing = ImageNotFound(f"The image {name} was not found in its registry, or you may not read it.")
    try:
        async with client.open(
            "POST", "images/create", params=params, headers=auth_header(auth), missing=missing
        ) as answer:
            async for said in client.objects(answer):
                if "error" in said:
                    detail = said.get("errorDetail") or {}
                    if detail.get("code") == 404:
                        raise missing
                    raise ImagePullFailed(f"The image {name} could not be pulled: {one_line(said['error'])}")
    except (EngineUnavailable, ImageNotFound, ImagePullFailed):
        raise
    except HigginsError as error:
        raise ImagePullFailed(f"The image {name} could not be pulled. {error}") from error


class Images:
    """The image verbs of the driver."""

    def __init__(self, client: Client, pause_image: str | None, pause_binary: str, readers: Path | None) -> None:
        self._client = client
        self._pulls: Pulls[None] = Pulls()
        self._readers = Readers(readers)
        self._pause_image = pause_image
        self._pause_binary = pause_binary
        self._building = asyncio.Lock()

    async def inspect(self, name: str) -> Image:
        """The image on the host. Raises ``ImageNotFound``."""
        name = full_name(name)
        missing = ImageNotFound(f"The image {name} is not on this host.")
        return image(await self._client.call("GET", f"images/{name}/json", missing=missing))

    async def pull(self, name: str, policy: str, auth: RegistryAuth | None) -> Image:
        """An image that is here for others alone (``Readers``) is as good as none."""
        name = full_name(name)
        found = await self._found(name)
        if policy != "always" and found is not None and self._readers.may_use(name, found, auth):
            return found
        if policy == "never":
            raise ImageNotFound(f"The image {name} is not on this host.")
        with self._readers.fetching(name, auth, found):
            await self._pulls.join(name, auth, lambda: pull(self._client, name, auth))
            fetched = await self.inspect(name)
            self._readers.fetched(name, auth, found, fetched)
        return fetched

    async def _found(self, name: str) -> Image | None:
        try:
            return await self.inspect(name)
        except ImageNotFound:
            return None

    def check_free(self, name: str) -> None:
        """Raises ``EngineError`` for the names of the images that hold sandboxes."""
        for taken in {PAUSE, self._pause_image or PAUSE}:
            check_free(name, taken)

    async def load(self, files: ImageFiles, name: str) -> Image:
        """Give the engine an archive that is made as it is read. It checks the layers' digests itself."""
        name = full_name(name)
        self.check_free(name)
        found = await self._found(name)
        if found is not None and found.id == files.parts.id:
            return found
        try:
            await self._import(packed(files, name))
        except EngineUnavailable:
            raise
        except EngineError as error:
            raise ImagePullFailed(f"The container engine cannot load the image {name}. {error}") from error
        return await self.inspect(name)

    @asynccontextmanager
    async def save(self, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        name = full_name(name)
        missing = ImageNotFound(f"The image {name} is not on this host.")
        await self.inspect(name)  # an engine may begin an archive of what it has not
        async with self._client.open("GET", f"images/{name}/get", missing=missing) as answer:
            yield self._client.chunks(answer)

    async def _import(self, archive: bytes | AsyncIterator[bytes]) -> None:
        async with self._client.open("POST", "images/load", params={"quiet": "1"}, body=archive) as answer:
            async for said in self._client.objects(answer):
                if "error" in said:
                    raise EngineError(f"The container engine answered: {one_line(said['error'])}")

    async def all(self) -> list[Image]:
        return [image(entry) for entry in await self._client.call("GET", "images/json")]

    async def remove(self, name: str) -> None:
        """Take the name away, and the image with its last name. Gone already is done."""
        with suppress(ImageNotFound):
            await self._client.call("DELETE", f"images/{full_name(name)}", missing=ImageNotFound(name))
        self._readers.forget(name)

    async def search(self, term: str) -> list[dict[str, object]]:
        return list(await self._client.call("GET", "images/search", params={"term": term}))

    async def pause(self) -> str:
        """The name of the image that sandboxes run, built when the host has it not."""
        if self._pause_image is not None:
            return (await self.pull(self._pause_image, "ifnotpresent", None)).names[0]
        async with self._building:
            try:
                await self.inspect(PAUSE)
            except ImageNotFound:
                await self._build_pause()
        return PAUSE

    async def _build_pause(self) -> None:
        found = shutil.which(self._pause_binary)
        if found is None:
            raise EngineError(f"This host has no {self._pause_binary}, which holds the network of a container.")
        saved = pause.archive(PAUSE, await asyncio.to_thread(Path(found).read_bytes), platform.machine())
        await self._import(saved)
