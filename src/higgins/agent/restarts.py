"""When a container that ended is started again. Pure; the same on every engine, since no engine is asked for it."""

from datetime import datetime, timedelta

from higgins.model.container import RestartPolicy
from higgins.runtimes.base import Observed

#: Seconds before the first restart; doubled for each one in a row, up to the last. A run of ``LONG_RUN`` ends the row.
FIRST_DELAY = 0.1
LAST_DELAY = 60.0
LONG_RUN = 10.0


def wanted(policy: RestartPolicy, exit_code: int | None, restarts: int) -> bool:
    """Whether the policy starts a container again that ended with ``exit_code`` after ``restarts`` restarts."""
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name == "on-failure" and exit_code != 0:
        return policy.maximum_retry_count == 0 or restarts < policy.maximum_retry_count
    return False


def for_init(policy: RestartPolicy) -> RestartPolicy:
    """A container that runs before others is started again only when it failed, until it succeeds."""
    if policy.name == "no":
        return policy
    return RestartPolicy("on-failure", policy.maximum_retry_count if policy.name == "on-failure" else 0)


def delay(streak: int) -> timedelta:
    """How long to wait before the next restart after ``streak`` in a row."""
    return timedelta(seconds=min(FIRST_DELAY * 2 ** min(streak, 30), LAST_DELAY))


def streak_after(container: Observed, streak: int) -> int:
    """The restarts in a row, forgotten when the container ran for long enough."""
    if container.started_at and container.finished_at:
        ran = (container.finished_at - container.started_at).total_seconds()
        return 0 if ran >= LONG_RUN else streak
    return streak


def due(container: Observed, streak: int, now: datetime) -> datetime:
    """When the container is to be started again; now where the engine does not tell when it ended."""
    return container.finished_at + delay(streak) if container.finished_at else now
