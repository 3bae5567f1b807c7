"""The way to ports of a network on other hosts: one VXLAN interface in each of its bridges.

Nothing is flooded and nothing is learnt. The control plane knows where every port is, so each neighbour is a fixed
entry: which host its MAC address is behind, and which MAC address its IP address has, so that the interface can answer
ARP for it (``proxy``). What is addressed to nobody known goes nowhere, and so each host stays its own gateway.
"""

import asyncio
import ipaddress
import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from higgins.model.errors import EngineError, Invalid
from higgins.networks.base import Neighbour
from higgins.networks.cni import links, wires
from higgins.programs import end_of, last_words, run

#: What VXLAN over IPv4 adds to a packet: Ethernet, IP, UDP and its own header.
OVERHEAD = 50


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
        names = links.names()
        if bridge not in names:
            self._held.pop(network, None)
            return
        held = self._held.get(network) if name in names else None
        if held is None:
            held = await self._interface(bridge, name, min(wanted.values()))
        self._held.pop(network, None)  # not known while it changes
        await _change(name, held - wanted.keys(), wanted.keys() - held)
        self._held[network] = set(wanted)

    async def _interface(self, bridge: str, name: str, tunnel: int) -> set[Entry]:
        """Have the interface in the bridge; the neighbours that it knows."""
        found = await _found(name)
        if found is not None and _is_right(found, bridge, tunnel, self._address, self._port):
            return await _entries(name)
        await links.delete([name])
        await _configure(
            [
                f"link add name {name} type vxlan id {int(tunnel)} local {self._address} dstport {int(self._port)}"
                " nolearning proxy ttl 64",
                f"link set dev {name} mtu {await _mtu(bridge)} master {bridge}",
                f"link set dev {name} up",
            ]
        )
        return set()


def entry(neighbour: Neighbour) -> Entry:
    """Raises ``Invalid`` for what is no address."""
    try:
        address, host = ipaddress.IPv4Address(neighbour.address), ipaddress.IPv4Address(neighbour.host)
    except ValueError as error:
        raise Invalid(f"{neighbour.address!r} on {neighbour.host!r} is no neighbour.") from error
    return Entry(wires.checked_mac(neighbour.mac), str(address), str(host))


async def _change(name: str, gone: Iterable[Entry], new: Iterable[Entry]) -> None:
    """First what is gone: an address that moved is gone at one host and new at another."""
    gone, new = sorted(gone), sorted(new)
    forwarding = [f"fdb del {one.mac} dev {name} dst {one.host} self" for one in gone]
    forwarding += [f"fdb replace {one.mac} dev {name} dst {one.host} self permanent" for one in new]
    neighbours = [f"neighbour del {one.address} dev {name}" for one in gone]
    neighbours += [f"neighbour replace {one.address} lladdr {one.mac} dev {name} nud permanent" for one in new]
    if not forwarding:
        return
    await run("bridge", "-batch", "-", feed="\n".join(forwarding) + "\n")
    await _configure(neighbours)


async def _configure(lines: list[str]) -> None:
    await run("ip", "-batch", "-", feed="\n".join(lines) + "\n")


async def _found(name: str) -> dict[str, Any] | None:
    ended = await end_of("ip", "-json", "-details", "link", "show", "dev", name)
    if ended.code != 0:
        if name in links.names():
            raise EngineError(f"The host could not look at {name}: {last_words(ended)}.")
        return None
    found: dict[str, Any] = json.loads(ended.out)[0]
    return found


def _is_right(found: dict[str, Any], bridge: str, tunnel: int, address: str, port: int) -> bool:
    info = found.get("linkinfo", {})
    data = info.get("info_data", {})
    return (
        (info.get("info_kind"), data.get("id"), data.get("local"), data.get("port")) == ("vxlan", tunnel, address, port)
        and found.get("master") == bridge
        and "UP" in found.get("flags", [])
    )


async def _entries(name: str) -> set[Entry]:
    """The neighbours that the interface knows. What it knows by halves is put right by being wanted, or is harmless."""
    behind = {
        one["mac"]: one["dst"]
        for one in json.loads(await run("bridge", "-json", "fdb", "show", "dev", name) or "[]")
        if "dst" in one
    }
    return {
        Entry(one["lladdr"], one["dst"], behind[one["lladdr"]])
        for one in json.loads(await run("ip", "-json", "neighbour", "show", "dev", name, "nud", "permanent") or "[]")
        if one.get("lladdr") in behind
    }


async def _mtu(bridge: str) -> int:
    found = await _found(bridge)
    return int(found["mtu"]) if found is not None else 1500 - OVERHEAD
