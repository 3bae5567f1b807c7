"""One workload's worker: looks, plans, does, and looks again until nothing is left to do. Never two for a workload."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from higgins.agent import health, memory
from higgins.agent.effects import Effects
from higgins.agent.figures import Figures
from higgins.agent.observe import NOTHING, Observer
from higgins.agent.outbox import Outbox
from higgins.agent.plan import plan
from higgins.agent.probes import probe
from higgins.agent.seen import Plan, Seen
from higgins.agent.spares import Spares
from higgins.agent.steps import Step, WriteFiles
from higgins.control.link import Assignment, Known, Observation
from higgins.model.container import Healthcheck
from higgins.model.errors import EngineUnavailable, HigginsError
from higgins.runtimes.base import Runtime

LOG = logging.getLogger(__name__)

#: Seconds after which the owner sees what a lasting step is at; most are over by then.
ANNOUNCE = 0.25
#: Seconds after which its owner is told that a step takes longer than it should.
SLOW = 10.0
#: Seconds before a worker looks again while the engine does not answer, and after a fault of our own.
OUTAGE = 2.0
FAULT = 5.0
#: Passes that did the same steps with success and changed nothing, before the next one has to wait.
FUTILE = 3


class Bench(Struct, kw_only=True):
    """What all workers share."""

    runtime: Runtime
    effects: Effects
    observer: Observer
    outbox: Outbox
    slots: asyncio.Semaphore
    now: Callable[[], datetime]
    figures: Figures
    spares: Spares
    shared: Callable[[str, frozenset[str]], frozenset[str]]  # which of a workload's volumes others need too


def _plain(assignment: Assignment | None) -> Assignment | None:
    """Without what this host itself told, and what the host filters: that changes nothing about what is to be done."""
    if assignment is None:
        return None
    return replace(assignment, filters=(), members=tuple(replace(one, known=Known()) for one in assignment.members))


def _asks(assignment: Assignment) -> tuple[Any, ...]:
    """What, where it changes, ends what is being done: the owner wants something else, or its host is lost."""
    return assignment.generation, tuple(one.goal for one in assignment.members)


def _only_renamed(before: Assignment, after: Assignment) -> bool:
    """Whether nothing but its neighbours' names changed, as with each that comes to its network or goes."""
    return before.names != after.names and replace(before, names=after.names) == after


def _only_files(todo: Plan) -> bool:
    """Whether all there is to do, if anything, is to write the files that name the neighbours."""
    return all(isinstance(step, WriteFiles) for step in todo.steps)


