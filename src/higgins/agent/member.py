"""What is to be done for one container of a workload. Pure.

The owner's last word is the *goal*; an *order* (restart, a signal) is something to do once. A container that ends
while its goal is RUNNING is started again as its restart policy says, else marked as ``ended``: it stays so until it is
ordered to start, or was stopped and is to run again.
"""

from datetime import datetime, timedelta
from enum import IntEnum

from msgspec import Struct, field
from msgspec.structs import replace

from higgins.agent import health, restarts
from higgins.agent.memory import MemberMemory
from higgins.agent.steps import (
    CreateContainer,
    KillContainer,
    PauseContainer,
    PullImage,
    RemoveContainer,
    StartContainer,
    Step,
    StopContainer,
    UnpauseContainer,
    UpdateLimits,
    VolumeMount,
)
from higgins.control.link import Assignment, Known, Member, Order
from higgins.model.container import Goal, RestartPolicy, TaskState
from higgins.runtimes.base import EngineContainer, Observed

MIB = 2**20
VANISHED = "The container vanished from its host; rebuild it to have it made again."
DEAD = "The container engine could not remove what is left of the container; rebuild it to have it made again."

#: Exit code of what SIGKILL ended, and the time within which a removal after that is taken for one deed with it.
_KILLED, _ONE_DEED = 128 + 9, timedelta(seconds=10)

NO_VOLUME = "A volume of the container is not known to its host; delete the container and make it again."


class Stage(IntEnum):
    """When a step is done, relative to the others of the workload."""

    HALT = 0  # what runs in a network namespace that is no more
    CLEAR = 1
    PREPARE = 2  # images, sandbox, volumes, files
    END = 3
    REMOVE = 4
    MAKE = 5  # containers and ports
    GO = 6


class Ground(Struct, frozen=True, kw_only=True):
    """What the container stands on. ``lost``: its sandbox is gone; ``stale``: that is there but not ready."""

    now: datetime
    policy: RestartPolicy
    lost: bool = False
    stale: bool = False


class Course(Struct, kw_only=True):
    """The way to the goal from here."""

    known: Known
    steps: list[tuple[Stage, Step]] = field(default_factory=list)
    wake_at: datetime | None = None
    probe: bool = False

    def then(self, stage: Stage, *steps: Step) -> "Course":
        self.steps += [(stage, step) for step in steps]
        return self


def complete(member: Member, known: Known) -> bool:
    """An init container that has done its work is not started or made again."""
    return member.role == "init" and known.state == "exited" and known.exit_code == 0


def pending(member: Member, known: Known) -> Order | None:
    """The order that is still to be carried out."""
    order = member.order
    return order if order is not None and order.seq > known.order_done else None


def course(
    assignment: Assignment, member: Member, found: list[Observed], memory: MemberMemory, ground: Ground
) -> Course:
    """What to do for ``member``, of which the engine holds ``found``."""
    current = next((one for one in found if one.incarnation == member.incarnation), None)
    others = [one for one in found if one is not current]
    if member.goal is Goal.DELETED:
        way = Course(known=replace(memory.known, state="gone", step="", health=""))
        return way.then(Stage.CLEAR, *(_remove(one) for one in found))
    if current is None:
        return _missing(assignment, member, others, memory, ground)
    known = _seen(member, current, memory.known)
    if ground.lost:
        # Its namespace cannot come back under the identity that the engine bound the container to.
        way = Course(known=known)
        way.then(Stage.CLEAR, *(_remove(one) for one in found))
        return way if complete(member, known) else _remake(assignment, member, way)
    way = _present(member, current, known, memory, ground)
    if ground.stale and not complete(member, known):
        way.known = replace(way.known, step=TaskState.REBOOTING)  # engines may drop it with the sandbox's old self
    return way.then(Stage.REMOVE, *(_remove(one) for one in others))


def _remove(container: Observed) -> RemoveContainer:
    return RemoveContainer(uuid=container.uuid, incarnation=container.incarnation)


