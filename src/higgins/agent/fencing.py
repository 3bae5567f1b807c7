"""A host that hears nothing takes itself for lost: what is then placed elsewhere ends here first. Pure.

It counts from when it sent the last question that was answered, never from the answer: that may have been on its way
for long. ``control/fencing.py`` is the other side.
"""

from msgspec import Struct
from msgspec.structs import replace

from higgins.control.link import Assignment
from higgins.model.container import Goal

#: Seconds between two looks at the clock, and that a container gets to end by itself.
CHECK = 1.0
PATIENCE = 5.0


class Fence(Struct):
    """``asked`` is when the last question was sent that was answered, in seconds; ``lease`` as the answer told it."""

    asked: float = 0.0
    lease: float | None = None

    def closed(self, now: float) -> bool:
        """Whether the control plane may take this host for lost soon."""
        return self.lease is not None and now - self.asked > self.lease

    def poll(self, longest: float) -> float:
        """Seconds that a question may wait for its answer: so that of some in a row one may be lost."""
        return longest if self.lease is None else min(longest, self.lease / 4)


def ended(assignment: Assignment) -> Assignment:
    """What becomes of an assignment on a host that is lost: one that leaves it runs here no more."""
    if not assignment.leaves:
        return assignment
    members = (
        replace(one, goal=Goal.STOPPED, stop_timeout=min(one.stop_timeout, PATIENCE))
        if one.goal in (Goal.RUNNING, Goal.PAUSED)
        else one
        for one in assignment.members
    )
    return replace(assignment, members=tuple(members))
