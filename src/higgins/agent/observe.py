"""What the host holds of each workload: the engine's answer, the wires and the volumes, put together."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from higgins.agent.files import Files
from higgins.agent.seen import Seen
from higgins.agent.spares import Spares
from higgins.networks.base import Network
from higgins.runtimes.base import Holdings, Observed, Runtime, Sandbox
from higgins.volumes.base import Volumes


def naive(moment: datetime | None) -> datetime | None:
    """Times are UTC without zone everywhere above the drivers."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment and moment.tzinfo else moment


def _container(one: Observed) -> Observed:
    return replace(one, started_at=naive(one.started_at), finished_at=naive(one.finished_at))


NOTHING = Holdings((), ())


def by_workload(holdings: Holdings) -> dict[str, Holdings]:
    """What is held of each workload, in one pass: a comparison of everything must not take the square of it."""
    sandboxes: dict[str, list[Sandbox]] = {}
    containers: dict[str, list[Observed]] = {}
    for sandbox in holdings.sandboxes:
        sandboxes.setdefault(sandbox.uuid, []).append(sandbox)
    for container in holdings.containers:
        containers.setdefault(container.sandbox, []).append(container)
    return {
        uuid: Holdings(tuple(sandboxes.get(uuid, ())), tuple(containers.get(uuid, ())))
        for uuid in {*sandboxes, *containers}
    }


class Table:
    """The wires and volumes of the host, read now and then and kept up by the steps in between.

    Reading them is dear (a driver looks into every namespace), and nobody but the steps changes them.
    """

    def __init__(self, network: Network, volumes: Volumes) -> None:
        self._network = network
        self._volumes = volumes
        self._ports: dict[str, frozenset[str]] = {}
        self._attached: frozenset[str] = frozenset()
        self._touched: set[str] = set()

    async def read(self) -> None:
        """Read all anew. What a step changes meanwhile stays as the step left it."""
        self._touched = set()
        plugged = await self._network.plugged()
        attached = await self._volumes.attached()
        ports: dict[str, frozenset[str]] = {}
        for wire in plugged:
            ports[wire.workload] = ports.get(wire.workload, frozenset()) | {wire.port}
        touched = self._touched
        kept = {workload: own for workload, own in self._ports.items() if workload in touched}
        self._ports = {workload: own for workload, own in ports.items() if workload not in touched} | kept
        self._attached = frozenset(set(attached) - touched) | (self._attached & touched)

    def plug(self, workload: str, ports: Iterable[str]) -> None:
        self._touched.add(workload)
        self._ports[workload] = self.ports(workload) | frozenset(ports)

    def unplug(self, workload: str, ports: Iterable[str]) -> None:
        self._touched.add(workload)
        self._ports[workload] = self.ports(workload) - frozenset(ports)
        if not self._ports[workload]:
            del self._ports[workload]

    def attach(self, volume: str) -> None:
        self._touched.add(volume)
        self._attached |= {volume}

    def detach(self, volume: str) -> None:
        self._touched.add(volume)
        self._attached -= {volume}

    def ports(self, workload: str) -> frozenset[str]:
        return self._ports.get(workload, frozenset())

    @property
    def attached(self) -> frozenset[str]:
        return self._attached

    @property
    def workloads(self) -> frozenset[str]:
        """Those that have wires here."""
        return frozenset(self._ports)


class Observer:
    """Looks at the host, workload by workload or at all of it."""

    def __init__(self, runtime: Runtime, table: Table, files: Files, spares: Spares) -> None:
        self._runtime = runtime
        self._table = table
        self._files = files
        self._spares = spares

    async def look(self, workload: str, volumes: frozenset[str], shared: frozenset[str]) -> Seen:
        """One workload as it is now. ``volumes`` are its own, ``shared`` those others need too.

        Raises ``EngineUnavailable``.
        """
        holdings = self._spares.renamed(await self._runtime.list(self._spares.real(workload)))
        return self.seen(workload, holdings, volumes, shared)

    def seen(self, workload: str, holdings: Holdings, volumes: frozenset[str], shared: frozenset[str]) -> Seen:
        """What ``holdings`` tells of one workload."""
        return Seen(
            sandbox=next((one for one in holdings.sandboxes if one.uuid == workload), None),
            containers=tuple(_container(one) for one in holdings.containers if one.sandbox == workload),
            ports=self._table.ports(workload),
            volumes=self._table.attached & volumes,
            shared=shared,
            files=self._files.there(workload),
        )

    async def everything(self, owners: Mapping[str, str]) -> Holdings:
        """All that is ours on the engine, with wires and volumes read anew. Raises ``EngineUnavailable``.

        ``owners`` tells the workload of each container that is assigned to this host.
        """
        await self._table.read()
        holdings = await self._runtime.list()
        self._spares.learn(holdings, owners)
        return self._spares.renamed(holdings)

    def workloads(self, holdings: Holdings) -> frozenset[str]:
        """All workloads of which anything is on the host."""
        sandboxes = {one.uuid for one in holdings.sandboxes}
        return frozenset(sandboxes | {one.sandbox for one in holdings.containers}) | (
            self._table.workloads | self._files.all()
        )
