"""The verbs of the ``neutron`` network: see ``open_neutron``.

State lives in the switch's database: an interface there that bears our marks is a port that is wired. It is put there
after all else is done, so that what a crash left half done is not taken for a port, and made anew.
"""

import asyncio
import json
import os

from higgins.model.errors import EngineError
from higgins.networks import links
from higgins.networks.base import Neighbour, Network, Plugged, PortFilter, PortWire
from higgins.networks.namespaces import held_namespace
from higgins.networks.neutron import wires
from higgins.networks.neutron.wires import Wired
from higgins.programs import Ended, end_of, last_words, run

#: Seconds that the switch's database may take to answer.
_DATABASE_TIMEOUT = 10


def open_neutron(*, bridge: str = "br-int", database: str = "", ready: float = 20.0) -> Network:
    """Ports of Neutron wired into Open vSwitch.

    ``bridge`` is taken for ports that name none; ``database`` is where the switch's database listens, if it is not at
    its usual place; ``ready`` the seconds within which the switch must say that a port is wired. Needs root, ``ip``,
    ``nsenter``, ``sysctl``, ``ovs-vsctl``, and ``ethtool`` where the switch works in user space.
    """
    return _Neutron(bridge, database, ready)


class _Neutron:
    def __init__(self, bridge: str, database: str, ready: float) -> None:
        self._bridge = bridge
        self._database = (f"--db={database}",) if database else ()
        self._ready = ready
        self._in_user_space: dict[str, bool] = {}

    async def setup(self) -> None:
        ended = await self._end_of_switch("br-exists", self._bridge)
        if ended.code == 2:
            raise EngineError(f"The bridge {self._bridge} is not in this host's switch; does ovn-controller run?")
        if ended.code != 0:
            raise EngineError(f"The host's Open vSwitch does not answer: {last_words(ended)}.")

    async def plug(self, netns: str, workload: str, ports: list[PortWire]) -> None:
        with held_namespace(netns, workload) as (held, inode):
            there = {one.name: one for one in await self._interfaces()}
            await asyncio.gather(*(self._plug(held, inode, workload, port, there) for port in ports))

    async def unplug(self, workload: str, ports: list[str]) -> None:
        wanted = {Plugged(workload=workload, port=port) for port in ports}
        await self._remove([one.name for one in await self._interfaces() if one.plugged in wanted])

    async def plugged(self) -> list[Plugged]:
        return [one.plugged for one in await self._interfaces()]

    async def apply(self, filters: list[PortFilter], neighbours: list[Neighbour]) -> None:
        """Nothing: the switch filters by the security groups of each port."""

    async def teardown(self) -> None:
        await self._remove([one.name for one in await self._interfaces()])

    async def _plug(self, namespace: int, inode: int, workload: str, port: PortWire, there: dict[str, Wired]) -> None:
        netns = f"/proc/{os.getpid()}/fd/{namespace}"
        bridge, end = wires.bridge_of(port, self._bridge), wires.host_end(port)
        found = there.get(end)
        mine = found is not None and (found.plugged, found.netns) == (Plugged(workload, port.uuid), str(inode))
        if mine and links.there(end):
            await self._await(port, end)
            return
        await self._remove([end])
        leftover = await links.peer_name(namespace, port.name)
        if leftover is not None and leftover not in there:
            await links.delete([leftover])
        await run("ip", "-batch", "-", feed="\n".join(wires.outside(port, netns)) + "\n")
        if settings := wires.sysctls(port):
            await run("nsenter", f"--net={netns}", "sysctl", "-q", "-w", *settings)
        await run("nsenter", f"--net={netns}", "ip", "-batch", "-", feed="\n".join(wires.inside(port)) + "\n")
        if await self._works_in_user_space(bridge):
            # Such a switch takes checksums as they are, and the kernel leaves them to a card that is not there.
            await run("nsenter", f"--net={netns}", "ethtool", "-K", port.name, "tx", "off")
        await self._switch(*wires.plugging(port, workload, bridge, inode))
        await self._await(port, end)

    async def _await(self, port: PortWire, end: str) -> None:
        """Until the switch says that the port's flows are there."""
        if not port.answers:
            return
        wait = ("wait-until", "Interface", end, "external_ids:ovn-installed=true")
        ended = await self._end_of_switch(*wait, timeout=self._ready)
        if ended.code != 0:
            raise EngineError(
                f"The switch of this host did not wire port {port.port} within {self._ready:.0f} s; "
                "it may not reach OVN, or the port may be bound to another host."
            )

    async def _remove(self, names: list[str]) -> None:
        if not names:
            return
        words = [word for name in names for word in ("--", "--if-exists", "del-port", name)]
        await self._switch(*words)
        await links.delete(names)

    async def _interfaces(self) -> list[Wired]:
        listed = await self._switch("--format=json", "--columns=name,external_ids", "list", "Interface")
        return wires.read_interfaces(json.loads(listed))

    async def _works_in_user_space(self, bridge: str) -> bool:
        if bridge not in self._in_user_space:
            kind = await self._switch("get", "Bridge", bridge, "datapath_type")
            self._in_user_space[bridge] = kind.strip().strip('"') == "netdev"
        return self._in_user_space[bridge]

    async def _switch(self, *words: str) -> str:
        return await run("ovs-vsctl", *self._options(_DATABASE_TIMEOUT), *words)

    async def _end_of_switch(self, *words: str, timeout: float = _DATABASE_TIMEOUT) -> Ended:
        return await end_of("ovs-vsctl", *self._options(timeout), *words)

    def _options(self, timeout: float) -> tuple[str, ...]:
        return (*self._database, f"--timeout={max(1, round(timeout))}")
