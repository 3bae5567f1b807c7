"""The verbs of the ``local`` network: see ``open_local_network``.

State lives in the kernel. The host's end of a port is named after the port, and its alias says whose it is and into
which namespace it leads; a restarted agent reads all of it back with one look. The alias is written and the name given
only when all else is done: what bears the name is wired, and what a crash left half done is found by the next plug, as
the far end of an interface in the sandbox whose near end bears no such name, and made anew.
"""

import asyncio
import logging
import shutil
from collections import defaultdict
from pathlib import Path

from msgspec.structs import replace
from pyroute2 import NetlinkError

from higgins.model.errors import EngineError
from higgins.networks import links
from higgins.networks.base import Neighbour, Network, Plugged, PortFilter, PortWire
from higgins.networks.local import plumbing, wires
from higgins.networks.local.nftables import nft
from higgins.networks.local.rules import no_ruleset, ruleset
from higgins.networks.local.tunnels import Tunnels
from higgins.networks.namespaces import held_namespace
from higgins.private_files import write_private
from higgins.programs import end_of, last_words, run

LOG = logging.getLogger(__name__)

#: A wire may have been left half done at both of its ends.
_TRIES = 3
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_BRIDGE_CALLS = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_PASSAGES = (("-i", f"{wires.BRIDGE_PREFIX}+"), ("-o", f"{wires.BRIDGE_PREFIX}+"))


def open_local_network(
    state: Path,
    *,
    table: str = "higgins",
    reach_host: bool = True,
    tunnel_address: str = "",
    tunnel_port: int = 4789,
) -> Network:
    """The network of one machine: bridges and veths, filters by nftables.

    ``state`` is a directory of the driver's own, for the last ruleset; ``table`` the name of our nftables tables.
    Without ``reach_host`` a container opens no connection to the host. With a ``tunnel_address`` (IPv4, of this host)
    networks span hosts, and ports have an MTU that fits. Needs root, libnftables, and br_netfilter in
    the kernel or as a module.
    """
    return _Local(state, table, reach_host, Tunnels(tunnel_address, tunnel_port), tunnel_port)


