"""Images over CRI's ImageService: pull by policy, list, remove."""

import asyncio
import re
from collections.abc import Collection
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from higgins.images.base import ImageFiles
from higgins.model.errors import (
    EngineError,
    EngineUnavailable,
    HigginsError,
    ImageNotFound,
    ImagePullFailed,
    NotImplementedHere,
)
from higgins.runtimes.base import Image, RegistryAuth
from higgins.runtimes.cri import content
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.errors import pulling
from higgins.runtimes.pulls import Pulls, Readers, canonical, check_free

#: A reference: registry, path, tag, digest (github.com/distribution/reference). An image's id has the same form.
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,})?"
)
#: Seconds that CRI may take to see what was changed in containerd.
_SEEN = 30


def image_of(found: cri.Image) -> Image:
    return Image(id=found.id, names=tuple(short_name(name) for name in found.repo_tags), size=found.size)


def short_name(image: str) -> str:
    """The name as people write it: Docker's own registry and its library left out."""
    return image.removeprefix("docker.io/").removeprefix("library/")


def check_name(name: str) -> None:
    """Raises ``ImageNotFound`` for what cannot be an image's name."""
    if not _NAME.fullmatch(name):
        raise ImageNotFound(f"{name!r} cannot be the name of an image.")


class Images:
    """What is on the host, and what is being fetched: several pulls of one image by one identity are one."""

    def __init__(self, client: Client, readers: Path | None) -> None:
        self._client = client
        self._pulls: Pulls[Image] = Pulls()
        self._readers = Readers(readers)

    async def find(self, name: str) -> Image | None:
        """An image on the host by a name, or by its id. None as well for what can be neither."""
        if not _NAME.fullmatch(name):
            return None
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=name))
        answer = await self._client.ask(self._client.image.ImageStatus, request, name)
        return image_of(answer.image) if answer.image.id else None

    async def pull(self, name: str, policy: str, auth: RegistryAuth | None) -> Image:
        """Make the image be here. Raises ``ImageNotFound``, ``ImagePullFailed``."""
        check_name(name)
        found = await self.find(name)
        if policy != "always" and found is not None and self._readers.may_use(name, found, auth):
            return found
        if policy == "never":
            raise ImageNotFound(f"Image {name} is not on this host, and the policy is never to pull it.")
        with self._readers.fetching(name, auth, found):
            fetched = await self._pulls.join(name, auth, lambda: self._fetch(name, auth))
            self._readers.fetched(name, auth, found, fetched)
        return fetched

    async def _fetch(self, name: str, auth: RegistryAuth | None) -> Image:
        credentials = None
        if auth is not None:
            # Without an address: who asks has chosen it for this image, and engines differ in how they compare one.
            credentials = cri.AuthConfig(username=auth.username, password=auth.password)
        with pulling(name):
            answer = await self._client.image.PullImage(
                cri.PullImageRequest(image=cri.ImageSpec(image=name), auth=credentials)
            )
        return await self.find(answer.image_ref) or Image(id=answer.image_ref, names=(short_name(canonical(name)),))

    async def load(self, files: ImageFiles, name: str) -> Image:
        check_name(name)
        check_free(name, await self._client.pause_image())
        found = await self.find(name)
        if found is not None and found.id == files.parts.id:
            return found
        try:
            await content.load(self._client, files, canonical(name))
        except (EngineUnavailable, NotImplementedHere):
            raise
        except HigginsError as error:
            raise ImagePullFailed(f"The container engine cannot load the image {name}. {error}") from error
        return await self.find(name) or Image(id=files.parts.id, names=(short_name(canonical(name)),))

    async def all(self) -> list[Image]:
        answer = await self._client.ask(self._client.image.ListImages, cri.ListImagesRequest())
        return [image_of(found) for found in answer.images]

    async def remove(self, name: str, used: Collection[str]) -> None:
        """Take the name away, and with the last name the image, unless it is ``used`` (ids). Gone already is done.

        CRI itself would remove all names that the image has.
        """
        found = await self.find(name)
        if found is None:
            self._readers.forget(name)
            return
        if len(found.names) > 1 and await self._client.is_containerd() and short_name(canonical(name)) in found.names:
            await (await self._client.containerd()).remove_image(canonical(name))
            self._readers.forget(name)
            async with asyncio.timeout(_SEEN):
                while await self.find(name) is not None:  # noqa: ASYNC110  CRI follows by an event, seen by it alone
                    await asyncio.sleep(0.02)
            return
        if found.id in used:
            raise EngineError(f"Image {name} is used by a container on this host.")
        request = cri.RemoveImageRequest(image=cri.ImageSpec(image=name))
        await self._client.ask(self._client.image.RemoveImage, request, name)
        self._readers.forget(name)
