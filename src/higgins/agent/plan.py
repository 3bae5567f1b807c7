"""What to do for a workload, from what it should be and what was seen of it. Pure.

The plan is made anew after every change and every step that failed, so that it never has to be carried out to its end:
whatever was done of it is seen the next time. Steps of one stage do not depend on one another and may be done side by
side.
"""

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from higgins.agent.member import Course, Ground, Stage, complete, course
from higgins.agent.memory import Failure, MemberMemory, Memory
from higgins.agent.restarts import for_init
from higgins.agent.seen import Plan, Seen
from higgins.agent.steps import (
    AttachVolume,
    DetachVolume,
    KillContainer,
    MakeSandbox,
    Plug,
    RemoveContainer,
    RemoveSandbox,
    Step,
    StopContainer,
    Unplug,
    WriteFiles,
)
from higgins.control.link import Assignment, Known, Member, Waits
from higgins.model.container import Goal, RestartPolicy
from higgins.runtimes.base import Sandbox, SandboxSpec

Staged = list[tuple[int, Step]]


def plan(workload: str, assignment: Assignment | None, seen: Seen, memory: Memory, now: datetime) -> Plan:
    """The way from what is there to what should be. ``assignment`` None: it should not be on this host at all."""
    if assignment is None or assignment.deleting:
        return _teardown(workload, assignment, seen, memory, now)
    stale = seen.sandbox is not None and not seen.sandbox.ready
    basis, trouble = _cut(_basis(assignment, seen, memory, stale), memory, assignment.generation, now)
    ways = _members(assignment, seen, memory, now, stale)
    known: dict[str, Known] = {}
    staged = basis
    waiting = [trouble] if trouble else []
    for member, way in ways:
        # What is running already may be stopped and looked after; nothing is made or started on what is not there.
        possible: Staged = [*way.steps] if not trouble or _needs_nothing(way) else []
        if assignment.waits is not None and assignment.waits.holds and not _needs_nothing(way):
            possible = _meanwhile(possible, assignment.waits, memory.of(member))
        # A refusal may have been about the sandbox, when that is to be made anew.
        steps, failure = _cut(possible, memory, assignment.generation, now, anew=stale or seen.sandbox is None)
        if failure is not None:  # an image that is here already waits for the container with it
            steps = [one for one in steps if one[1] != memory.of(member).pulled]
        staged = staged + steps
        told = _told(way.known, failure or _refused_signal(member, memory, assignment.generation))
        known[member.uuid] = _waiting(told, assignment.waits)
        waiting += [failure] if failure else []
    staged = staged + _strays(assignment, seen)
    error = trouble.sentence if trouble else _refused(assignment.waits) or _failed_init(ways)
    later = not error and (_lacks(assignment.waits) or any(_gated(member, way) for member, way in ways))
    wakes = [way.wake_at for _, way in ways if way.wake_at] + [f.retry_at for f in waiting if f.retry_at]
    return Plan(
        stages=_stages(staged),
        known=known,
        settled=not staged and not later and not any(failure.retry_at for failure in waiting),
        error=error,
        wake_at=min(wakes, default=None),
        probes=tuple(member.uuid for member, way in ways if way.probe),
    )


