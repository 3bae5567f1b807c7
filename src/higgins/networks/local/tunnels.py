"""The way to ports of a network on other hosts: one VXLAN interface in each of its bridges.

Nothing is flooded and nothing is learnt. The control plane knows where every port is, so each neighbour is three fixed
entries: for the bridge, that its MAC address is behind the tunnel; for the interface, which host that is behind, and
which MAC address its IP address has, so that the interface can answer ARP for it (``proxy``). What is addressed to
nobody known goes nowhere, and so each host stays its own gateway.
"""

import asyncio
import errno
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pyroute2 import IPRoute, NetlinkError

from higgins.model.errors import EngineError, Invalid
from higgins.networks import links
from higgins.networks.base import Neighbour
from higgins.networks.local import wires

#: What VXLAN over IPv4 adds to a packet: Ethernet, IP, UDP and its own header.
OVERHEAD = 50

_SELF, _MASTER = 2, 4  # NTF_…: the interface's own table, and its bridge's
_STATIC, _PERMANENT = 64, 128  # NUD_NOARP, NUD_PERMANENT


class Entry(NamedTuple):
    """A neighbour as the kernel knows it."""

    mac: str
    address: str
    host: str


class Tunnels:
    """The VXLAN interfaces of this host. ``address`` is where others reach it, empty where it has none."""

    def __init__(self, address: str, port: int) -> None:
        self._address = address and str(ipaddress.IPv4Address(address))
        self._port = port
        self._wanted: dict[str, dict[Entry, int]] = {}
        self._held: dict[str, set[Entry]] = {}
        self._lock = asyncio.Lock()

    async def apply(self, neighbours: Iterable[Neighbour]) -> None:
        """Make these the neighbours. Those of networks that have no bridge here yet wait for it. Raises EngineError."""
        wanted: dict[str, dict[Entry, int]] = defaultdict(dict)
        for one in neighbours:
            wanted[one.network][entry(one)] = one.tunnel
        async with self._lock:
            doomed = [network for network in self._wanted if network not in wanted]
            self._wanted = dict(wanted)
            await links.delete([wires.tunnel_name(network) for network in doomed])
            for network in doomed:
                self._held.pop(network, None)
            for network in wanted:
                await self._hold(network)

    async def lead_from(self, network: str) -> None:
        """The network has a bridge now: join it with its neighbours."""
        if network in self._wanted:
            async with self._lock:
                await self._hold(network)

    async def remove_unwanted(self) -> None:
        """Interfaces that an earlier run of the agent left, of networks that have no bridge any more."""
        there = await links.links()
        await links.delete(
            [name for name, link in there.items() if wires.is_tunnel_name(name) and link.master not in there]
        )

    def mtu(self, wanted: int) -> int:
        """What a port may send in one piece, so that it fits through a tunnel over a network of 1500 bytes."""
        return min(wanted, 1500 - OVERHEAD) if self._address else wanted

    async def _hold(self, network: str) -> None:
        """Under the lock."""
        wanted = self._wanted.get(network)
        if not wanted:
            return
        bridge, name = wires.bridge_name(network), wires.tunnel_name(network)
        held = self._held.pop(network, None)  # not known while it changes
        if not links.there(bridge):
            return
        if not links.there(name):
            held = None
        number = min(wanted.values())
        try:
            await asyncio.to_thread(self._change, bridge, name, number, set(wanted), held)
        except (NetlinkError, OSError) as error:
            raise EngineError(f"The tunnels of network {network} could not be made: {links.words(error)}.") from error
        self._held[network] = set(wanted)

    def _change(self, bridge: str, name: str, number: int, wanted: set[Entry], held: set[Entry] | None) -> None:
        """Have the interface know these neighbours; it is looked at where it is not known what it ``held``."""
        with IPRoute() as kernel:
            if held is None:
                held = self._interface(kernel, bridge, name, number)
            index = socket.if_nametoindex(name)
            # First what is gone: an address that moved is gone at one host and new at another.
            for one in sorted(held - wanted):
                _forget(kernel.fdb, ifindex=index, lladdr=one.mac, flags=_MASTER)
                _forget(kernel.fdb, ifindex=index, lladdr=one.mac, dst=one.host, flags=_SELF)
                _forget(kernel.neigh, ifindex=index, dst=one.address)
            for one in sorted(wanted - held):
                kernel.fdb("replace", ifindex=index, lladdr=one.mac, dst=one.host, flags=_SELF, state=_PERMANENT)
                kernel.neigh("replace", ifindex=index, dst=one.address, lladdr=one.mac, state="permanent")
                kernel.fdb("replace", ifindex=index, lladdr=one.mac, flags=_MASTER, state=_STATIC)

    def _interface(self, kernel: IPRoute, bridge: str, name: str, number: int) -> set[Entry]:
        """Have the interface in the bridge; the neighbours that it knows."""
        master = socket.if_nametoindex(bridge)
        found = next((one for one in kernel.get_links() if one.get("IFLA_IFNAME") == name), None)
        if found is not None:
            told = tuple(found.get(("linkinfo", "data", f"vxlan_{key}")) for key in ("id", "local", "port"))
            if told == (number, self._address, self._port) and found.get("IFLA_MASTER") == master:
                return _entries(kernel, found["index"])
            kernel.link("del", index=found["index"])
        kernel.link(
            "add",
            ifname=name,
            kind="vxlan",
            vxlan_id=number,
            vxlan_local=self._address,
            vxlan_port=self._port,
            vxlan_learning=False,
            vxlan_proxy=True,
            vxlan_ttl=64,
        )
        mtu = kernel.get_links(master)[0].get("IFLA_MTU")
        index = socket.if_nametoindex(name)
        kernel.link("set", index=index, mtu=mtu, master=master)
        kernel.link("set", index=index, kind="bridge_slave", brport_learning=0)
        kernel.link("set", index=index, state="up")
        return set()


def _forget(table: Callable[..., Any], **known: Any) -> None:
    """Gone already is done: of a port that has moved here the bridge takes the entry away as soon as it sends."""
    try:
        table("del", **known)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise


def entry(neighbour: Neighbour) -> Entry:
    """Raises ``Invalid`` for what is no address."""
    try:
        address, host = ipaddress.IPv4Address(neighbour.address), ipaddress.IPv4Address(neighbour.host)
    except ValueError as error:
        raise Invalid(f"{neighbour.address!r} on {neighbour.host!r} is no neighbour.") from error
    return Entry(wires.checked_mac(neighbour.mac), str(address), str(host))


def _entries(kernel: IPRoute, index: int) -> set[Entry]:
    """The neighbours that the interface knows. What is known by halves is put right by being wanted, or is harmless."""
    forwarded = list(kernel.fdb("dump", ifindex=index))
    behind = {one.get("NDA_LLADDR"): one.get("NDA_DST") for one in forwarded if one.get("NDA_DST")}
    bridged = {one.get("NDA_LLADDR") for one in forwarded if one["state"] == _STATIC}
    return {
        Entry(one.get("NDA_LLADDR"), one.get("NDA_DST"), behind[one.get("NDA_LLADDR")])
        for one in kernel.neigh("dump", ifindex=index)
        if one["state"] == _PERMANENT and one.get("NDA_LLADDR") in behind.keys() & bridged
    }
