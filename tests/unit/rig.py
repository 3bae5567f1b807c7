"""A workload on a host in memory, taken through plan and steps one at a time, so that a test may cut in anywhere."""

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from higgins.agent import health, memory
from higgins.agent.effects import Effects
from higgins.agent.files import Files
from higgins.agent.filters import Filters
from higgins.agent.observe import Observer, Table
from higgins.agent.plan import plan
from higgins.agent.seen import Plan, Seen
from higgins.agent.spares import Spares
from higgins.agent.steps import Step
from higgins.control.link import Assignment, Known, Member
from higgins.model.errors import HigginsError
from tests.unit.fakes import WORKLOAD, Clock, FakeNetwork, FakeRuntime, FakeVolumes, assignment


class Rig:
    """One workload. ``heard`` is what the control plane has of each container, ``told`` what it was last told."""

    def __init__(self, data: Path, wanted: Assignment | None = None) -> None:
        self.clock = Clock()
        self.runtime = FakeRuntime(self.clock)
        self.network = FakeNetwork()
        self.volumes = FakeVolumes()
        self.files = Files(data / "sandboxes", ())
        self.wanted: Assignment | None = wanted or assignment()
        self.heard: dict[str, Known] = {}
        self.done: list[Step] = []
        self.crash()

    def crash(self) -> None:
        """The agent is gone and another begins: it knows what the control plane heard."""
        fakes: Any = (self.runtime, self.network, self.volumes)
        self.filters = Filters(self.network)
        self.table = Table(self.network, self.volumes)
        spares = Spares(fakes[0], 0)
        self.effects = Effects(*fakes, files=self.files, filters=self.filters, table=self.table, spares=spares)
        self.observer = Observer(fakes[0], self.table, self.files, spares)
        self.memory = memory.Memory()
        self._read = False

    def change(self, **changes: Any) -> None:
        """A verb of the API: a new generation."""
        assert self.wanted is not None
        self.wanted = replace(self.wanted, generation=self.wanted.generation + 1, **changes)

    def change_member(self, number: int = 0, **changes: Any) -> None:
        assert self.wanted is not None
        members = list(self.wanted.members)
        members[number] = replace(members[number], **changes)
        self.change(members=tuple(members))

    @property
    def member(self) -> Member:
        assert self.wanted is not None
        return self.wanted.members[0]

    def known(self, uuid: str = WORKLOAD) -> Known:
        return self.heard[uuid]

    async def look(self) -> Seen:
        if not self._read:
            await self.table.read()
            self._read = True
        volumes = frozenset(self.wanted.volumes) if self.wanted else frozenset[str]()
        return await self.observer.look(WORKLOAD, volumes, frozenset())

    async def consider(self, *, heard: bool = True) -> Plan:
        """Look and plan, and tell the control plane, which may hear it or not."""
        wanted = self.wanted
        if wanted is not None:
            members = tuple(replace(one, known=self.heard.get(one.uuid, one.known)) for one in wanted.members)
            wanted = replace(wanted, members=members)
            memory.meet(self.memory, wanted)
        seen = await self.look()
        if seen.sandbox is not None:
            self.effects.found(seen.sandbox)
        todo = plan(WORKLOAD, wanted, seen, self.memory, self.clock())
        for uuid, known in todo.known.items():
            self.memory.members[uuid].known = known
        if heard:
            self.heard.update(todo.known)
        return todo

    async def carry_out(self, todo: Plan, limit: int | None = None) -> bool:
        """Do the plan's steps, the first ``limit`` of them; whether all of those were done."""
        for step in todo.steps[:limit]:
            if not await self.do(step):
                return False
        return True

    async def do(self, step: Step) -> bool:
        self.done.append(step)
        try:
            await self.effects.do(step)
        except HigginsError as error:
            generation = self.wanted.generation if self.wanted else 0
            memory.failed(self.memory, step, error, generation, self.clock())
            return False
        memory.succeeded(self.memory, step, self.clock())
        return True

    async def settle(self, passes: int = 60) -> Plan:
        """Pass after pass, letting time go by where the plan waits, until nothing is left to do."""
        for _ in range(passes):
            todo = await self.consider()
            if todo.stages:
                await self.carry_out(todo)
            elif todo.settled and (todo.wake_at is None or todo.probes or self._minds_health()):
                return todo
            elif todo.wake_at is not None:
                self.clock.forward(max((todo.wake_at - self.clock()).total_seconds(), 0.01))
            else:
                return todo
        raise AssertionError(f"no end of it: {todo}")

    def _minds_health(self) -> bool:
        return self.wanted is not None and any(one.spec.healthcheck for one in self.wanted.members)

    def well(self, ok: bool, uuid: str = WORKLOAD) -> None:
        """A health probe was answered."""
        mine = self.memory.members[uuid]
        check = next(one.spec.healthcheck for one in self.wanted.members if one.uuid == uuid) if self.wanted else None
        assert check is not None
        started_at = self.runtime.newest(uuid).started_at
        state = health.of_run(mine.health, check, started_at, self.clock())
        mine.health = health.answered(state, check, ok, self.clock())

    def steps_done(self) -> list[str]:
        """The names of all steps since the last call."""
        names = [type(step).__name__ for step in self.done]
        self.done.clear()
        return names
