"""Names on the host, and what a port is in the kernel's terms.

A Linux interface name has at most 15 characters, so bridges and host-side veths carry a prefix and the first 12
hex digits of a uuid. They follow from the uuid alone: any process finds them again without a record of its own.
"""

import ipaddress
import re
from functools import lru_cache
from uuid import UUID

from msgspec import Struct

from higgins.model.errors import EngineError, Invalid
from higgins.networks.base import Plugged, PortWire
from higgins.networks.links import is_interface_name, is_mac

BRIDGE_PREFIX = "hg"
PORT_PREFIX = "hp"
TUNNEL_PREFIX = "hx"
UNFINISHED_PREFIX = "hw"
_ALIAS = "higgins"
_BRIDGE_NAME = re.compile(rf"{BRIDGE_PREFIX}[0-9a-f]{{12}}")
_PORT_NAME = re.compile(rf"{PORT_PREFIX}[0-9a-f]{{12}}")
_TUNNEL_NAME = re.compile(rf"{TUNNEL_PREFIX}[0-9a-f]{{12}}")


def checked_uuid(value: str) -> UUID:
    """Raises ``Invalid``: names, aliases and rules are made of it, so nothing but a uuid may pass."""
    try:
        return UUID(value)
    except ValueError as error:
        raise Invalid(f"{value!r} is not a uuid.") from error


def checked_mac(value: str) -> str:
    """In lower case. Raises ``Invalid``."""
    if not is_mac(value):
        raise Invalid(f"{value!r} is not a MAC address.")
    return value.lower()


@lru_cache(maxsize=16384)
def bridge_name(network: str) -> str:
    """The Linux bridge of a network."""
    return BRIDGE_PREFIX + checked_uuid(network).hex[:12]


@lru_cache(maxsize=16384)
def port_name(port: str) -> str:
    """The host's end of a port's veth."""
    return PORT_PREFIX + checked_uuid(port).hex[:12]


@lru_cache(maxsize=16384)
def tunnel_name(network: str) -> str:
    """The interface in a network's bridge that leads to other hosts."""
    return TUNNEL_PREFIX + checked_uuid(network).hex[:12]


def tunnel_of(bridge: str) -> str:
    """The name of the tunnel that a bridge would have."""
    return TUNNEL_PREFIX + bridge.removeprefix(BRIDGE_PREFIX)


def unfinished_name(port: str) -> str:
    """The same while the port is being wired: what bears it is nothing yet, and no filter knows it."""
    return f"{UNFINISHED_PREFIX}{checked_uuid(port).hex[:12]}"


def is_bridge_name(name: str) -> bool:
    return _BRIDGE_NAME.fullmatch(name) is not None


def is_port_name(name: str) -> bool:
    return _PORT_NAME.fullmatch(name) is not None


def is_tunnel_name(name: str) -> bool:
    return _TUNNEL_NAME.fullmatch(name) is not None


def bridge_mac(network: str) -> str:
    """A fixed, locally administered address.

    Left alone a bridge takes the lowest address of its ports, so that each plug could change the gateway's address
    under the neighbour caches of all containers.
    """
    return ":".join(["0a", *re.findall("..", checked_uuid(network).hex[:10])])


def bridge_alias(network: str) -> str:
    """What marks a bridge as ours, and tells the whole uuid that its name only begins."""
    return f"{_ALIAS}:{checked_uuid(network)}"


def port_alias(workload: str, port: str, netns: int) -> str:
    """What the kernel remembers of a port for us: whose it is and into which namespace (inode) it leads."""
    return f"{_ALIAS}:{checked_uuid(workload)}:{checked_uuid(port)}:{netns}"


def read_port_alias(alias: str) -> Plugged | None:
    """The inverse of ``port_alias``; None for what is not ours."""
    match alias.split(":"):
        case [head, workload, port, _] if head == _ALIAS:
            return Plugged(workload=workload, port=port)
    return None


class Place(Struct, frozen=True):
    """Where a port leads: the interface inside, and what the kernel is told about it."""

    interface: str
    mac: str
    mtu: int
    address: ipaddress.IPv4Interface
    gateway: ipaddress.IPv4Address | None
    default_route: bool


def place_of(port: PortWire) -> Place:
    """Raises ``Invalid`` for values that no port may have, and ``EngineError`` for IPv6, which is not wired here."""
    address, subnet = _address(port), _subnet(port)
    if address not in subnet:
        raise Invalid(f"Port {port.uuid}: the address {address} is not in {subnet}.")
    if not is_interface_name(port.name):
        raise Invalid(f"Port {port.uuid}: {port.name!r} is not the name of an interface.")
    checked_uuid(port.network)
    gateway = _ipv4(port, port.gateway) if port.gateway else None
    return Place(
        interface=port.name,
        mac=checked_mac(port.mac),
        mtu=int(port.mtu),
        address=ipaddress.IPv4Interface((address, subnet.prefixlen)),
        gateway=gateway,
        default_route=port.default_route and gateway is not None,
    )


def _address(port: PortWire) -> ipaddress.IPv4Address:
    return _ipv4(port, port.address)


def _ipv4(port: PortWire, value: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.ip_address(value)
    except ValueError as error:
        raise Invalid(f"Port {port.uuid}: {value!r} is not an address.") from error
    if not isinstance(address, ipaddress.IPv4Address):
        raise EngineError(f"Port {port.uuid}: this host's network driver wires IPv4 only, and {value} is not.")
    return address


def _subnet(port: PortWire) -> ipaddress.IPv4Network:
    try:
        subnet = ipaddress.ip_network(port.cidr, strict=False)
    except ValueError as error:
        raise Invalid(f"Port {port.uuid}: {port.cidr!r} is not a subnet.") from error
    if not isinstance(subnet, ipaddress.IPv4Network):
        raise EngineError(f"Port {port.uuid}: this host's network driver wires IPv4 only, and {subnet} is not.")
    return subnet
