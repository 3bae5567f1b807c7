"""What ``ip`` and ``ovs-vsctl`` are told about a port; pure."""

import ipaddress
import re
from typing import Any

from msgspec import Struct

from higgins.model.errors import EngineError, Invalid
from higgins.networks.base import Address, Plugged, PortWire
from higgins.networks.links import is_interface_name, is_mac

#: What marks an interface of the switch as ours: whose it is and into which namespace (inode) it leads.
WORKLOAD, PORT, NETNS = "higgins-workload", "higgins-port", "higgins-netns"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Wired(Struct, frozen=True, kw_only=True):
    """An interface of ours in the switch. ``cloud_port`` is Neutron's name for it."""

    name: str
    workload: str
    port: str
    cloud_port: str
    netns: str

    @property
    def plugged(self) -> Plugged:
        return Plugged(workload=self.workload, port=self.port)


def host_end(port: PortWire) -> str:
    """The host's end of a port's veth, named as Neutron's agents would."""
    return f"tap{_word(port, port.port)[:11]}"


def bridge_of(port: PortWire, default: str) -> str:
    """The bridge that the port is bound to. Raises EngineError where it is to be wired in a way that is not this."""
    if port.kind != "ovs":
        raise EngineError(
            f"Port {port.port} is bound as {port.kind or 'nothing'}; this host wires ports into Open vSwitch (ovs)."
        )
    return _word(port, port.bridge or default)


def outside(port: PortWire, netns: str) -> list[str]:
    """For ``ip -batch`` on the host: the veth, with one end in the namespace."""
    end = host_end(port)
    return [
        f"link add name {end} mtu {int(port.mtu)} type veth peer name {_inner(port)} address {_mac(port)}"
        f" mtu {int(port.mtu)} netns {netns}",
        f"link set dev {end} up",
    ]


def inside(port: PortWire) -> list[str]:
    """For ``ip -batch`` in the namespace: addresses and routes. A next hop counts as reachable, as Neutron says so."""
    name = _inner(port)
    places = _places(port)
    lines = [f"address replace {_place(port, one)} dev {name}{_no_detection(one)}" for one in places]
    lines.append(f"link set dev {name} up")
    if port.default_route:
        gateways = {_version(one.gateway): one.gateway for one in reversed(places) if one.gateway}
        lines += [
            f"route replace default via {_address(port, gateway)} dev {name} onlink"
            for _, gateway in sorted(gateways.items())
        ]
    lines += [
        f"route replace {_subnet(port, destination)} via {_address(port, hop)} dev {name} onlink"
        for destination, hop in port.routes
        if any(_version(one.address) == _version(hop) for one in places)
    ]
    return lines


def sysctls(port: PortWire) -> list[str]:
    """IPv6 where the port has it, and by what Neutron says only, not by what routers announce."""
    if not any(_version(one.address) == 6 for one in _places(port)):
        return []
    settings = {"disable_ipv6": 0, "accept_ra": 0, "autoconf": 0}
    return [f"net/ipv6/conf/{_inner(port)}/{name}={value}" for name, value in settings.items()]


def plugging(port: PortWire, workload: str, bridge: str, netns: int) -> list[str]:
    """For ``ovs-vsctl``: the host's end into the bridge, known to the network's controller by Neutron's id."""
    end = host_end(port)
    ids = {
        "iface-id": _word(port, port.port),
        "iface-status": "active",
        "attached-mac": _mac(port),
        "vm-uuid": workload,
        WORKLOAD: workload,
        PORT: port.uuid,
        NETNS: str(netns),
    }
    pairs = [f'external_ids:{key}="{value}"' for key, value in ids.items()]
    return ["--", "--may-exist", "add-port", bridge, end, "--", "set", "Interface", end, *pairs]


def read_interfaces(listed: dict[str, Any]) -> list[Wired]:
    """Ours of what ``ovs-vsctl --format=json --columns=name,external_ids list Interface`` printed."""
    found: list[Wired] = []
    for name, (_, pairs) in listed["data"]:
        ids = dict(pairs)
        if WORKLOAD in ids and PORT in ids:
            found.append(
                Wired(
                    name=name,
                    workload=ids[WORKLOAD],
                    port=ids[PORT],
                    cloud_port=ids.get("iface-id", ""),
                    netns=ids.get(NETNS, ""),
                )
            )
    return found


def _places(port: PortWire) -> list[Address]:
    first = [Address(address=port.address, cidr=port.cidr, gateway=port.gateway)] if port.address else []
    return [*first, *port.others]


def _inner(port: PortWire) -> str:
    if not is_interface_name(port.name):
        raise Invalid(f"Port {port.port}: {port.name!r} is not the name of an interface.")
    return port.name


def _word(port: PortWire, value: str) -> str:
    if not _WORD.fullmatch(value):
        raise Invalid(f"Port {port.uuid}: {value!r} is no name that can be wired.")
    return value


def _mac(port: PortWire) -> str:
    if not is_mac(port.mac):
        raise Invalid(f"Port {port.port}: {port.mac!r} is not a MAC address.")
    return port.mac.lower()


def _place(port: PortWire, one: Address) -> str:
    return f"{_address(port, one.address)}/{ipaddress.ip_network(_subnet(port, one.cidr)).prefixlen}"


def _no_detection(one: Address) -> str:
    """Neutron gives an address once; looking for duplicates would hold it up for a second."""
    return " nodad" if _version(one.address) == 6 else ""


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _address(port: PortWire, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise Invalid(f"Port {port.port}: {value!r} is not an address.") from error


def _subnet(port: PortWire, value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError as error:
        raise Invalid(f"Port {port.port}: {value!r} is not a subnet.") from error
