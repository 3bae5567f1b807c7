"""The agent of one host: it learns what the host should hold, and keeps one worker for each workload.

Workers are woken by new assignments, by the engine's events, and by a full comparison at the start, after every outage
of the engine and every 30 s, which covers whatever a wake-up missed. What is labelled ours but not assigned here is
removed, though only once the control plane has said what is. Stopping the agent leaves all containers running.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from higgins.agent import fencing
from higgins.agent.deliveries import Deliveries
from higgins.agent.effects import Effects
from higgins.agent.figures import Figures
from higgins.agent.files import Files, name_servers
from higgins.agent.filters import Filters
from higgins.agent.observe import NOTHING, Observer, Table, by_workload
from higgins.agent.outbox import Outbox
from higgins.agent.spares import Spares
from higgins.agent.steps import DeleteVolume, DetachVolume, Step
from higgins.agent.worker import Bench, Worker
from higgins.control.link import Assignment, Assignments, ControlLink, HostReport, Known, Observation
from higgins.images.shelf import Shelf
from higgins.model.errors import EngineUnavailable, HigginsError, NotFound
from higgins.networks.base import Network
from higgins.runtimes.base import Runtime
from higgins.volumes.base import Volumes

LOG = logging.getLogger(__name__)

#: Seconds between full comparisons, and of one long poll.
COMPARE = 30.0
POLL = 30.0
#: Seconds before the control plane or the engine is asked again, doubled up to the last.
FIRST_RETRY = 0.2
LAST_RETRY = 10.0
#: Seconds that the last observations may take when the agent is told to stop.
FAREWELL = 5.0
#: Seconds for removing the sandboxes that nobody has taken.
TIDY = 10.0
#: Bytes of images that are kept for another time.
IMAGE_CACHE = 10 * 2**30
#: Workloads worked on at a time.
SLOTS = 16


def utc_now() -> datetime:
    """The time as it is kept everywhere: UTC without zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def since_boot() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def host_name_servers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """The name servers of this host that its containers can reach too."""
    return name_servers(path.read_text()) if path.exists() else ()


def _never_reported(assignment: Assignment) -> bool:
    """Whether no host has ever told anything of the workload.

    Where it is new to a host whose engine was compared, and so holds nothing that is not assigned but what a worker is
    removing, its engine holds nothing of it. Were it wrong, each step would find what it is about to make.
    """
    return all(member.known == Known() for member in assignment.members)


