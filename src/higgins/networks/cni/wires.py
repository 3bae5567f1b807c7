"""Names on the host, and what the CNI bridge plugin is told about a port.

A Linux interface name has at most 15 characters, so bridges and host-side veths carry a prefix and the first 12
hex digits of a uuid. They follow from the uuid alone: any process finds them again without a record of its own.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Any
from uuid import UUID

from higgins.model.errors import EngineError, Invalid
from higgins.networks.base import Plugged, PortWire

BRIDGE_PREFIX = "hg"
PORT_PREFIX = "hp"
TUNNEL_PREFIX = "hx"
_ALIAS = "higgins"
_BRIDGE_NAME = re.compile(rf"{BRIDGE_PREFIX}[0-9a-f]{{12}}")
_PORT_NAME = re.compile(rf"{PORT_PREFIX}[0-9a-f]{{12}}")
_TUNNEL_NAME = re.compile(rf"{TUNNEL_PREFIX}[0-9a-f]{{12}}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def checked_uuid(value: str) -> UUID:
    """Raises ``Invalid``: names, aliases and rules are made of it, so nothing but a uuid may pass."""
    try:
        return UUID(value)
    except ValueError as error:
        raise Invalid(f"{value!r} is not a uuid.") from error


def checked_mac(value: str) -> str:
    """In lower case. Raises ``Invalid``."""
    if not _MAC.fullmatch(value):
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


def bridge_config(port: PortWire) -> dict[str, Any]:
    """The network configuration that makes CNI's bridge plugin wire this port.

    The ipam is ``static``, not ``host-local``: the control plane has chosen the address and stored it, and a second
    allocator on the host would be a second truth. Raises ``Invalid`` for values that no port may have, and
    ``EngineError`` for IPv6, which this driver does not wire.
    """
    address, subnet = _address(port), _subnet(port)
    if address not in subnet:
        raise Invalid(f"Port {port.uuid}: the address {address} is not in {subnet}.")
    if not _INTERFACE.fullmatch(port.name):
        raise Invalid(f"Port {port.uuid}: {port.name!r} is not the name of an interface.")
    place: dict[str, Any] = {"address": f"{address}/{subnet.prefixlen}"}
    if port.gateway:
        place["gateway"] = str(_ipv4(port, port.gateway))
    ipam: dict[str, Any] = {"type": "static", "addresses": [place]}
    if port.default_route and port.gateway:
        ipam["routes"] = [{"dst": "0.0.0.0/0", "gw": place["gateway"]}]
    return {
        "cniVersion": "1.0.0",
        "name": str(checked_uuid(port.network)),
        "type": "bridge",
        "bridge": bridge_name(port.network),
        "isGateway": bool(port.gateway),
        "isDefaultGateway": False,
        "ipMasq": False,  # one rule of our own table does it for all ports
        "mtu": port.mtu,
        "ipam": ipam,
        "runtimeConfig": {"mac": checked_mac(port.mac)},
    }


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
