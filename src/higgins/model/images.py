"""An image of the image service, as it was when somebody asked for it."""

from msgspec import Struct

#: The registry part of the names that such images have on an engine. The domain is reserved (RFC 2606), so that no
#: engine ever asks a registry for one.
DOMAIN = "glance.invalid"


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