class Agent:
    """Keeps one host as the control plane says. ``data`` is a directory of its own; ``dns`` name servers.

    ``spares`` is how many sandboxes are made ahead. ``image_cache`` is how many bytes of images of the cloud's image
    service stay, on the ``shelf`` (one of its own, unless the control plane's is here too) and again in the engine.
    ``classes``: what the engine calls each runtime class that the host reports; None where they are its own names.
    One that ``fences`` ends by itself what is placed elsewhere when nobody hears it; ``clock`` tells when that is.
    """

    def __init__(
        self,
        link: ControlLink,
        runtime: Runtime,
        network: Network,
        volumes: Volumes,
        *,
        data: Path,
        report: HostReport,
        classes: Mapping[str, str] | None = None,
        dns: tuple[str, ...] | None = None,
        compare_every: float = COMPARE,
        slots: int = SLOTS,
        spares: int = 0,
        shelf: Shelf | None = None,
        image_cache: int = IMAGE_CACHE,
        now: Callable[[], datetime] = utc_now,
        fences: bool = False,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        self._link = link
        self._runtime = runtime
        self._network = network
        self._volumes = volumes
        self._report = report
        self._compare_every = compare_every
        self._fences = fences
        self._fence = fencing.Fence()
        self._fenced = False  # whether what leaves a lost host was ended here
        self._clock = clock
        self._begun = clock()
        self._answer = Assignments(-1, ())  # the last one
        self.figures = Figures()
        self._files = Files(data / "sandboxes", host_name_servers() if dns is None else dns)
        self._filters = Filters(network)
        self._table = Table(network, volumes)
        self._spares = Spares(runtime, spares)
        self.figures.spares.set_function(lambda: self._spares.ready)
        self._observer = Observer(runtime, self._table, self._files, self._spares)
        self._outbox = Outbox(self._send)
        self.deliveries = Deliveries(
            link,
            lambda: self._hosted,
            runtime,
            shelf or Shelf(data / "images", limit=image_cache),
            limit=image_cache,
        )
        self.figures.follow(self._containers, self._silence, lambda: self._outbox.waiting)
        self._effects = Effects(
            runtime,
            network,
            volumes,
            files=self._files,
            filters=self._filters,
            table=self._table,
            spares=self._spares,
            classes=classes,
            deliveries=self.deliveries,
        )
        self._bench = Bench(
            runtime=runtime,
            effects=self._effects,
            observer=self._observer,
            outbox=self._outbox,
            slots=asyncio.Semaphore(slots),
            now=now,
            figures=self.figures,
            spares=self._spares,
            shared=self._shared,
        )
        self._host: int | None = None
        self.joined = asyncio.Event()  # the control plane knows the host
        self._assigned: dict[str, Assignment] = {}
        self._users: dict[str, set[str]] = {}  # of each volume, the workloads
        self._dead: tuple[str, ...] = ()
        self._found: frozenset[str] = frozenset()  # volumes that a reboot may have left connected, though not mounted
        self._inherited: frozenset[str] = frozenset()  # volumes that were here before this process knew whose they are
        self._told = False  # whether the control plane said what is assigned
        self._compared = False  # whether all that is there was looked at since
        self._compare_now = asyncio.Event()
        self._sweep_now = asyncio.Event()
        self._workers: dict[str, Worker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Future[None] | None = None

    # life

    async def run(self) -> None:
        """Work until ``stop``."""
        self._running = asyncio.get_running_loop().create_future()
        try:
            await self._join()
            for loop in (
                self._outbox.run,
                self._filters.run,
                self._follow,
                self._compare,
                self._sweep,
                self._listen,
                self._spares.run,
                self._guard,
            ):
                self._spawn(self._for_ever(loop))
            await self._running
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """End the work where it is, and tell what was seen until now. Containers go on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._outbox.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIDY):
                await self._spares.clear()
        if self._running is not None and not self._running.done():
            self._running.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _for_ever(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Whatever goes wrong in one of the agent's loops, it begins again; the log tells."""
        retry = FIRST_RETRY
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                await loop()
            except Exception as error:
                if clock() - begun > LAST_RETRY:
                    retry = FIRST_RETRY
                if isinstance(error, HigginsError):
                    LOG.warning("%s; trying again in %.1f s", error, retry)
                else:
                    LOG.exception("A fault in the agent; trying again in %.1f s", retry)
                await asyncio.sleep(retry)
                retry = min(retry * 2, LAST_RETRY)

    async def _join(self) -> None:
        """Prepare the host and introduce it, however long it takes until somebody answers."""
        retry = FIRST_RETRY
        while not (self._running and self._running.done()):
            try:
                await self._network.setup()
                self._host = await self._link.register(self._report)
                self.joined.set()
                return
            except (HigginsError, OSError) as error:
                LOG.warning("The host could not join: %s; trying again in %.1f s", error, retry)
                await asyncio.sleep(retry)
                retry = min(retry * 2, LAST_RETRY)

    # what should be

    async def _follow(self) -> None:
        """Learn of every change to what the host should hold."""
        revision = -1
        while True:
            asked = self._clock()
            since = -1 if self._fenced else revision  # what is here still is to be known at once then
            try:
                answer = await self._link.assignments(self._hosted, since, self._fence.poll(POLL))
            except NotFound:
                self._host = await self._link.register(self._report)  # it was removed, and is here all the same
                continue
            self._fence.asked = asked
            if answer is None:
                self._mind_fence()
                continue
            revision = answer.revision
            self._fence.lease = answer.lease if self._fences else None
            self._fenced = self._fence.closed(self._clock())
            self._take(answer)

    async def _guard(self) -> None:
        """See to it that this host does not run what runs elsewhere."""
        while True:
            await asyncio.sleep(fencing.CHECK)
            self._mind_fence()

    def _mind_fence(self) -> None:
        closed = self._fence.closed(self._clock())
        if closed == self._fenced:
            return
        self._fenced = closed
        if closed:
            LOG.warning("Nobody hears this host: what is placed elsewhere then ends here")
        self._take(self._answer)

    def _containers(self, state: str) -> int:
        return sum(worker.count(state) for worker in self._workers.values())

    def _silence(self) -> float:
        return self._clock() - max(self._fence.asked, self._begun)

    @property
    def _hosted(self) -> int:
        if self._host is None:
            raise RuntimeError("the host has not joined")
        return self._host

    def _take(self, answer: Assignments) -> None:
        self._answer = answer
        workloads = [fencing.ended(one) for one in answer.workloads] if self._fenced else answer.workloads
        self._assigned = {assignment.uuid: assignment for assignment in workloads}
        self._dead = answer.dead_volumes
        self._users = {}
        for uuid, assignment in self._assigned.items():
            for volume in assignment.volumes:
                self._users.setdefault(volume, set()).add(uuid)
        self._filters.want(self._assigned.values(), answer.neighbours)
        for uuid, worker in self._workers.items():  # first what is elsewhere now, or nowhere: it gives its cores back
            if uuid not in self._assigned:
                worker.assign(None)
        for uuid, assignment in self._assigned.items():
            if uuid in self._workers:
                self._workers[uuid].assign(assignment)
            elif self._compared:  # before that nobody knows what there is of it, its wires above all
                self._employ(uuid, assignment, unmade=_never_reported(assignment))
        if not self._told:
            self._told = True
            self._compare_now.set()
        if self._dead:
            self._sweep_now.set()

    def _employ(self, uuid: str, assignment: Assignment | None, *, unmade: bool = False) -> None:
        worker = Worker(self._bench, uuid, assignment, unmade=unmade)
        self._workers[uuid] = worker
        self._spawn(self._work(worker))

    async def _work(self, worker: Worker) -> None:
        try:
            await worker.run()
        finally:
            if self._workers.get(worker.workload) is worker:
                del self._workers[worker.workload]
        # It may have been assigned again at the last moment.
        if worker.workload in self._assigned and worker.workload not in self._workers:
            self._employ(worker.workload, self._assigned[worker.workload])
        self._sweep_now.set()

    def _shared(self, workload: str, volumes: frozenset[str]) -> frozenset[str]:
        return frozenset(volume for volume in volumes if self._users.get(volume, set()) - {workload})

    async def _send(self, observations: list[Observation]) -> None:
        await self._link.observe(self._hosted, observations)

    # what is

    async def _listen(self) -> None:
        """Wake the workload of every event; after an outage compare everything."""
        events = self._runtime.events()
        self._compare_now.set()
        async for event in events:
            workload = self._spares.workload(event.sandbox)
            if workload is None:
                continue
            if worker := self._workers.get(workload):
                worker.wake()
            # Before the first comparison nobody knows whose a spare sandbox is; that finds all that is not assigned.
            elif self._compared and workload not in self._assigned:
                self._employ(workload, None)
        raise EngineUnavailable("The container engine ended its events")

    async def _compare(self) -> None:
        """Compare everything now and then."""
        while True:
            self._compare_now.clear()
            if self._told:
                with self.figures.compare_seconds.time():
                    await self._compare_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._compare_every):
                    await self._compare_now.wait()

    async def _compare_all(self) -> None:
        if self._compared:
            await self._network.setup()  # somebody may have flushed the host's rules
        else:
            self._found = frozenset(await self._volumes.held())
        owners = {member.uuid: uuid for uuid, one in self._assigned.items() for member in one.members}
        holdings = await self._observer.everything(owners)
        if not self._compared:
            self._inherited = self._table.attached | self._found
        self._spares.renew()
        for uuid in sorted(self._observer.workloads(holdings) - set(self._workers) - set(self._assigned)):
            LOG.info("Workload %s is not assigned to this host: removing what is left of it", uuid)
            self._employ(uuid, None)
        held = by_workload(holdings)
        for uuid, assignment in self._assigned.items():
            if worker := self._workers.get(uuid):
                volumes = frozenset(assignment.volumes)
                mine = held.get(uuid, NOTHING)
                worker.compare(self._observer.seen(uuid, mine, volumes, self._shared(uuid, volumes)))
            else:
                self._employ(uuid, assignment)
        self._compared = True
        self._sweep_now.set()

    async def _sweep(self) -> None:
        while True:
            await self._sweep_now.wait()
            self._sweep_now.clear()
            if self._compared:
                await self._sweep_volumes()

    async def _sweep_volumes(self) -> None:
        """Detach what nobody needs, and delete what nobody keeps; not what something being removed may still use."""
        leaving = [worker.may_use(self._inherited) for worker in self._workers.values() if worker.assignment is None]
        needed = frozenset(self._users).union(*leaving)
        dead = [volume for volume in self._dead if volume not in needed]
        for volume in sorted((self._table.attached | self._found) - needed - set(dead)):
            if await self._try(DetachVolume(volume=volume)):
                self._found -= {volume}
        deleted = [volume for volume in dead if await self._try(DeleteVolume(volume=volume))]
        if deleted:
            await self._link.volumes_deleted(self._hosted, deleted)
            self._dead = tuple(volume for volume in self._dead if volume not in deleted)

    async def _try(self, step: Step) -> bool:
        """Do a step that belongs to no workload; one that fails is tried again at the next comparison."""
        try:
            await self._effects.do(step)
        except EngineUnavailable:
            raise
        except HigginsError as error:
            LOG.warning("%s failed for volume %s: %s", type(step).__name__, step.subject, error)
            return False
        return True