def _seen(member: Member, container: Observed, known: Known) -> Known:
    """What is known once ``container`` was looked at. Whether its end is final is decided elsewhere."""
    over = container.state == "exited"
    reason = container.reason or ("It was killed for want of memory." if container.oom_killed else "")
    fresh = known.incarnation != member.incarnation
    return replace(
        known,
        incarnation=member.incarnation,
        state="error" if container.state == "dead" else container.state,
        exit_code=container.exit_code if over else None,
        reason=DEAD if container.state == "dead" else reason,
        started_at=container.started_at,
        finished_at=container.finished_at if over else None,
        health=known.health if container.state == "running" else "",
        step=_step(known),
        restarts=0 if fresh else known.restarts,
        ended=known.ended and container.state in ("exited", "created") and not fresh,
    )


def _step(known: Known) -> str:
    """Of the task states only the one that says that it is being restarted means something later on."""
    return known.step if known.step == TaskState.REBOOTING else ""


def _noted(known: Known, order: Order | None) -> Known:
    """An order that has nothing to act on is done."""
    return replace(known, order_done=order.seq) if order else known


def _missing(
    assignment: Assignment, member: Member, others: list[Observed], memory: MemberMemory, ground: Ground
) -> Course:
    """The container is not there: it was never made, it is to be rebuilt, or it vanished."""
    known = memory.known if memory.known.state else replace(memory.known, reason="")  # what was told of a slow pull
    known = replace(known, step=_step(known))
    if complete(member, known) and known.incarnation == member.incarnation:
        return Course(known=_noted(known, member.order))
    if known.incarnation >= member.incarnation:
        if ground.lost or ground.stale or known.step == TaskState.REBOOTING or member.spec.auto_heal:
            if _removed_by_force(known, memory, ground.now):
                known = replace(known, ended=False)
            return _remake(assignment, member, Course(known=known))
        gone = replace(known, state="gone", reason=VANISHED, step="", health="")
        return Course(known=_noted(gone, pending(member, known)))
    way = Course(known=known)
    before = max(others, key=lambda one: one.incarnation, default=None)
    if before is not None:
        looked = _seen(member, before, known)
        way.known = replace(looked, incarnation=known.incarnation, restarts=known.restarts, ended=known.ended)
    start = member.goal in (Goal.RUNNING, Goal.PAUSED)
    _make(assignment, member, way, start=start, policy=member.spec.image_pull_policy)
    for one in others:
        if one.state in ("running", "paused"):
            way.then(Stage.END, StopContainer(uuid=member.uuid, timeout=member.stop_timeout))
        way.then(Stage.REMOVE, _remove(one))
    return way


def _removed_by_force(known: Known, memory: MemberMemory, now: datetime) -> bool:
    """Whether what killed the container was its removal, which engines do in two steps that can be seen one by one."""
    if known.exit_code != _KILLED or known.finished_at is None or memory.killed_at is not None:
        return False
    return now - known.finished_at <= _ONE_DEED


def _remake(assignment: Assignment, member: Member, way: Course) -> Course:
    """Make a container again that is lost; it runs again unless it had come to its end for good."""
    order = pending(member, way.known)
    ordered = order is not None and order.verb == "restart"
    start = member.goal in (Goal.RUNNING, Goal.PAUSED) and (ordered or not way.known.ended)
    way.known = replace(way.known, step=TaskState.REBOOTING)
    return _make(assignment, member, way, start=start, policy="ifnotpresent")


def _make(assignment: Assignment, member: Member, way: Course, *, start: bool, policy: str) -> Course:
    """Have the image, make the container, and start it where it is to run."""
    if any(mount.volume not in assignment.volumes for mount in member.spec.mounts):
        way.known = replace(way.known, state="error", reason=NO_VOLUME, step="")
        way.steps = []
        return way
    spec = member.spec
    pull = PullImage(uuid=member.uuid, image=spec.image, policy=policy, auth=member.auth, found=spec.found)
    way.then(Stage.PREPARE, pull)
    way.then(Stage.MAKE, creation(assignment, member))
    if start:
        order = pending(member, way.known)
        way.then(Stage.GO, StartContainer(uuid=member.uuid, order=order.seq if order else 0))
    return way


