"""What an image driver gives, and how an image may be refused.

A driver finds an image for a tenant and brings its bytes; what is done with them is the same for all of them::

    found = await glance.resolve("web", token, project_id)          # as the tenant, by name or id
    path = await shelf.fetch(found, lambda file: glance.save(found, token, file))
    await runtime.load(path)                                        # the engine has it as found.engine_name
"""

from pathlib import Path
from typing import Protocol

from msgspec import Struct

from higgins.model.errors import ImagePullFailed

#: The registry part of the names that loaded images have on an engine. The domain is reserved (RFC 2606), so that no
#: engine ever asks a registry for one.
DOMAIN = "glance.invalid"


class ImageRefused(ImagePullFailed):
    """The image is there, but its content is not fit to be run; the sentence says why."""

    status = 400
    code = "image-refused"

    def __init__(self, why: str) -> None:
        super().__init__(f"The image is refused: {why}.")


class FoundImage(Struct, frozen=True, kw_only=True):
    """An image that a tenant may use. ``algorithm`` and ``digest`` (hex) are of its bytes, ``size`` is in bytes."""

    id: str
    name: str
    size: int
    algorithm: str
    digest: str

    @property
    def engine_name(self) -> str:
        """What it is called on an engine: other bytes have another name, whatever the image's owner calls them."""
        return f"{DOMAIN}/{self.id}:{self.digest[:32]}"


class ImageSource(Protocol):
    """A service that has images. ``token`` is the tenant's own, so that it decides who may use what."""

    async def resolve(self, reference: str, token: str, project_id: str) -> FoundImage:
        """Find an image by id or name. Raises ImageNotFound, Conflict (a name that several bear), ImageRefused."""

    async def save(self, found: FoundImage, token: str, target: Path) -> None:
        """Write its bytes into a file. Raises ImageRefused where they are not those that were promised."""
