"""Bridges and veths as the kernel makes them. Blocking: each of these runs in a thread.

A bridge is completed by every plug, so that one that a crash left half made is like any other. A veth gets the name
that says that it is wired when it is: see ``driver``.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from higgins.model.errors import EngineError
from higgins.networks import links
from higgins.networks.base import PortWire
from higgins.networks.local import wires

_ANNOUNCE = "/proc/sys/net/ipv4/conf/{}/arp_notify"


def make_bridge(port: PortWire) -> None:
    """The bridge of a network that has none here. It filters before it has a port.

    Raises ``EngineError`` where its subnet overlaps another's, so one is made at a time: the next one sees it.
    """
    subnet = wires.place_of(port).address.network
    clash = links.overlapping_subnet(subnet)
    if clash is not None:
        raise EngineError(f"The network {port.network} cannot be on this host: {subnet} overlaps {clash}.")
    with IPRoute() as kernel:
        kernel.link(
            "add",
            ifname=wires.bridge_name(port.network),
            kind="bridge",
            address=wires.bridge_mac(port.network),
            mtu=int(port.mtu),
            br_nf_call_iptables=1,
            br_mcast_snooping=0,
        )
        _complete_bridge(kernel, port)


def _complete_bridge(kernel: IPRoute, port: PortWire) -> int:
    """Mark, address and switch on the bridge; its index."""
    place, index = wires.place_of(port), socket.if_nametoindex(wires.bridge_name(port.network))
    kernel.link("set", index=index, ifalias=wires.bridge_alias(port.network))
    if place.gateway is not None:
        _add_address(kernel, index, place.gateway, place)
    kernel.link("set", index=index, state="up")
    return index


def wire(port: PortWire, namespace: int, alias: str) -> bool:
    """Make the port's veth, the far end ready in the namespace; False where something has the name that one end needs.

    In a thread of its own, which enters the namespace. Raises NetlinkError or OSError, and leaves nothing then.
    """
    place, unfinished = wires.place_of(port), wires.unfinished_name(port.uuid)
    with IPRoute() as host:
        bridge = _complete_bridge(host, port)
        far_end = {"ifname": place.interface, "address": place.mac, "mtu": place.mtu, "net_ns_fd": namespace}
        try:
            host.link("add", ifname=unfinished, kind="veth", mtu=place.mtu, peer=far_end)
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return False
            raise
        index = socket.if_nametoindex(unfinished)
        try:
            host.link("set", index=index, master=bridge, state="up")
            _settle_in(place, namespace)
            # Renamed while it is down, as kernels before 6.2 ask for.
            host.link("set", index=index, ifalias=alias, state="down")
            host.link("set", index=index, ifname=wires.port_name(port.uuid))
            host.link("set", index=index, state="up")
        except (NetlinkError, OSError):
            host.link("del", index=index)
            raise
    return True


def _settle_in(place: wires.Place, namespace: int) -> None:
    """Address and routes of the far end. Neighbours are told: they may know another's MAC at the address."""
    links.enter(namespace)
    Path(_ANNOUNCE.format(place.interface)).write_text("1")
    with IPRoute() as inside:
        index = socket.if_nametoindex(place.interface)
        _add_address(inside, index, place.address.ip, place)
        inside.link("set", index=index, state="up")
        if place.default_route and place.gateway is not None:
            with _there_already():
                inside.route("add", gateway=str(place.gateway), oif=index, proto="static")


def _add_address(kernel: IPRoute, index: int, address: object, place: wires.Place) -> None:
    subnet = place.address.network
    with _there_already():
        kernel.addr(
            "add",
            index=index,
            address=str(address),
            prefixlen=subnet.prefixlen,
            broadcast=str(subnet.broadcast_address),
        )


@contextmanager
def _there_already() -> Iterator[None]:
    """What is there already is done."""
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