class Worker:
    """The worker of one workload. ``assignment`` None: the workload should not be on this host."""

    def __init__(self, bench: Bench, workload: str, assignment: Assignment | None, *, unmade: bool = False) -> None:
        """``unmade``: the engine holds nothing of it, as is known without asking."""
        self.workload = workload
        self.assignment = assignment
        self.finished = False
        self._bench = bench
        self._unmade = unmade
        self._seen: Seen | None = None  # at the last look
        self._stale = True  # whether it may be otherwise by now
        self._memory = memory.Memory()
        self._volumes: frozenset[str] = frozenset(assignment.volumes) if assignment else frozenset()
        self._assigned = assignment is not None  # or was, since this worker is here
        self._told: Observation | None = None
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._wake_at: datetime | None = None
        self._working = False
        self._holds_slot = False
        self._probes: set[asyncio.Task[None]] = set()
        self._wake.set()

    def assign(self, assignment: Assignment | None) -> None:
        """What the workload should be from now on."""
        before, self.assignment = self.assignment, assignment
        if assignment is not None:
            self._volumes = frozenset(assignment.volumes)
            self._assigned = True
        if before == assignment or (before := _plain(before)) == (assignment := _plain(assignment)):
            return
        if before is None or assignment is None or _asks(before) != _asks(assignment):
            self._changed.set()
        if before is None or assignment is None or not _only_renamed(before, assignment):
            self._stale = True
        self._wake.set()

    def may_use(self, inherited: frozenset[str]) -> frozenset[str]:
        """The volumes that what is left of it may still use. Of one that never was assigned nobody knows which these
        are: any of those that were ``inherited``, attached here before there was anybody to know it.
        """
        return self._volumes if self._assigned else inherited

    def count(self, state: str) -> int:
        """How many of its containers were told to be in this state."""
        return 0 if self._told is None else sum(one.state == state for one in self._told.members.values())

    def wake(self) -> None:
        """Something may have happened to it."""
        self._stale = True
        self._wake.set()

    def compare(self, seen: Seen) -> None:
        """Wake up where ``seen`` is not what it should be; cheap where it is."""
        if self._working:
            return
        now = self._bench.now()
        todo = plan(self.workload, self.assignment, seen, self._memory, now)
        if todo.gone:
            self._told = None  # still assigned, though nothing is left: it is to be told again
        if todo.stages or todo.gone or self._news(todo):
            self.wake()

    async def run(self) -> None:
        """Work until the workload is neither assigned nor here."""
        try:
            while not self.finished:
                await self._sleep()
                await self._take_slot()
                self._working = True
                try:
                    self._wake_at = await self._work()
                finally:
                    self._working = False
                    self._leave_slot()
        finally:
            for task in self._probes:
                task.cancel()
            await asyncio.gather(*self._probes, return_exceptions=True)

    async def _take_slot(self) -> None:
        if not self._holds_slot:
            await self._bench.slots.acquire()
            self._holds_slot = True

    def _leave_slot(self) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self._bench.slots.release()

    async def _sleep(self) -> None:
        wait = None if self._wake_at is None else (self._wake_at - self._bench.now()).total_seconds()
        try:
            async with asyncio.timeout(None if wait is None else max(wait, 0)):
                await self._wake.wait()
        except TimeoutError:
            self._stale = True
        self._wake.clear()

    async def _work(self) -> datetime | None:
        """Passes until nothing is left to do; when to look again."""
        try:
            return await self._passes()
        except EngineUnavailable as error:
            self._stale = True
            LOG.warning("Workload %s waits for the engine: %s", self.workload, error)
            return self._bench.now() + timedelta(seconds=OUTAGE)
        except Exception:  # a fault of ours in one workload must not stop the others, nor this one for ever
            self._stale = True
            LOG.exception("Workload %s met a fault", self.workload)
            return self._bench.now() + timedelta(seconds=FAULT)

    async def _passes(self) -> datetime | None:
        last: tuple[tuple[Step, ...], ...] = ()
        futile = 0
        while True:
            self._changed.clear()
            self._wake.clear()  # whatever happened until now is seen by the look that follows
            assignment = self.assignment
            todo = await self._consider(assignment)
            if todo.gone and self.assignment is None:
                self.finished = True
                return None
            if not todo.stages:
                return todo.wake_at
            futile = futile + 1 if todo.stages == last else 0
            if futile >= FUTILE:
                LOG.warning("Workload %s: %s changed nothing", self.workload, [type(s).__name__ for s in todo.steps])
                return self._bench.now() + timedelta(seconds=FAULT)
            last = todo.stages
            self._stale = self._stale or not _only_files(todo)
            await self._carry_out(todo, assignment.generation if assignment else 0)
            if self._seen is not None and _only_files(todo):
                self._seen = replace(self._seen, files=True)

    async def _consider(self, assignment: Assignment | None) -> Plan:
        """Look and plan, tell what is new, and ask for the health of those whose time it is."""
        self._bench.figures.passes.inc()
        if assignment is not None:
            memory.meet(self._memory, assignment)
        todo = self._without_a_look(assignment) or await self._with_a_look(assignment)
        for uuid, known in todo.known.items():
            self._memory.members[uuid].known = known
        if assignment is not None:
            self._tell(assignment, todo)
            self._mind_health(assignment, todo)
        return todo

    async def _with_a_look(self, assignment: Assignment | None) -> Plan:
        bench = self._bench
        seen = await self._look(assignment)
        if assignment is not None and seen.nothing and (spare := bench.spares.take(assignment)) is not None:
            seen = replace(seen, sandbox=spare)
        if seen.sandbox is not None:
            bench.effects.found(seen.sandbox)
        self._seen = seen
        return plan(self.workload, assignment, seen, self._memory, bench.now())

    def _without_a_look(self, assignment: Assignment | None) -> Plan | None:
        """The plan where nothing happened to the workload, and all there is to do is to tell it its neighbours' names;
        None where it has to be looked at. Of many on one network each new one renames all.
        """
        if self._stale or self._seen is None or assignment is None:
            return None
        todo = plan(self.workload, assignment, self._seen, self._memory, self._bench.now())
        return todo if _only_files(todo) and not todo.probes and not todo.gone else None

    async def _look(self, assignment: Assignment | None) -> Seen:
        """The workload as it is now. The engine is not asked about what it cannot hold yet."""
        shared = self._bench.shared(self.workload, self._volumes)
        self._stale = False  # but by what happens from now on
        unmade, self._unmade = self._unmade, False
        if unmade and assignment is not None and not assignment.deleting:
            return self._bench.observer.seen(self.workload, NOTHING, self._volumes, shared)
        return await self._bench.observer.look(self.workload, self._volumes, shared)

    # telling

    def _news(self, todo: Plan) -> bool:
        return self.assignment is not None and self._observation(self.assignment, todo) != self._told

    def _observation(self, assignment: Assignment, todo: Plan) -> Observation:
        return Observation(
            workload=self.workload,
            generation=assignment.generation,
            members=todo.known,
            gone=todo.gone,
            settled=todo.settled,
            error=todo.error,
        )

    def _tell(self, assignment: Assignment, todo: Plan) -> None:
        """Tell what is new. While there is something to do, only what its owner should know before it is done."""
        observation = self._observation(assignment, todo)
        if observation == self._told:
            return
        if todo.stages:
            if self._told is None:
                before, error = {member.uuid: member.known for member in assignment.members}, ""
            else:
                before, error = self._told.members, self._told.error
            if observation.members == before and observation.error == error:
                return
        self._told = observation
        self._bench.outbox.put(observation)

    def _takes_long(self, step: Step, generation: int) -> None:
        """Say what is being done, and let others work: a slow registry must not keep the whole host waiting."""
        self._leave_slot()
        member, assignment = self._memory.members.get(step.subject), self.assignment
        if member is None or assignment is None or assignment.generation != generation or not step.announce:
            return
        member.known = replace(member.known, step=step.announce)
        self._tell_meanwhile(generation)

    def _is_slow(self, step: Step, generation: int) -> None:
        """Say that a step takes longer than it should: a registry that never answers gives no error to tell."""
        member, assignment = self._memory.members.get(step.subject), self.assignment
        if member is not None and assignment is not None and assignment.generation == generation and step.slow:
            member.known = replace(member.known, reason=step.slow)
            self._tell_meanwhile(generation)

    def _tell_meanwhile(self, generation: int) -> None:
        known = {uuid: one.known for uuid, one in self._memory.members.items()}
        self._told = Observation(workload=self.workload, generation=generation, members=known)
        self._bench.outbox.put(self._told)

    # doing

    async def _carry_out(self, todo: Plan, generation: int) -> None:
        """Stage by stage, until a step fails or the owner wants something else."""
        for stage in todo.stages:
            tasks = {asyncio.ensure_future(self._step(step, generation)): step for step in stage}
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                with self._bench.figures.stage_seconds.time():
                    await self._await(tasks, changed)
            finally:
                for task in (*tasks, changed):
                    task.cancel()
                results = await asyncio.gather(*tasks, changed, return_exceptions=True)
            await self._take_slot()
            faults = [one for one in results if isinstance(one, Exception)]
            if faults:
                raise next((one for one in faults if not isinstance(one, EngineUnavailable)), faults[0])
            if self._changed.is_set() or not all(task.result() for task in tasks if not task.cancelled()):
                return

    async def _await(self, tasks: dict["asyncio.Task[bool]", Step], changed: "asyncio.Task[Literal[True]]") -> None:
        """All of a stage, giving up what takes long once ``changed``."""
        while running := [task for task in tasks if not task.done()]:
            done, _ = await asyncio.wait([*running, changed], return_when=asyncio.FIRST_COMPLETED)
            if changed in done:
                for task in running:
                    if tasks[task].lasting:
                        task.cancel()
                await asyncio.wait(running)

    async def _step(self, step: Step, generation: int) -> bool:
        """Do one step and remember how it went; whether it was done."""
        loop = asyncio.get_running_loop()
        late = ((ANNOUNCE, self._takes_long), (SLOW, self._is_slow)) if step.lasting else ()
        timers = [loop.call_later(seconds, tell, step, generation) for seconds, tell in late]
        name, figures = type(step).__name__, self._bench.figures
        try:
            with figures.step_seconds.labels(name).time():
                await self._bench.effects.do(step)
        except EngineUnavailable:
            figures.step_failures.labels(name, EngineUnavailable.code).inc()
            raise
        except HigginsError as error:
            figures.step_failures.labels(name, error.code).inc()
            LOG.warning("Workload %s: %s failed: %s Cause: %r", self.workload, name, error, error.__cause__)
            memory.failed(self._memory, step, error, generation, self._bench.now())
            return False
        finally:
            for timer in timers:
                timer.cancel()
        memory.succeeded(self._memory, step, self._bench.now())
        return True

    # health

    def _mind_health(self, assignment: Assignment, todo: Plan) -> None:
        for member in assignment.members:
            check, mine = member.spec.healthcheck, self._memory.members[member.uuid]
            known = todo.known.get(member.uuid, mine.known)
            if check is None or known.state != "running":
                continue
            mine.health = health.of_run(mine.health, check, known.started_at, self._bench.now())
            if member.uuid in todo.probes:
                mine.health = health.asked(mine.health)
                task = asyncio.ensure_future(self._probe(member.uuid, check, known.started_at))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)

    async def _probe(self, uuid: str, check: Healthcheck, started_at: datetime | None) -> None:
        try:
            ok = await probe(self._bench.runtime, uuid, check)
        except EngineUnavailable:
            ok = None
        mine = self._memory.members.get(uuid)
        if mine is None or mine.health is None or mine.health.started_at != started_at:
            return
        now = self._bench.now()
        if ok is None:
            mine.health = replace(mine.health, probing=False, next_at=now + health.interval(check))
        else:
            mine.health = health.answered(mine.health, check, ok, now)
        self.wake()
