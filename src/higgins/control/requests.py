"""What a tenant asks for of networks: as it was said, and as the cloud's network service knows it."""

from msgspec import Struct


class NetRequest(Struct, frozen=True, kw_only=True):
    """A network that the tenant asks for, by name or uuid, with an address if it shall be a certain one."""

    network: str | None = None
    port: str | None = None
    v4_fixed_ip: str | None = None
    v6_fixed_ip: str | None = None


class PortAsk(Struct, frozen=True, kw_only=True):
    """A port that a container is to have: ``port`` where the tenant gave one, else a new one on ``network``.

    All are the service's ids. ``addresses`` empty: any; ``groups`` empty: the project's default security group.
    ``subnets`` are those that the network has now.
    """

    network: str
    network_name: str = ""
    port: str | None = None
    addresses: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
