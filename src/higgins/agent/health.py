"""When a container is asked whether it is well, and what follows from the answers. Pure.

A container is ``starting`` until its first answer; ``healthy`` after a success; ``unhealthy`` after as many failures
in a row as its check allows. It begins anew each time the container is started.
"""

from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from higgins.model.container import Healthcheck

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


class Health(Struct, frozen=True, kw_only=True):
    """What is known of one run of a container, which began at ``started_at``. ``since``: of the present state."""

    started_at: datetime | None
    since: datetime
    next_at: datetime
    state: str = STARTING
    failures: int = 0
    probing: bool = False


def interval(check: Healthcheck) -> timedelta:
    """Never less than a tenth of a second, whatever was asked for."""
    return timedelta(seconds=max(check.interval, 0.1))


def of_run(health: Health | None, check: Healthcheck, started_at: datetime | None, now: datetime) -> Health:
    """The health of the run that began at ``started_at``: what is known of it, or a new one."""
    if health is not None and health.started_at == started_at:
        return health
    return Health(started_at=started_at, since=now, next_at=now + interval(check))


def asked(health: Health) -> Health:
    """A probe is on its way."""
    return replace(health, probing=True)


def answered(health: Health, check: Healthcheck, ok: bool, now: datetime) -> Health:
    """A probe ended well, or failed or took longer than its timeout."""
    failures = 0 if ok else health.failures + 1
    state = HEALTHY if ok else UNHEALTHY if failures >= max(check.retries, 1) else health.state
    since = health.since if state == health.state else now
    return replace(health, state=state, failures=failures, since=since, probing=False, next_at=now + interval(check))
