"""What an image is once it was checked, and what a service is that has some.

Images that do not come from a registry come as archives, and an archive is something that an enemy may have written. It
is taken apart once (``archive``); what is kept and passed on from then on are its parts, each by its digest::

    found = await glance.resolve("web", token, project_id)          # as the tenant, by name or id
    parts = await shelf.take_in(found, lambda file: glance.save(found, token, file))
    await runtime.load(shelf.files(parts), found.engine_name)
"""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from higgins.model.images import FoundImage


class Layer(Struct, frozen=True):
    """A layer. ``digest`` (sha256:…) and ``size`` in bytes are of the plain tar, however it came."""

    digest: str
    size: int


class Parts(Struct, frozen=True, kw_only=True):
    """An image that was checked: its configuration, byte by byte, and its layers from the lowest up."""

    config: bytes
    layers: tuple[Layer, ...]

    @property
    def id(self) -> str:
        """The digest of the configuration, which names the layers: what engines know an image by."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"


class ImageFiles(Struct, frozen=True, kw_only=True):
    """An image on this machine, as an engine loads it: where each of its layers, a plain tar, lies."""

    parts: Parts
    paths: tuple[Path, ...]


class ImageService(Protocol):
    """A service of the cloud that has images; Glance is one. It decides itself who may use which.

    ``token`` is the caller's, or one that a trust gives. Raises ImageNotFound, Unauthorized (the token is none any
    more), and ServiceUnavailable where asking again may help.
    """

    async def resolve(self, reference: str, token: str, project_id: str) -> FoundImage:
        """Find an image by id or name. Raises Conflict (a name that several bear), and ImageRefused as well."""

    async def save(self, found: FoundImage, token: str, target: Path) -> None:
        """Write its bytes into a file. Raises ImageRefused where they are not those that were promised."""

    async def search(self, name: str, token: str, *, exact: bool) -> list[dict[str, Any]]:
        """The images that the token may see whose name has ``name`` in it, or is it."""

    async def register(self, image: str, name: str, token: str) -> None:
        """A new private image without data, as an archive of docker save will be; ``image`` is to be its id.

        Raises Forbidden. Whatever it raises, the image may be there.
        """

    async def upload(self, image: str, token: str, archive: AsyncIterator[bytes]) -> int:
        """Give an image its data; how many bytes that were. What ``archive`` raises comes through as it is."""

    async def forget(self, image: str, token: str) -> None:
        """Delete an image. Gone already is done."""

    async def entrust(self, token: str, *, user_id: str, project_id: str, roles: frozenset[str]) -> str | None:
        """A trust by the owner of ``token``, to act by later; None where that token may give none."""

    async def token_by(self, trust: str) -> str:
        """A token that the trust gives now. Raises Unauthorized where the trust is over."""

    async def give_back(self, trust: str) -> None:
        """End a trust. One that has ended already is no error."""