class _Local:
    def __init__(self, state: Path, table: str, reach_host: bool, tunnels: Tunnels, tunnel_port: int) -> None:
        self._saved = state / "ruleset.nft"
        self._table = table
        self._reach_host = reach_host
        self._tunnels = tunnels
        self._tunnel_port = tunnel_port
        self._bridges: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._making = asyncio.Lock()
        self._filtering = asyncio.Lock()
        self._applied: str | None = None

    async def setup(self) -> None:
        await self._let_bridges_call()
        _switch_on(_IP_FORWARD)
        await self._restore_filters()
        await self._pass_foreign_policy()
        await self._remove_unused_bridges()
        await self._tunnels.remove_unwanted()

    async def plug(self, netns: str, workload: str, ports: list[PortWire]) -> None:
        with held_namespace(netns, workload) as (held, inode):
            for asked in ports:
                port = replace(asked, mtu=self._tunnels.mtu(asked.mtu))
                wires.place_of(port)  # raises before anything is changed
                alias = wires.port_alias(workload, port.uuid, inode)
                async with self._bridges[wires.bridge_name(port.network)]:
                    await self._wire(held, port, alias)

    async def unplug(self, workload: str, ports: list[str]) -> None:
        wanted = {Plugged(workload=str(wires.checked_uuid(workload)), port=str(wires.checked_uuid(p))) for p in ports}
        there = await links.links()
        await links.delete(
            [name for name, link in there.items() if wires.is_port_name(name) and _owner(link) in wanted]
        )
        await self._remove_unused_bridges()

    async def plugged(self) -> list[Plugged]:
        there = await links.links()
        owners = (_owner(link) for name, link in there.items() if wires.is_port_name(name))
        return [owner for owner in owners if owner is not None]

    async def apply(self, filters: list[PortFilter], neighbours: list[Neighbour]) -> None:
        text = ruleset(
            filters, neighbours, table=self._table, reach_host=self._reach_host, tunnel_port=self._tunnel_port
        )
        async with self._filtering:
            if text != self._applied:
                await self._load(text)
        await self._tunnels.apply(neighbours)

    async def teardown(self) -> None:
        there = await links.links()
        bridges = {name for name, link in there.items() if _is_our_bridge(link)}
        ports = [name for name, link in there.items() if link.master in bridges or _owner(link) is not None]
        await links.delete(ports)
        await links.delete(sorted(bridges))
        async with self._filtering:
            await _nft(no_ruleset(self._table))
            self._applied = None
            self._saved.unlink(missing_ok=True)
        await self._pass_no_more()

    # wires

    async def _wire(self, namespace: int, port: PortWire, alias: str) -> None:
        """Under the bridge's lock. Nothing is done for a port that is wired already."""
        bridge, name = wires.bridge_name(port.network), wires.port_name(port.uuid)
        if links.there(name):
            link = (await links.links()).get(name)
            if link is not None and link.alias == alias and link.master == bridge and link.up:
                return
            await links.delete([name])
        try:
            if not links.there(bridge):
                async with self._making:
                    await asyncio.to_thread(plumbing.make_bridge, port)
                await self._tunnels.lead_from(port.network)
            for _ in range(_TRIES):
                if await links.alone(lambda: plumbing.wire(port, namespace, alias)):
                    return
                if not await _remove_leftover(namespace, port):
                    break
        except (NetlinkError, OSError) as error:
            raise EngineError(f"Port {port.uuid} could not be wired: {links.words(error)}.") from error
        raise EngineError(f"Port {port.uuid} could not be wired: an interface {port.name} already exists.")

    async def _remove_unused_bridges(self) -> None:
        """Each under its own lock, and looked at again there: a plug may be about to use it."""
        for bridge in _unused(await links.links()):
            async with self._bridges[bridge]:
                if bridge in _unused(await links.links()):
                    await links.delete([bridge, wires.tunnel_of(bridge)])

    # filters

    async def _load(self, text: str) -> None:
        """Under the filter lock. Nothing changes where nft refuses: it takes all of it or nothing."""
        self._applied = None
        await _nft(text)
        self._saved.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._saved, text, lasts=False)
        self._applied = text

    async def _restore_filters(self) -> None:
        """Have filters before the first ``apply``: those in force, else the last ones known, else none let through.

        Also finds out when somebody flushed the host's ruleset under us.
        """
        async with self._filtering:
            tables = await _nft("list tables")
            if {f"table inet {self._table}", f"table bridge {self._table}"} <= set(tables.splitlines()):
                return
            last = self._applied
            if last is None and self._saved.exists():
                last = self._saved.read_text(errors="replace")
            none = ruleset([], table=self._table, reach_host=self._reach_host)
            try:
                await self._load(last or none)
            except EngineError as error:
                if not last:
                    raise
                LOG.warning("Nothing is let through until filters are known anew; the last ones do not load: %s", error)
                await self._load(none)

    async def _let_bridges_call(self) -> None:
        """Bridged packets reach the forward hook only with br_netfilter; our bridges ask for it one by one."""
        if _BRIDGE_CALLS.exists():
            return
        loaded = await end_of("modprobe", "br_netfilter")
        if loaded.code != 0 or not _BRIDGE_CALLS.exists():
            raise EngineError(
                "This host cannot filter inside a network: its kernel has no br_netfilter "
                f"(modprobe br_netfilter: {last_words(loaded)})."
            )
        # Loading it turns it on for all bridges of the host; those of others stay as they were.
        for family in ("iptables", "ip6tables", "arptables"):
            _BRIDGE_CALLS.with_name(f"bridge-nf-call-{family}").write_text("0")

    async def _pass_foreign_policy(self) -> None:
        """Where Docker or an operator lets iptables drop what is forwarded, pass what our own table judges.

        An accept in one table does not undo a drop in another, so that two rules must stand in the other one. They
        are only set where the policy is to drop.
        """
        if shutil.which("iptables") is None:
            return
        found = (await run("iptables", "-w", "-S", "FORWARD")).splitlines()
        if "-P FORWARD DROP" not in found:
            return
        for side, bridges in _PASSAGES:
            if not any(line.startswith(f"-A FORWARD {side} {bridges} ") for line in found):
                await run("iptables", "-w", "-I", "FORWARD", *_passage(side, bridges))

    async def _pass_no_more(self) -> None:
        if shutil.which("iptables") is None:
            return
        found = (await run("iptables", "-w", "-S", "FORWARD")).splitlines()
        for side, bridges in _PASSAGES:
            if any(line.startswith(f"-A FORWARD {side} {bridges} ") for line in found):
                await run("iptables", "-w", "-D", "FORWARD", *_passage(side, bridges))


async def _nft(commands: str) -> str:
    return await links.alone(lambda: nft(commands))


async def _remove_leftover(namespace: int, port: PortWire) -> bool:
    """Whether a wire that an earlier plug did not finish stood in the way; it is gone now."""
    unfinished = wires.unfinished_name(port.uuid)
    peer = unfinished if links.there(unfinished) else await links.peer_name(namespace, port.name)
    if peer is None or wires.is_port_name(peer):
        return False
    await links.delete([peer])
    return True


def _passage(side: str, bridges: str) -> tuple[str, ...]:
    return (side, bridges, "-m", "comment", "--comment", "judged by higgins", "-j", "ACCEPT")


def _owner(link: links.Link) -> Plugged | None:
    return wires.read_port_alias(link.alias)


def _is_our_bridge(link: links.Link) -> bool:
    """By name and mark: somebody else's interface may begin with the same letters."""
    return wires.is_bridge_name(link.name) and link.alias.startswith("higgins:")


def _unused(there: dict[str, links.Link]) -> list[str]:
    used = {link.master for link in there.values() if not wires.is_tunnel_name(link.name)}
    return [name for name, link in there.items() if _is_our_bridge(link) and name not in used]


def _switch_on(setting: Path) -> None:
    """Not written where it is on already: the file may be read-only then."""
    if setting.read_text().strip() == "0":
        setting.write_text("1")