def creation(assignment: Assignment, member: Member) -> CreateContainer:
    """The container as the engine shall make it."""
    spec = member.spec
    return CreateContainer(
        uuid=member.uuid,
        container=EngineContainer(
            uuid=member.uuid,
            incarnation=member.incarnation,
            sandbox=assignment.uuid,
            project_id=assignment.project_id,
            image=spec.image,
            command=spec.command,
            entrypoint=spec.entrypoint,
            environment=spec.environment,
            labels=spec.labels,
            workdir=spec.workdir,
            hostname=spec.hostname or assignment.hostname,
            interactive=spec.interactive,
            tty=spec.tty,
            privileged=spec.privileged,
            runtime=spec.runtime,
            cpu=spec.cpu,
            memory=spec.memory * MIB,
            disk=spec.disk,
            cpuset=member.cpuset,
        ),
        mounts=tuple(
            VolumeMount(
                volume=assignment.volumes[mount.volume], destination=mount.destination, read_only=mount.read_only
            )
            for mount in spec.mounts
            if mount.volume is not None
        ),
    )


def _present(member: Member, current: Observed, known: Known, memory: MemberMemory, ground: Ground) -> Course:
    """The container is there: bring it from its state to its goal."""
    order = pending(member, known)
    if current.state == "dead":
        way = Course(known=_noted(known, order))
        return way.then(Stage.REMOVE, _remove(current)) if member.spec.auto_heal else way
    if ground.stale and current.state in ("running", "paused"):
        return _stranded(member, known, memory, order)
    if current.state == "created":
        return _created(member, known, order)
    if current.state == "paused":
        return _paused(member, known, order)
    if current.state == "exited":
        return _exited(member, current, known, memory, ground)
    return _running(member, current, known, memory, ground)


def _stranded(member: Member, known: Known, memory: MemberMemory, order: Order | None) -> Course:
    """It runs in a namespace that is no more, and must leave it before another is made in its place."""
    way = Course(known=known)
    if member.goal is Goal.STOPPED:
        way.known = _noted(known, order)
        return way.then(Stage.HALT, StopContainer(uuid=member.uuid, timeout=member.stop_timeout))
    seq = order.seq if order and order.verb == "restart" else 0
    counts = (known.restarts, memory.streak)
    return _restart(member, way, Stage.HALT, timeout=member.stop_timeout, counts=counts, order=seq)


def _created(member: Member, known: Known, order: Order | None) -> Course:
    known = replace(known, step="")
    runs = member.goal in (Goal.RUNNING, Goal.PAUSED)
    if not runs or (order and order.verb != "restart"):
        known, order = _noted(known, order), None
    way = Course(known=known if runs else replace(known, ended=False))
    if runs and (order or not known.ended):
        way.then(Stage.GO, StartContainer(uuid=member.uuid, order=order.seq if order else 0))
    return way


def _paused(member: Member, known: Known, order: Order | None) -> Course:
    way = Course(known=replace(known, step=""))
    if order and order.verb == "kill":
        return way.then(Stage.END, KillContainer(uuid=member.uuid, signal=order.signal, order=order.seq))
    if member.goal in (Goal.RUNNING, Goal.STOPPED) or (order and member.goal is Goal.PAUSED):
        return way.then(Stage.END, UnpauseContainer(uuid=member.uuid))
    way.known = _noted(way.known, order)
    return way


def _running(member: Member, current: Observed, known: Known, memory: MemberMemory, ground: Ground) -> Course:
    order = pending(member, known)
    way = Course(known=replace(known, step=""))
    if order and order.verb == "kill":
        return way.then(Stage.END, KillContainer(uuid=member.uuid, signal=order.signal, order=order.seq))
    if member.goal is Goal.STOPPED:
        way.known = _noted(way.known, order)
        patience = memory.killed_at and memory.killed_at + timedelta(seconds=member.stop_timeout)
        if patience and ground.now < patience:
            way.wake_at = patience  # it was sent a signal just now: let it end by that
            return way
        return way.then(Stage.END, StopContainer(uuid=member.uuid, timeout=member.stop_timeout))
    if member.goal is Goal.CREATED:
        way.known = _noted(way.known, order)
        return way
    if order:
        return _restart(member, way, Stage.END, timeout=order.timeout, order=order.seq, counts=(0, 0))
    if member.goal is Goal.PAUSED:
        return way.then(Stage.GO, PauseContainer(uuid=member.uuid))
    return _well(member, current, way, memory, ground)