def _basis(assignment: Assignment, seen: Seen, memory: Memory, stale: bool) -> Staged:
    """Sandbox, files, volumes and ports."""
    staged: Staged = []
    new = seen.sandbox is None or stale
    if new and seen.ports:
        # Wires into a namespace that is no more.
        staged.append((Stage.CLEAR, Unplug(workload=assignment.uuid, ports=tuple(sorted(seen.ports)))))
    if new:
        staged.append((Stage.PREPARE, MakeSandbox(spec=_sandbox(assignment))))
    hostname = _hostname(assignment, None if stale else seen.sandbox)
    servers = tuple(dict.fromkeys(server for port in assignment.ports for server in port.dns))
    names = _names(assignment, hostname)
    files = WriteFiles(workload=assignment.uuid, hostname=hostname, names=names, servers=servers)
    if not seen.files or memory.files != files:
        staged.append((Stage.PREPARE, files))
    for uuid, volume in sorted(assignment.volumes.items()):
        if uuid not in seen.volumes and not volume.awaited:
            staged.append((Stage.PREPARE, AttachVolume(volume=volume)))
    wanted = {port.uuid for port in assignment.ports}
    if not new and (extra := seen.ports - wanted):
        # First, since what is plugged in its stead may bear the same name inside.
        staged.append((Stage.CLEAR, Unplug(workload=assignment.uuid, ports=tuple(sorted(extra)))))
    if ports := tuple(port for port in assignment.ports if new or port.uuid not in seen.ports):
        staged.append((Stage.MAKE, Plug(workload=assignment.uuid, ports=ports)))
    return staged


def _sandbox(assignment: Assignment) -> SandboxSpec:
    specs = [member.spec for member in assignment.members]
    return SandboxSpec(
        uuid=assignment.uuid,
        project_id=assignment.project_id,
        hostname=_hostname(assignment, None),
        runtime=next((spec.runtime for spec in specs if spec.runtime), None),
        privileged=any(spec.privileged for spec in specs),
    )


def _hostname(assignment: Assignment, sandbox: Sandbox | None) -> str:
    """What its owner chose; otherwise the name that its sandbox was made with, or will be."""
    made_with = sandbox.hostname if sandbox else ""
    return assignment.hostname or made_with or assignment.uuid[:12]


def _names(assignment: Assignment, hostname: str) -> dict[str, tuple[str, ...]]:
    """Its own addresses carry its host name first."""
    mine = [one for port in assignment.ports for one in (port.address, *(other.address for other in port.others))]
    own = {address: (hostname,) for address in mine if address}
    names = {address: own.get(address, ()) + names for address, names in assignment.names.items()}
    return {address: tuple(dict.fromkeys(own_names)) for address, own_names in (own | names).items()}


def _members(
    assignment: Assignment, seen: Seen, memory: Memory, now: datetime, stale: bool
) -> list[tuple[Member, Course]]:
    """Each member's way. What must wait for an init container to succeed has nothing to do yet."""
    ways: list[tuple[Member, Course]] = []
    open_inits = 0
    for member in sorted(assignment.members, key=lambda one: (one.role != "init", one.position)):
        mine = memory.of(member)
        found = [one for one in seen.containers if one.uuid == member.uuid]
        if open_inits and not found and not mine.known.incarnation:
            ways.append((member, Course(known=mine.known)))
            continue
        policy = assignment.restart_policy or member.spec.restart_policy
        ground = Ground(now=now, policy=_policy(member, policy), lost=seen.sandbox is None or mine.unbound, stale=stale)
        way = course(assignment, member, found, mine, ground)
        ways.append((member, way))
        open_inits += member.role == "init" and member.goal is not Goal.DELETED and not complete(member, way.known)
    return ways


def _gated(member: Member, way: Course) -> bool:
    """Whether a member was not made yet and has nothing to do: it waits for another."""
    return member.goal is not Goal.DELETED and not way.known.incarnation and not way.known.state and not way.steps


def _policy(member: Member, policy: RestartPolicy) -> RestartPolicy:
    return for_init(policy) if member.role == "init" else policy


def _failed_init(ways: list[tuple[Member, Course]]) -> str:
    for member, way in ways:
        if member.role == "init" and way.known.ended:
            return f"Init container {member.name} ended with exit code {way.known.exit_code}."
    return ""


def _strays(assignment: Assignment, seen: Seen) -> Staged:
    """Containers in the sandbox that are no member of it any more."""
    members = {member.uuid for member in assignment.members}
    return [
        (Stage.REMOVE, RemoveContainer(uuid=one.uuid, incarnation=one.incarnation))
        for one in seen.containers
        if one.uuid not in members
    ]


