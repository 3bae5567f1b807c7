"""A service of the cloud that has volumes, as the control plane needs it; Cinder is one.

Every verb waits for the service, so none is called in a transaction. ``trust`` is what a user gave Higgins to act by
(see ``entrust``): what is asked with it is asked in the user's project and by the user's rights. Raises a
``HigginsError`` with the service's name and its reason; ``ServiceUnavailable`` where asking again may help.
"""

from typing import Any, Protocol

from msgspec import Struct


class StoredVolume(Struct, frozen=True, kw_only=True):
    """A volume as its service tells of it. ``size`` in GiB; ``status`` in Cinder's words."""

    id: str
    name: str
    size: int
    status: str
    multiattach: bool = False


class BlockStorage(Protocol):
    """``use`` is the uuid under which Higgins uses a volume on one host: one of each, whatever crashes meanwhile."""

    async def find(self, token: str, ident: str) -> StoredVolume | None:
        """By id or name, with the caller's own token; None where the caller sees none. Conflict for two of a name."""

    async def entrust(self, token: str, *, user_id: str, project_id: str, roles: frozenset[str]) -> str:
        """A trust by the owner of ``token``. Raises Forbidden where that token may give none."""

    async def give_back(self, trust: str) -> None:
        """End a trust. One that has ended already is no error."""

    async def make(self, trust: str, *, use: str, name: str, size: int) -> str:
        """The id of the volume made for ``use``: one that was made before is found again. It is usable when it ends."""

    async def attach(self, trust: str, ident: str, *, use: str, connector: dict[str, Any]) -> dict[str, Any]:
        """Attach the volume to the host of ``connector``; what that host needs to reach it. Twice is as once."""

    async def detach(self, trust: str, ident: str, *, use: str) -> None:
        """End the attachment of ``use``, if there is one; a volume that is gone has none."""

    async def delete(self, trust: str, *, use: str, ident: str | None) -> None:
        """The volume made for ``use`` is gone when it ends, also one whose id nobody came to know."""
