"""An engine, a network, volumes and a control plane in memory: what the agent needs of each, and nothing more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from higgins.control.link import Assignment, Assignments, HostReport, Known, Member, Observation, Order
from higgins.model.container import ContainerSpec, Goal
from higgins.model.errors import (
    ContainerGone,
    EngineError,
    EngineUnavailable,
    ImageNotFound,
    ImagePullFailed,
    SandboxGone,
)
from higgins.model.resources import HostInfo
from higgins.networks.base import Neighbour, Plugged, PortFilter, PortWire
from higgins.runtimes.base import EngineContainer, Event, Holdings, Image, Observed, RegistryAuth, Sandbox, SandboxSpec
from higgins.volumes.base import VolumeWire

WORKLOAD = "11111111-1111-1111-1111-111111111111"


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Box(Struct):
    """A sandbox: each time it is brought up it has another namespace; ``identity`` lasts until it is removed."""

    uuid: str
    project_id: str
    identity: int
    netns: str
    ready: bool = True
    hostname: str = ""


class Held(Struct):
    """A container on the fake engine; ``netns`` is the namespace that it was started in."""

    spec: EngineContainer
    identity: int
    state: str = "created"
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    netns: str = ""
    cpu: float = 0
    memory: int = 0


class FakeTerminal:
    """An exec that is over already."""

    def __init__(self, code: int) -> None:
        self._code = code

    async def read(self) -> None:
        return None

    async def exit_code(self) -> int:
        return self._code

    async def close(self) -> None: ...


class FakeRuntime:
    """Images say what happens: ``exits`` maps an image to the exit code it ends with at once, ``refused`` cannot be
    started, ``missing`` cannot be found, ``unreachable`` cannot be fetched now."""

    name = "fake"

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self.now = now
        self.boxes: dict[str, Box] = {}
        self.held: dict[tuple[str, int], Held] = {}
        self.down = False
        self.forgets_members = False  # an engine that drops containers when their sandbox is made again
        self.exits: dict[str, int] = {}
        self.refused: set[str] = set()
        self.unmakeable: set[str] = set()
        self.missing: set[str] = set()
        self.unreachable: set[str] = set()
        self.pull_gate: asyncio.Event | None = None  # pulls (of one image, if ``gated`` names it) wait for it
        self.gated = ""
        self.ignores_sigterm = False
        self.unwell: set[str] = set()
        self.hangs: set[str] = set()
        self.no_signal: set[str] = set()
        self.calls: list[str] = []
        self._count = 0
        self._listeners: list[asyncio.Queue[Event | None]] = []

    # the test's hand on it

    def tell(self, sandbox: str) -> None:
        for queue in self._listeners:
            queue.put_nowait(Event(sandbox))

    def fall_down(self) -> None:
        self.down = True
        for queue in self._listeners:
            queue.put_nowait(None)

    def end(self, uuid: str, code: int = 0) -> None:
        """The process of the container ends by itself."""
        for held in self.held.values():
            if held.spec.uuid == uuid and held.state in ("running", "paused"):
                held.state, held.exit_code, held.finished_at = "exited", code, self.now()
                self.tell(held.spec.sandbox)

    def lose_sandbox(self, uuid: str, *, gone: bool) -> None:
        """The pause process dies; ``gone``: the engine forgets the sandbox altogether."""
        if gone:
            self.boxes.pop(uuid, None)
        elif uuid in self.boxes:
            self.boxes[uuid].ready = False

    def newest(self, uuid: str) -> Held:
        found = [held for (held_uuid, _), held in self.held.items() if held_uuid == uuid]
        if not found:
            raise ContainerGone(f"No container {uuid}.")
        return max(found, key=lambda held: held.spec.incarnation)

    def state(self, uuid: str) -> str:
        try:
            return self.newest(uuid).state
        except ContainerGone:
            return ""

    def running(self, uuid: str) -> list[Held]:
        return [held for (held_uuid, _), held in self.held.items() if held_uuid == uuid and held.state == "running"]

    # Runtime

    def _up(self, call: str) -> None:
        if self.down:
            raise EngineUnavailable("The container engine of this host does not answer.")
        self.calls.append(call)

    async def pull(self, image: str, *, policy: str = "ifnotpresent", auth: RegistryAuth | None = None) -> Image:
        self._up(f"pull {image}")
        if self.pull_gate is not None and self.gated in ("", image):
            await self.pull_gate.wait()
        if image in self.missing:
            raise ImageNotFound(f"The image {image} was not found.")
        if image in self.unreachable:
            raise ImagePullFailed(f"The registry of {image} does not answer.")
        return Image(id=image, names=(image,))

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        self._up(f"create_sandbox {spec.uuid}")
        self._count += 1
        box = self.boxes.get(spec.uuid)
        if box is None or (not box.ready and self.forgets_members):
            if box is not None:
                self._drop(spec.uuid)
            box = Box(
                spec.uuid, spec.project_id, identity=self._count, netns=f"/ns/{self._count}", hostname=spec.hostname
            )
            self.boxes[spec.uuid] = box
        elif not box.ready:
            box.ready, box.netns = True, f"/ns/{self._count}"
        return Sandbox(box.uuid, box.netns, True, box.project_id, box.hostname)

    def _drop(self, sandbox: str) -> None:
        self.held = {key: held for key, held in self.held.items() if held.spec.sandbox != sandbox}

    async def remove_sandbox(self, uuid: str) -> None:
        self._up(f"remove_sandbox {uuid}")
        self._drop(uuid)
        self.boxes.pop(uuid, None)

    async def create(self, container: EngineContainer) -> None:
        self._up(f"create {container.uuid}")
        box = self.boxes.get(container.sandbox)
        if box is None or not box.ready:
            raise SandboxGone("The sandbox is not there.")
        if container.image in self.unmakeable:
            raise EngineError("no command specified")
        key = (container.uuid, container.incarnation)
        if key not in self.held:
            self.held[key] = Held(container, box.identity, cpu=container.cpu, memory=container.memory)
            self.tell(container.sandbox)

    async def start(self, uuid: str) -> None:
        self._up(f"start {uuid}")
        held = self.newest(uuid)
        box = self.boxes.get(held.spec.sandbox)
        if box is None or not box.ready or box.identity != held.identity:
            raise SandboxGone("The sandbox of the container is gone.")
        if held.spec.image in self.refused:
            raise EngineError("exec: no such file")
        if held.state in ("running", "paused"):
            return
        held.state, held.exit_code, held.netns = "running", None, box.netns
        held.started_at, held.finished_at = self.now(), None
        if held.spec.image in self.exits:
            held.state, held.exit_code = "exited", self.exits[held.spec.image]
            held.finished_at = self.now()
        self.tell(held.spec.sandbox)

    def _end(self, held: Held, code: int) -> None:
        if held.state in ("running", "paused"):
            held.state, held.exit_code, held.finished_at = "exited", code, self.now()
            self.tell(held.spec.sandbox)

    async def stop(self, uuid: str, timeout: float) -> None:
        self._up(f"stop {uuid}")
        held = self.newest(uuid)
        if self.ignores_sigterm and held.state == "running":
            await asyncio.sleep(timeout)
        self._end(held, 143)

    async def kill(self, uuid: str, signal: str) -> None:
        self._up(f"kill {uuid} {signal}")
        held = self.newest(uuid)
        if signal in self.no_signal:
            raise EngineError(f"There is no signal {signal}.")
        if held.state not in ("running", "paused"):
            raise EngineError("The container does not run.")
        if signal != "SIGWINCH":
            self._end(held, 137)

    async def pause(self, uuid: str) -> None:
        self._up(f"pause {uuid}")
        held = self.newest(uuid)
        if held.state == "running":
            held.state = "paused"

    async def unpause(self, uuid: str) -> None:
        self._up(f"unpause {uuid}")
        held = self.newest(uuid)
        if held.state == "paused":
            held.state = "running"

    async def update(self, uuid: str, *, cpu: float, memory: int) -> None:
        self._up(f"update {uuid}")
        held = self.newest(uuid)
        held.cpu, held.memory = cpu, memory

    async def remove(self, uuid: str, incarnation: int | None = None) -> None:
        self._up(f"remove {uuid} {incarnation}")
        for key in [key for key in self.held if key[0] == uuid and incarnation in (None, key[1])]:
            sandbox = self.held.pop(key).spec.sandbox
            self.tell(sandbox)

    async def list(self, sandbox: str | None = None) -> Holdings:
        self._up("list")
        return Holdings(
            sandboxes=tuple(
                Sandbox(box.uuid, box.netns if box.ready else "", box.ready, box.project_id, box.hostname)
                for box in self.boxes.values()
                if sandbox in (None, box.uuid)
            ),
            containers=tuple(
                Observed(
                    uuid=held.spec.uuid,
                    incarnation=held.spec.incarnation,
                    sandbox=held.spec.sandbox,
                    state=held.state,
                    exit_code=held.exit_code,
                    started_at=held.started_at,
                    finished_at=held.finished_at,
                )
                for held in self.held.values()
                if sandbox in (None, held.spec.sandbox)
            ),
        )

    async def events(self) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            self._up("events")
            while (event := await queue.get()) is not None:
                yield event
            raise EngineUnavailable("The container engine of this host went away.")
        finally:
            self._listeners.remove(queue)

    async def exec(self, uuid: str, command: tuple[str, ...], *, tty: bool = False, stdin: bool = False) -> Any:
        self._up(f"exec {uuid}")
        if uuid in self.hangs:
            await asyncio.Event().wait()
        return FakeTerminal(1 if uuid in self.unwell else 0)


class FakeNetwork:
    """Which port of which workload is wired into which namespace."""

    def __init__(self) -> None:
        self.wired: dict[tuple[str, str], str] = {}
        self.filters: list[PortFilter] = []
        self.neighbours: list[Neighbour] = []
        self.applied = 0
        self.broken = False

    async def setup(self) -> None: ...

    async def plug(self, netns: str, workload: str, ports: list[PortWire]) -> None:
        if self.broken:
            raise EngineError("The port could not be wired.")
        for port in ports:
            self.wired.setdefault((workload, port.uuid), netns)

    async def unplug(self, workload: str, ports: list[str]) -> None:
        for port in ports:
            self.wired.pop((workload, port), None)

    async def plugged(self) -> list[Plugged]:
        return [Plugged(workload, port) for workload, port in self.wired]

    async def apply(self, filters: list[PortFilter], neighbours: list[Neighbour]) -> None:
        self.filters = filters
        self.neighbours = neighbours
        self.applied += 1

    async def teardown(self) -> None:
        self.wired.clear()


class FakeVolumes:
    """Which volumes have data here, and which are attached."""

    def __init__(self) -> None:
        self.data: set[str] = set()
        self.in_use: set[str] = set()
        self.detached: set[str] = set()

    async def attach(self, volume: VolumeWire) -> str:
        self.data.add(volume.uuid)
        self.in_use.add(volume.uuid)
        return f"/volumes/{volume.uuid}"

    async def detach(self, uuid: str) -> None:
        self.in_use.discard(uuid)
        self.detached.add(uuid)

    async def delete(self, uuid: str) -> None:
        self.in_use.discard(uuid)
        self.data.discard(uuid)

    async def attached(self) -> list[str]:
        return sorted(self.in_use)

    async def held(self) -> list[str]:
        return sorted(self.data)


class FakeControl:
    """Keeps assignments as the control plane does: what it hears of a generation that is over changes nothing."""

    def __init__(self) -> None:
        self.assigned: dict[str, Assignment] = {}
        self.dead: list[str] = []
        self.revision = 0
        self.deaf = False
        self.batches: list[list[Observation]] = []
        self.last: dict[str, Observation] = {}
        self.deleted: list[str] = []
        self._changed = asyncio.Event()

    def put(self, *assignments: Assignment) -> None:
        """Assign, or change what is assigned. What is known is kept."""
        for assignment in assignments:
            before = self.assigned.get(assignment.uuid)
            known = {member.uuid: member.known for member in before.members} if before else {}
            members = tuple(replace(one, known=known.get(one.uuid, one.known)) for one in assignment.members)
            self.assigned[assignment.uuid] = replace(assignment, members=members)
        self.touch()

    def drop(self, uuid: str) -> None:
        self.assigned.pop(uuid, None)
        self.touch()

    def touch(self) -> None:
        self.revision += 1
        self._changed.set()

    def known(self, workload: str, uuid: str | None = None) -> Known:
        return next(one.known for one in self.assigned[workload].members if one.uuid == (uuid or workload))

    async def register(self, report: HostReport) -> int:
        return 1

    async def assignments(self, host: int, since: int, timeout: float) -> Assignments | None:
        while self.revision <= since:
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                return None
        return Assignments(self.revision, tuple(self.assigned.values()), tuple(self.dead))

    async def observe(self, host: int, observations: list[Observation]) -> None:
        if self.deaf:
            raise OSError("connection refused")
        self.batches.append(observations)
        for one in observations:
            assignment = self.assigned.get(one.workload)
            if assignment is None or assignment.generation != one.generation:
                continue
            self.last[one.workload] = one
            members = tuple(
                replace(member, known=one.members.get(member.uuid, member.known)) for member in assignment.members
            )
            self.assigned[one.workload] = replace(assignment, members=members)
            if one.gone and assignment.deleting:
                self.drop(one.workload)

    async def volumes_deleted(self, host: int, uuids: list[str]) -> None:
        self.deleted += uuids
        self.dead = [uuid for uuid in self.dead if uuid not in uuids]


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def report() -> HostReport:
    return HostReport(name="one", zone="nova", cpus=2, memory=1024, disk=10, info=HostInfo())


def port(uuid: str = "port-1", address: str = "10.88.0.5") -> PortWire:
    return PortWire(
        uuid=uuid,
        network="net-1",
        project_id="demo",
        name="eth0",
        mac="02:00:00:00:00:01",
        address=address,
        cidr="10.88.0.0/24",
        gateway="10.88.0.1",
    )


def member(uuid: str = WORKLOAD, goal: Goal = Goal.RUNNING, **changes: Any) -> Member:
    """A plain container. ``changes`` are the member's fields, or its spec's."""
    own = {name: changes.pop(name) for name in list(changes) if name in Member.__struct_fields__ and name != "spec"}
    spec = ContainerSpec(**{"image": "busybox", **changes})
    fields: dict[str, Any] = {"role": "plain", "position": 0, "name": "web", "incarnation": 1, "known": Known()}
    return Member(**{**fields, "uuid": uuid, "goal": goal, "spec": spec, **own})


def assignment(*members: Member, uuid: str = WORKLOAD, generation: int = 1, **changes: Any) -> Assignment:
    fields: dict[str, Any] = {
        "kind": "container",
        "project_id": "demo",
        "deleting": False,
        "hostname": "web",
        "ports": (port(),),
    }
    return Assignment(
        **{**fields, "uuid": uuid, "generation": generation, "members": members or (member(),), **changes}
    )


def order(seq: int, verb: str = "restart", **changes: Any) -> Order:
    return Order(seq=seq, verb=verb, **changes)
