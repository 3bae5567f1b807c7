"""What an image is once it was checked, and how one may be refused.

Images that do not come from a registry come as archives, and an archive is something that an enemy may have written. It
is taken apart once (``archive``); what is kept and passed on from then on are its parts, each by its digest::

    found = await glance.resolve("web", token, project_id)          # as the tenant, by name or id
    parts = await shelf.take_in(found, lambda file: glance.save(found, token, file))
    await runtime.load(shelf.files(parts), found.engine_name)
"""

import hashlib
from pathlib import Path

from msgspec import Struct

from higgins.model.errors import ImagePullFailed


class ImageRefused(ImagePullFailed):
    """The image is there, but its content is not fit to be run; the sentence says why."""

    status = 400
    code = "image-refused"

    def __init__(self, why: str) -> None:
        super().__init__(f"The image is refused: {why}.")


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
