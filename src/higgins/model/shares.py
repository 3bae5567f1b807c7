"""A service of the cloud that knows who uses what of hosts, as the control plane needs it; Placement is one."""

from typing import Protocol

from msgspec import Struct


class Amount(Struct, frozen=True):
    """Of a host: cores, MiB of memory, GiB of disk."""

    cpu: int = 0
    memory: int = 0
    disk: int = 0


class Offer(Struct, frozen=True, kw_only=True):
    """What a host has, and by how much more than that may be claimed of it."""

    total: Amount
    cpu_ratio: float
    memory_ratio: float
    disk_ratio: float


class Shares(Protocol):
    """Every verb may be done twice, and waits for the service. Raises ServiceUnavailable, ServiceRefused."""

    async def hold(self, *, name: str, uuid: str, offer: Offer, amounts: list[Amount]) -> Amount | None:
        """Hold the first of these amounts that there is room for on a host, in the place of what was held before.

        The host is known by ``name``; where nobody offers it yet it is offered, as ``uuid``. None: none of them fits.
        """

    async def let_go(self, *, name: str, uuid: str) -> None:
        """Nothing is held of a host any more, and if it was offered as ``uuid``, it is not."""
