"""The little an agent remembers of a workload between two passes, and how a step's end changes it.

All of it may be lost at any time: what must outlive the agent is in ``Known``, which the control plane keeps.
"""

from datetime import datetime, timedelta

from msgspec import Struct, field
from msgspec.structs import replace

from higgins.agent.health import Health
from higgins.agent.steps import (
    CreateContainer,
    KillContainer,
    PullImage,
    RemoveSandbox,
    StartContainer,
    Step,
    StopContainer,
    UpdateLimits,
    WriteFiles,
)
from higgins.control.link import Assignment, Known, Member
from higgins.model.errors import ContainerGone, HigginsError, HostUnavailable, ImagePullFailed, SandboxGone

#: Seconds before a failed step is tried again, doubled each time up to the last.
FIRST_RETRY = 1.0
LAST_RETRY = 30.0


class Failure(Struct, frozen=True, kw_only=True):
    """A step failed ``count`` times in a row. Not tried again before ``retry_at``, never where that is None."""

    sentence: str
    generation: int
    count: int
    retry_at: datetime | None
    crucial: bool

    def holds(self, generation: int, now: datetime) -> bool:
        """Whether the step must not be tried now. A new generation tries everything anew."""
        return self.generation == generation and (self.retry_at is None or now < self.retry_at)


class MemberMemory(Struct, kw_only=True):
    """Of one container. ``limits`` as last applied (cores, bytes); ``streak`` restarts in a row.

    ``unbound``: the engine bound it to a sandbox that is no more, so that it can never start again. ``pulled``: for a
    container that is not made yet. ``stopped``: its end is not its own, and it may be wanted again already.
    """

    known: Known
    limits: tuple[float, int] | None = None
    streak: int = 0
    killed_at: datetime | None = None
    health: Health | None = None
    unbound: bool = False
    stopped: bool = False
    pulled: PullImage | None = None


class Memory(Struct, kw_only=True):
    """Of one workload. ``files`` as last written."""

    members: dict[str, MemberMemory] = field(default_factory=dict)
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)
    files: WriteFiles | None = None

    def of(self, member: Member) -> MemberMemory:
        """What is remembered of a member; at first, what the control plane kept of it."""
        return self.members.get(member.uuid) or MemberMemory(known=member.known)

    def failure(self, step: Step) -> Failure | None:
        return self.failures.get(_key(step))


def _key(step: Step) -> tuple[str, str]:
    return step.subject, type(step).__name__


def meet(memory: Memory, assignment: Assignment) -> None:
    """Make room for all members, and forget those that are no more."""
    memory.members = {member.uuid: memory.of(member) for member in assignment.members}


def succeeded(memory: Memory, step: Step, now: datetime) -> None:
    """Remember that a step was done."""
    memory.failures.pop(_key(step), None)
    if isinstance(step, WriteFiles):
        memory.files = step
    elif isinstance(step, RemoveSandbox):
        memory.files = None
    member = memory.members.get(step.subject)
    if member is None:
        return
    if isinstance(step, PullImage):
        member.pulled = step
    elif isinstance(step, CreateContainer):
        member.pulled = None
        member.limits = (step.container.cpu, step.container.memory)
        member.streak, member.killed_at, member.health, member.unbound = 0, None, None, False
        member.stopped = False
    elif isinstance(step, UpdateLimits):
        member.limits = (step.cpu, step.memory)
    elif isinstance(step, StartContainer):
        _started(member, step)
    elif isinstance(step, KillContainer):
        member.killed_at = now
        member.known = replace(member.known, order_done=max(step.order, member.known.order_done))
    elif isinstance(step, StopContainer) and not step.restarting:
        member.killed_at, member.stopped = None, True


def _started(member: MemberMemory, step: StartContainer) -> None:
    """It runs again: whatever was said of its end is over."""
    known = member.known
    member.known = replace(
        known,
        order_done=max(step.order, known.order_done),
        restarts=step.restarts,
        ended=False,
        step="",
    )
    member.streak = step.streak
    member.killed_at, member.stopped = None, False


def failed(memory: Memory, step: Step, error: HigginsError, generation: int, now: datetime) -> None:
    """Remember that a step failed, and when to try again: never at once, and not at all after a final refusal."""
    before = memory.failures.get(_key(step))
    count = before.count + 1 if before and before.generation == generation else 1
    transient = not step.final or isinstance(error, HostUnavailable | ImagePullFailed | ContainerGone | SandboxGone)
    wait = timedelta(seconds=min(FIRST_RETRY * 2 ** min(count - 1, 10), LAST_RETRY))
    memory.failures[_key(step)] = Failure(
        sentence=str(error),
        generation=generation,
        count=count,
        retry_at=now + wait if transient else None,
        crucial=step.crucial,
    )
    member = memory.members.get(step.subject)
    if member is not None and isinstance(step, StartContainer):
        member.unbound = isinstance(error, SandboxGone)
    if member is not None and isinstance(step, KillContainer):
        member.known = replace(member.known, order_done=max(step.order, member.known.order_done))
