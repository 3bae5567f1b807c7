"""Bridges and veths as the kernel makes them. Blocking: each of these runs in a thread.

A bridge is completed by every plug, so that one that a crash left half made is like any other. A veth gets the name
that says that it is wired when it is: see ``driver``.
"""

import socket
from pathlib import Path

from higgins.model.errors import EngineError
from higgins.networks.base import PortWire
from higgins.networks.cni import links, netlink, wires
from higgins.networks.cni.netlink import Netlink, attribute, link_message, made_of

_SNOOPING, _CALL_IPTABLES = 23, 36  # of a bridge: IFLA_BR_…
_PEER = 1  # of a veth: VETH_INFO_PEER
_ANNOUNCE = "/proc/sys/net/ipv4/conf/{}/arp_notify"


def make_bridge(port: PortWire) -> None:
    """The bridge of a network that has none here. It filters before it has a port.

    Raises ``EngineError`` where its subnet overlaps another's, so one is made at a time: the next one sees it.
    """
    subnet = wires.place_of(port).address.network
    clash = links.overlapping_subnet(subnet)
    if clash is not None:
        raise EngineError(f"The network {port.network} cannot be on this host: {subnet} overlaps {clash}.")
    with Netlink() as kernel:
        kernel.ask(
            netlink.NEW_LINK,
            link_message(
                attribute(netlink.NAME, wires.bridge_name(port.network)),
                attribute(netlink.ADDRESS, netlink.mac_bytes(wires.bridge_mac(port.network))),
                attribute(netlink.MTU, int(port.mtu)),
                made_of("bridge", attribute(_CALL_IPTABLES, b"\1") + attribute(_SNOOPING, b"\0")),
            ),
            new=True,
        )
        _complete_bridge(kernel, port)


def _complete_bridge(kernel: Netlink, port: PortWire) -> int:
    """Mark, address and switch on the bridge; its index."""
    place, index = wires.place_of(port), socket.if_nametoindex(wires.bridge_name(port.network))
    kernel.ask(netlink.SET_LINK, link_message(attribute(netlink.ALIAS, wires.bridge_alias(port.network)), index=index))
    if place.gateway is not None:
        subnet = place.address.network
        kernel.add_address(index, place.gateway.packed, subnet.prefixlen, subnet.broadcast_address.packed)
    kernel.ask(netlink.SET_LINK, link_message(index=index, up=True))
    return index


def wire(port: PortWire, namespace: int, alias: str) -> bool:
    """Make the port's veth, the far end ready in the namespace; False where something has the name that one end needs.

    In a thread of its own, which enters the namespace. Raises OSError, and leaves nothing then.
    """
    place, unfinished = wires.place_of(port), wires.unfinished_name(port.uuid)
    with Netlink() as host:
        bridge = _complete_bridge(host, port)
        far_end = link_message(
            attribute(netlink.NAME, place.interface),
            attribute(netlink.ADDRESS, netlink.mac_bytes(place.mac)),
            attribute(netlink.MTU, place.mtu),
            attribute(netlink.NETNS_FD, namespace),
        )
        pair = (attribute(netlink.NAME, unfinished), attribute(netlink.MTU, place.mtu))
        try:
            host.ask(netlink.NEW_LINK, link_message(*pair, made_of("veth", attribute(_PEER, far_end))), new=True)
        except FileExistsError:
            return False
        index = socket.if_nametoindex(unfinished)
        try:
            host.ask(netlink.SET_LINK, link_message(attribute(netlink.MASTER, bridge), index=index))
            host.ask(netlink.SET_LINK, link_message(index=index, up=True))
            _settle_in(place, namespace)
            # Renamed while it is down, as kernels before 6.2 ask for.
            host.ask(netlink.SET_LINK, link_message(attribute(netlink.ALIAS, alias), index=index, up=False))
            host.ask(netlink.SET_LINK, link_message(attribute(netlink.NAME, wires.port_name(port.uuid)), index=index))
            host.ask(netlink.SET_LINK, link_message(index=index, up=True))
        except OSError:
            host.ask(netlink.DELETE_LINK, link_message(index=index))
            raise
    return True


def _settle_in(place: wires.Place, namespace: int) -> None:
    """Address and routes of the far end. Neighbours are told: they may know another's MAC at the address."""
    netlink.enter(namespace)
    Path(_ANNOUNCE.format(place.interface)).write_text("1")
    with Netlink() as inside:
        index, subnet = socket.if_nametoindex(place.interface), place.address.network
        inside.add_address(index, place.address.ip.packed, subnet.prefixlen, subnet.broadcast_address.packed)
        inside.ask(netlink.SET_LINK, link_message(index=index, up=True))
        if place.default_route and place.gateway is not None:
            inside.add_default_route(index, place.gateway.packed)
