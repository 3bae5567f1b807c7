"""What Higgins asks of a network driver on a host: plug a sandbox's namespace into its ports, and filter.

Addresses are chosen by the control plane and stored there; a driver puts them where they belong. Example::

    await network.setup()
    await network.plug("/proc/42/ns/net", workload, [PortWire(uuid=p, network=n, address="10.88.0.5", ...)])
    await network.apply([PortFilter(...)], [])
    await network.unplug(workload, [p])
"""

from typing import Protocol

from msgspec import Struct

#: IP protocols and their numbers, by the names that Neutron's security group API knows.
PROTOCOLS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
#: The numbers of those that have ports.
WITH_PORTS = frozenset(PROTOCOLS[name] for name in ("tcp", "udp", "dccp", "sctp", "udplite"))


class Address(Struct, frozen=True, kw_only=True):
    """An address of a port, the subnet that it is of, and that one's gateway (empty: none)."""

    address: str
    cidr: str
    gateway: str = ""


class PortWire(Struct, frozen=True, kw_only=True):
    """A port as a host must wire it. ``name`` is the interface inside (eth0 …); ``cidr`` the network's subnet.

    ``others`` are its addresses beside the first. ``routes`` as (destination, next hop); ``dns`` its name servers,
    the host's if empty. Of a port of a cloud's network service: ``port`` is its name there, ``kind`` how it is to be
    wired (Neutron's vif_type), ``bridge`` into what; ``answers``: the switch itself says when that is done.
    """

    uuid: str
    network: str
    project_id: str
    name: str
    mac: str
    address: str
    cidr: str
    gateway: str
    mtu: int = 1500
    default_route: bool = True
    others: tuple[Address, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    port: str = ""
    kind: str = ""
    bridge: str = ""
    answers: bool = False


class Rule(Struct, frozen=True, kw_only=True):
    """Traffic let in to a port. ``remote`` a CIDR or None for any; ``protocol`` tcp, udp, icmp or None for any."""

    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote: str | None = None


class PortFilter(Struct, frozen=True, kw_only=True):
    """What may reach a port: from its own project's networks when ``project_open``, by the rules, and by its groups.

    ``groups`` are lists of rules that many ports have in common; a driver keeps each once. With ``mac`` the port may
    send from that MAC address only; without it only its IP address is held to.
    """

    uuid: str
    address: str
    mac: str = ""
    network: str
    project_id: str
    project_open: bool = True
    rules: tuple[Rule, ...] = ()
    groups: tuple[tuple[Rule, ...], ...] = ()


class Neighbour(Struct, frozen=True, kw_only=True):
    """A port of one of this host's networks on another host, which is reached through a tunnel.

    ``host`` is that host's address on the network between hosts; ``tunnel`` the number of the network's tunnel (24
    bits), the same on all hosts.
    """

    network: str
    tunnel: int
    project_id: str
    address: str
    mac: str
    host: str


class Plugged(Struct, frozen=True):
    """What is found wired on the host."""

    workload: str
    port: str


class Network(Protocol):
    """A network driver's half on the host. Every verb may be done twice; raises ``EngineError`` with a reason."""

    async def setup(self) -> None:
        """Make what all ports need: forwarding, the rule table."""

    async def plug(self, netns: str, workload: str, ports: list[PortWire]) -> None:
        """Wire the ports into the namespace: addresses, routes, up. Those wired already stay."""

    async def unplug(self, workload: str, ports: list[str]) -> None:
        """Take the ports away; bridges that nobody uses go too. Gone already is done."""

    async def plugged(self) -> list[Plugged]:
        """All that is wired now, for recovery and for finding what has no owner."""

    async def apply(self, filters: list[PortFilter], neighbours: list[Neighbour]) -> None:
        """Make these the filters of this host, all at once, and these the ports that it reaches on other hosts."""

    async def teardown(self) -> None:
        """Remove everything of ours: bridges, rules."""