def _needs_nothing(way: Course) -> bool:
    """Whether a way makes and starts nothing, so that it does not depend on sandbox, ports and volumes."""
    return all(stage not in (Stage.HALT, Stage.PREPARE, Stage.MAKE, Stage.GO) for stage, _ in way.steps)


def _meanwhile(steps: Staged, waits: Waits, mine: MemberMemory) -> Staged:
    """What of a member's way can be done while the workload lacks something; nothing where it will not come."""
    early = [(stage, step) for stage, step in steps if stage <= Stage.PREPARE and step != mine.pulled]
    return [] if waits.refused else early


def _lacks(waits: Waits | None) -> bool:
    return waits is not None and not waits.refused


def _refused(waits: Waits | None) -> str:
    """Why what the workload cannot do without will not come."""
    return waits.reason if waits is not None and waits.refused and waits.holds else ""


def _waiting(known: Known, waits: Waits | None) -> Known:
    """What is known of a container, with the reason why it is not made yet, or what it will not get."""
    if waits is None or not waits.reason or known.reason:
        return known
    tells = not waits.holds if waits.refused else waits.holds and known.state not in ("running", "paused")
    return replace(known, reason=waits.reason) if tells else known


def _cut(
    staged: Iterable[tuple[int, Step]], memory: Memory, generation: int, now: datetime, *, anew: bool = False
) -> tuple[Staged, Failure | None]:
    """The steps before the first that must not be tried now, and why it must not."""
    kept: Staged = []
    for stage, step in sorted(staged, key=lambda one: one[0]):
        failure = memory.failure(step)
        if failure is not None and failure.holds(generation, now) and not (anew and failure.retry_at is None):
            return kept, failure
        kept.append((stage, step))
    return kept, None


def _told(known: Known, failure: Failure | None) -> Known:
    """What is known of a container of which a step failed."""
    if failure is None:
        return known
    state = "error" if failure.crucial else known.state
    return replace(known, state=state, reason=failure.sentence, step="")


def _refused_signal(member: Member, memory: Memory, generation: int) -> Failure | None:
    """A signal that could not be sent is not sent again, and its sender is told why."""
    failure = memory.failures.get((member.uuid, KillContainer.__name__))
    return failure if failure is not None and failure.generation == generation else None


def _stages(staged: Iterable[tuple[int, Step]]) -> tuple[tuple[Step, ...], ...]:
    by_stage: dict[int, list[Step]] = {}
    for stage, step in staged:
        by_stage.setdefault(stage, []).append(step)
    return tuple(tuple(by_stage[stage]) for stage in sorted(by_stage))


def _teardown(workload: str, assignment: Assignment | None, seen: Seen, memory: Memory, now: datetime) -> Plan:
    """Remove everything: containers, then their wires, then the sandbox; then nobody uses the volumes."""
    known = {member.uuid: memory.of(member).known for member in assignment.members} if assignment else {}
    if seen.nothing:
        return Plan(known=known, settled=True, gone=True)
    gently = {
        member.uuid: member.stop_timeout
        for member in (assignment.members if assignment else ())
        if member.goal is Goal.STOPPED
    }
    staged: Staged = []
    for one in seen.containers:
        if one.uuid in gently and one.state == "running":
            staged.append((0, StopContainer(uuid=one.uuid, timeout=gently[one.uuid])))
        staged.append((1, RemoveContainer(uuid=one.uuid, incarnation=one.incarnation)))
    if seen.ports:
        staged.append((2, Unplug(workload=workload, ports=tuple(sorted(seen.ports)))))
    if seen.sandbox is not None or seen.files:
        staged.append((3, RemoveSandbox(workload=workload)))
    staged += [(4, DetachVolume(volume=uuid)) for uuid in sorted(seen.volumes - seen.shared)]
    generation = assignment.generation if assignment else 0
    kept, failure = _cut(staged, memory, generation, now)
    return Plan(
        stages=_stages(kept),
        known=known,
        error=failure.sentence if failure else "",
        wake_at=failure.retry_at if failure else None,
    )
