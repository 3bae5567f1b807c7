"""What Higgins asks of a volume driver on a host. Example::

path = await volumes.attach(VolumeWire(uuid=v, driver="local", size=1))   # a directory to bind
await volumes.detach(v)
await volumes.delete(v)
"""

from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from higgins.model.errors import Invalid


class VolumeWire(Struct, frozen=True, kw_only=True):
    """A volume as a host must provide it. ``size`` in GiB; ``content`` makes it a single file (base64).

    The content is sent until the host has it; without it and without a size, the file that is there is meant.

    Of the driver ``cinder``: ``connection`` is what Cinder says of the way to it, None as long as it is awaited, and
    ``fresh`` that it was made for Higgins, so that nothing on it is anybody's data unless it has a file system.
    """

    uuid: str
    driver: str = "local"
    size: int = 0
    content: str | None = None
    connection: dict[str, Any] | None = None
    fresh: bool = False

    @property
    def awaited(self) -> bool:
        """Whether it is not there to be attached yet."""
        return self.driver == "cinder" and self.connection is None


class Volumes(Protocol):
    """A volume driver's half on the host. Every verb may be done twice; raises ``EngineError`` with a reason."""

    async def attach(self, volume: VolumeWire) -> str:
        """Make the volume's data be at a path of this host, made and formatted when it never was; the path."""

    async def detach(self, uuid: str) -> None:
        """Nobody on this host uses it any more. Its data stays."""

    async def delete(self, uuid: str) -> None:
        """Its data is gone for good."""

    async def attached(self) -> list[str]:
        """The volumes that are attached here now."""

    async def held(self) -> list[str]:
        """All volumes whose data lies on this host."""


def checked(uuid: str) -> str:
    """Raises ``Invalid``: paths are made of it, so nothing but a uuid may pass."""
    try:
        return str(UUID(uuid))
    except ValueError as error:
        raise Invalid(f"{uuid!r} is not the uuid of a volume.") from error


def is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
