"""A service of the cloud that has networks, as the control plane needs it; Neutron is one.

Every verb waits for the service, so none is called in a transaction. With a ``token`` it is asked in a caller's name,
and tells what that caller may see; the other verbs are Higgins' own. Raises a ``HigginsError`` with the service's name
and its reason: ``ServiceUnavailable`` where asking again may help, ``ServiceRefused`` where it says no.
"""

from typing import Protocol

from msgspec import Struct

from higgins.model.errors import HigginsError


class Fixed(Struct, frozen=True):
    """An address of a port, and the subnet that it is of."""

    address: str
    subnet: str


class CloudNetwork(Struct, frozen=True, kw_only=True):
    """A network. ``created`` is text that sorts by time; ``external`` leads out of the cloud."""

    id: str
    name: str
    project_id: str
    mtu: int = 1500
    shared: bool = False
    external: bool = False
    subnets: tuple[str, ...] = ()
    created: str = ""


class CloudSubnet(Struct, frozen=True, kw_only=True):
    """A subnet of a network. ``routes`` as (destination, next hop)."""

    id: str
    network: str
    cidr: str
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()


class CloudPort(Struct, frozen=True, kw_only=True):
    """A port. ``host`` is where it is bound; ``kind`` how (Neutron's vif_type), ``bridge`` into what.

    ``answers``: the switch of the host says itself when the port is wired (OVN does).
    """

    id: str
    name: str
    network: str
    project_id: str
    mac: str
    device: str = ""
    owner: str = ""
    host: str = ""
    kind: str = ""
    bridge: str = ""
    answers: bool = False
    fixed: tuple[Fixed, ...] = ()
    groups: tuple[str, ...] = ()


class WantedPort(Struct, frozen=True, kw_only=True):
    """A port to be made for ``device``, bound to ``host``. ``name`` is its alone, and it is found again by it.

    ``addresses`` empty: any that are free; ``groups`` empty: the project's default one.
    """

    name: str
    network: str
    project_id: str
    device: str
    host: str
    addresses: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Networking(Protocol):
    """See above. ``owner`` is what ports of ours are marked with (Neutron's device_owner)."""

    owner: str

    async def find_networks(self, token: str, ident: str | None = None) -> list[CloudNetwork]:
        """Those of that id, else of that name; all without ``ident``."""

    async def find_subnets(self, token: str) -> list[CloudSubnet]:
        """All of them."""

    async def find_port(self, token: str, ident: str) -> CloudPort | None:
        """The port of that id, else of that name; None where the caller sees none. Conflict for two of a name."""

    async def find_groups(self, token: str, project_id: str, ident: str) -> list[str]:
        """The ids of the project's security groups of that id, else of that name."""

    async def exposing_group(self, token: str, project_id: str, ports: tuple[str, ...]) -> str:
        """The id of the project's own security group that lets in these ports (80/tcp), made if it is not there."""

    async def make_ports(self, wanted: list[WantedPort]) -> list[CloudPort | HigginsError]:
        """Make ports, all with one request if it is possible; for each the port or why it is refused."""

    async def ports_of(self, devices: list[str]) -> list[CloudPort]:
        """The ports of these devices that are ours."""

    async def ports(self, ids: list[str]) -> dict[str, CloudPort]:
        """Those of the ports that are there, by id."""

    async def bind(self, port: str, *, host: str, device: str, groups: tuple[str, ...] | None = None) -> CloudPort:
        """Have a port be ours on that host; with other security groups if they are told. NotFound if it is gone."""

    async def let_go(self, port: str, device: str) -> None:
        """Unbind a port that somebody gave for ``device``, and keep it. One that is another's now, or gone, is done."""

    async def delete(self, port: str) -> None:
        """Gone already is done."""

    async def describe(self, networks: list[str]) -> "Described":
        """What a host has to know of these networks beside a port."""


class Described(Struct, frozen=True):
    """``networks`` and ``subnets`` by id; ``metadata`` are the addresses of the metadata service, by network."""

    networks: dict[str, CloudNetwork]
    subnets: dict[str, CloudSubnet]
    metadata: dict[str, str]
