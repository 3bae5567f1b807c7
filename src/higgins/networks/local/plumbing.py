"""Bridges and veths as the kernel makes them. Blocking: each of these runs in a thread.

A bridge is completed by every plug, so that one that a crash left half made is like any other. A veth gets the name
that says that it is wired when it is: see ``driver``.
"""

import errno
import socket
from pathlib import Path
from typing import Any

from pyroute2 import NetlinkError

from higgins.model.errors import EngineError
from higgins.networks import links
from higgins.networks.base import PortWire
from higgins.networks.local import wires
from higgins.networks.netlink import Kernel, change_link, delete_link, hold_address, lead_out, look_at, new_link

_ANNOUNCE = "/proc/sys/net/ipv4/conf/{}/arp_notify"


def make_bridge(port: PortWire) -> None:
    """The bridge of a network that has none here. It filters before it has a port.

    Raises ``EngineError`` where its subnet overlaps another's, so one is made at a time: the next one sees it.
    """
    subnet = wires.place_of(port).address.network
    clash = links.overlapping_subnet(subnet)
    if clash is not None:
        raise EngineError(f"The network {port.network} cannot be on this host: {subnet} overlaps {clash}.")
    with Kernel() as kernel:
        kernel.do(
            new_link(
                ("IFLA_IFNAME", wires.bridge_name(port.network)),
                ("IFLA_ADDRESS", wires.bridge_mac(port.network)),
                ("IFLA_MTU", int(port.mtu)),
                kind="bridge",
                about=(("IFLA_BR_NF_CALL_IPTABLES", 1), ("IFLA_BR_MCAST_SNOOPING", 0)),
            )
        )
        _complete_bridge(kernel, port)


def _complete_bridge(kernel: Kernel, port: PortWire) -> int:
    """Mark, address and switch on the bridge; its index."""
    place, index = wires.place_of(port), socket.if_nametoindex(wires.bridge_name(port.network))
    orders = [change_link(index, ("IFLA_IFALIAS", wires.bridge_alias(port.network)), up=True)]
    if place.gateway is not None:
        orders.append(_address(index, str(place.gateway), place))
    kernel.do(*orders)
    return index


def wire(port: PortWire, namespace: int, alias: str) -> bool:
    """Make the port's veth, the far end ready in the namespace; False where something has the name that one end needs.

    In a thread of its own, which enters the namespace. Raises NetlinkError or OSError, and leaves nothing then.
    """
    place, unfinished = wires.place_of(port), wires.unfinished_name(port.uuid)
    far_end = [
        ("IFLA_IFNAME", place.interface),
        ("IFLA_ADDRESS", place.mac),
        ("IFLA_MTU", place.mtu),
        ("IFLA_NET_NS_FD", namespace),
    ]
    with Kernel() as host:
        near_end = (("IFLA_IFNAME", unfinished), ("IFLA_MTU", place.mtu), ("IFLA_MASTER", _complete_bridge(host, port)))
        try:
            host.do(new_link(*near_end, kind="veth", about=(("VETH_INFO_PEER", {"attrs": far_end}),), up=True))
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return False
            raise
        index = socket.if_nametoindex(unfinished)
        try:
            _settle_in(place, namespace, host, index)
            host.do(
                # Renamed while it is down, as kernels before 6.2 ask for.
                change_link(index, ("IFLA_IFALIAS", alias), up=False),
                change_link(index, ("IFLA_IFNAME", wires.port_name(port.uuid))),
                change_link(index, up=True),
            )
        except (NetlinkError, OSError):
            host.do(delete_link(index))
            raise
    return True


def _settle_in(place: wires.Place, namespace: int, host: Kernel, near_end: int) -> None:
    """Address and routes of the far end. Neighbours are told: they may know another's MAC at the address."""
    links.enter(namespace)
    Path(_ANNOUNCE.format(place.interface)).write_text("1")
    with Kernel() as inside:
        index = socket.if_nametoindex(place.interface)
        inside.do(_address(index, str(place.address.ip), place), change_link(index, up=True))
        # The bridge takes packets from the near end once it has seen that the far end is on: from Linux 6.8 on whoever
        # asks waits for that. The kernel tells an interface's address when it is given a MAC, be it the one it has.
        host.do(look_at(near_end))
        orders = [change_link(index, ("IFLA_ADDRESS", place.mac))]
        if place.default_route and place.gateway is not None:
            orders.append(lead_out(index, str(place.gateway)))
        inside.do(*orders)


def _address(index: int, address: str, place: wires.Place) -> Any:
    subnet = place.address.network
    return hold_address(index, address, subnet.prefixlen, str(subnet.broadcast_address))