def _restart(
    member: Member, way: Course, stage: Stage, *, timeout: float, counts: tuple[int, int], order: int = 0
) -> Course:
    """Stop it and start it. The task state goes ahead, so that an agent that dies in between knows what it was at."""
    way.known = replace(way.known, step=TaskState.REBOOTING)
    way.then(stage, StopContainer(uuid=member.uuid, timeout=timeout, restarting=True))
    return way.then(
        Stage.GO,
        StartContainer(uuid=member.uuid, order=order, restarts=counts[0], streak=counts[1]),
    )


def _well(member: Member, current: Observed, way: Course, memory: MemberMemory, ground: Ground) -> Course:
    """It runs as it should: mind its health and its limits."""
    spec = member.spec
    check = spec.healthcheck
    if check is None:
        way.known = replace(way.known, health="")
    else:
        state = health.of_run(memory.health, check, current.started_at, ground.now)
        way.known = replace(way.known, health=state.state)
        heal_at = state.since + restarts.delay(memory.streak)
        heals = state.state == health.UNHEALTHY and spec.auto_heal
        if heals and ground.now >= heal_at:
            counts = (way.known.restarts + 1, memory.streak + 1)
            return _restart(member, way, Stage.END, timeout=member.stop_timeout, counts=counts)
        if not state.probing:
            way.probe = ground.now >= state.next_at
            way.wake_at = state.next_at
        if heals:
            way.wake_at = heal_at
    limits = (spec.cpu, spec.memory * MIB)
    if memory.limits != limits:
        way.then(Stage.GO, UpdateLimits(uuid=member.uuid, cpu=limits[0], memory=limits[1]))
    return way


def _exited(member: Member, current: Observed, known: Known, memory: MemberMemory, ground: Ground) -> Course:
    order = pending(member, known)
    if complete(member, known):
        return Course(known=replace(_noted(known, order), step="", ended=False))
    if member.goal in (Goal.STOPPED, Goal.CREATED):
        return Course(known=replace(_noted(known, order), step="", ended=False))
    if order and order.verb == "restart":
        return _start(member, known, order=order.seq, counts=(0, 0))
    if order:
        return Course(known=replace(_noted(known, order), step="", ended=True))
    if known.ended:
        return Course(known=replace(known, step=""))
    before = memory.known
    if before.step == TaskState.REBOOTING or (ground.stale and before.state in ("running", "paused")):
        # It was stopped in order to be started again, or went down with its host or engine.
        return _start(member, known, counts=(known.restarts, memory.streak))
    fresh = not memory.stopped and (before.state != "exited" or before.finished_at != current.finished_at)
    if fresh and _by_signal(member, current, memory, ground):
        return Course(known=replace(known, step="", ended=True))
    if restarts.wanted(ground.policy, current.exit_code, known.restarts):
        streak = restarts.streak_after(current, memory.streak)
        at = restarts.due(current, streak, ground.now)
        if ground.now >= at:
            return _start(member, known, counts=(known.restarts + 1, streak + 1))
        return Course(known=replace(known, step=""), wake_at=at)
    if fresh:
        return Course(known=replace(known, step="", ended=True))
    # It had been stopped, and now its owner wants it to run.
    return _start(member, known, counts=(0, 0))


def _start(member: Member, known: Known, *, counts: tuple[int, int], order: int = 0) -> Course:
    start = StartContainer(uuid=member.uuid, order=order, restarts=counts[0], streak=counts[1])
    return Course(known=known).then(Stage.GO, start)


def _by_signal(member: Member, current: Observed, memory: MemberMemory, ground: Ground) -> bool:
    """Whether it ended by the signal that its owner sent: then no policy starts it again."""
    if memory.killed_at is None:
        return False
    return (current.finished_at or ground.now) <= memory.killed_at + timedelta(seconds=member.stop_timeout)
