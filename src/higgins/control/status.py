"""What an operator wants to see at once: hosts, what waits, what is stuck and why, what is out of step.

``report`` looks at a cloud at work; ``upgrade_checks`` says whether another version may be put in place.
"""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection, Engine

from higgins import __version__
from higgins.control.audit import Difference, audit
from higgins.control.cloud import Cloud
from higgins.control.placement.claims import SEVERAL
from higgins.control.rows import host_of
from higgins.model.container import Status
from higgins.model.resources import Host
from higgins.store.migrate import TooOld, current, floor, head, revisions, serves
from higgins.store.schema import container, host, workload

#: So many of what is stuck are told of one by one.
MOST = 50


class HostStatus(Struct, frozen=True, kw_only=True):
    """A host at a glance. ``silent_for`` in seconds; ``memory`` in MiB; ``waiting``: workloads it has to work on."""

    name: str
    zone: str
    state: str  # up | down | disabled | draining, several with commas between
    silent_for: float
    version: str
    engine: str
    containers: int
    cpus: float
    cpu_used: float
    memory: int
    memory_used: int
    waiting: int
    tenant: str | None


class Stuck(Struct, frozen=True, kw_only=True):
    """A workload that has not come to rest for too long, or cannot; ``since`` in seconds."""

    uuid: str
    name: str
    project_id: str
    host: str | None
    status: str
    since: float
    reason: str


class Report(Struct, frozen=True, kw_only=True):
    """All of it. ``statuses`` counts containers; ``backlog`` are workloads of which a host has not settled the newest
    generation; ``moving`` those on their way from one host to another."""

    version: str
    database: str
    hosts: list[HostStatus]
    statuses: dict[str, int]
    backlog: int
    moving: int
    stuck: list[Stuck]
    stuck_total: int
    differences: list[Difference]


async def report(cloud: Cloud) -> Report:
    """The cloud as it is now; changes nothing."""

    def work(conn: Connection) -> Report:
        now = cloud.now()
        rows = conn.execute(sa.select(host).order_by(host.c.name)).all()
        hosts = {row.id: host_of(row, now, cloud.settings.host_lease) for row in rows}
        tenants = {row.id: row.tenant for row in rows}
        unsettled = conn.execute(
            sa.select(workload).where(workload.c.host_id.is_not(None), workload.c.observed < workload.c.generation)
        ).all()
        waiting = Counter(row.host_id for row in unsettled)
        statuses = conn.execute(sa.select(container.c.status, sa.func.count()).group_by(container.c.status)).all()
        moving = sa.select(sa.func.count()).select_from(workload).where(workload.c.next_host_id.is_not(None))
        stuck = [*_unsettled(cloud, hosts, unsettled, now), *_unplaced(conn, cloud, now)]
        return Report(
            version=__version__,
            database=f"{conn.dialect.name}, revision {_revision(conn)}",
            hosts=[_host(one, tenants[one.id], waiting[one.id], now) for one in hosts.values()],
            statuses={str(row[0]): row[1] for row in statuses},
            backlog=len(unsettled),
            moving=conn.execute(moving).scalar_one(),
            stuck=sorted(stuck, key=lambda one: -one.since)[:MOST],
            stuck_total=len(stuck),
            differences=audit(conn),
        )

    return await cloud.store.read(work)


def _revision(conn: Connection) -> str:
    return str(conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none() or "none")


def _host(one: Host, tenant: str | None, waiting: int, now: datetime) -> HostStatus:
    words = [
        "up" if one.up else "down",
        *(["disabled"] if one.disabled else []),
        *(["draining"] if one.draining else []),
    ]
    return HostStatus(
        name=one.name,
        zone=one.zone,
        state=", ".join(words),
        silent_for=max((now - one.seen_at).total_seconds(), 0.0),
        version=one.info.version,
        engine=f"{one.info.engine} {one.info.engine_version}".strip(),
        containers=one.containers,
        cpus=one.cpus,
        cpu_used=one.cpu_used,
        memory=one.memory,
        memory_used=one.memory_used,
        waiting=waiting,
        tenant=tenant,
    )


def _unsettled(cloud: Cloud, hosts: dict[int, Host], rows: Any, now: datetime) -> list[Stuck]:
    """What a host has had to do for longer than it should take, and what is known of why."""
    found: list[Stuck] = []
    for row in rows:
        since = (now - (row.updated_at or row.created_at)).total_seconds()
        one = hosts[row.host_id]
        if since <= cloud.settings.stuck_after:
            continue
        if not one.up:
            reason = f"host {one.name} does not answer"
        elif row.next_host_id is not None:
            reason = f"host {one.name} has not let go of it yet"
        elif row.deleting:
            reason = f"host {one.name} has not removed it yet"
        else:
            reason = row.status_reason or f"host {one.name} has not settled generation {row.generation}"
        found.append(
            Stuck(
                uuid=row.uuid,
                name=row.name or "",
                project_id=row.project_id,
                host=one.name,
                status=row.status,
                since=since,
                reason=reason,
            )
        )
    return found


def _unplaced(conn: Connection, cloud: Cloud, now: datetime) -> list[Stuck]:
    """Containers of lost hosts, and workloads that no host could take: these rest, and not as their owners wanted."""
    unknown = sa.and_(container.c.status == Status.UNKNOWN, workload.c.host_id.is_not(None))
    rows = conn.execute(
        sa.select(container, workload.c.uuid.label("workload_uuid"), workload.c.observed, workload.c.generation)
        .join(workload, workload.c.id == container.c.workload_id)
        .where(sa.or_(unknown, workload.c.host_id.is_(None)))
    ).all()
    return [
        Stuck(
            uuid=row.uuid,
            name=row.name,
            project_id=row.project_id,
            host=row.host,
            status=row.status,
            since=(now - (row.updated_at or row.created_at)).total_seconds(),
            reason=row.status_reason or "",
        )
        for row in rows
        if row.host is None or row.observed >= row.generation
    ]


class FleetFigures(Struct, frozen=True):
    """Hosts by state, and what is claimed of what those give that are up and take workloads. Cores, MiB, GiB."""

    states: dict[str, int]
    capacity: dict[str, float]
    claimed: dict[str, float]
    moving: int


async def fleet_figures(cloud: Cloud) -> FleetFigures:
    """For those who look again and again: hosts are summed up by the database, not read."""
    lease, settings, t = timedelta(seconds=cloud.settings.host_lease), cloud.settings, host.c
    up = sa.and_(sa.not_(t.forced_down), t.seen_at >= cloud.now() - lease)
    usable = sa.and_(up, sa.not_(t.disabled), sa.not_(t.draining))
    sums = {
        "cpu": (t.cpu_used - t.cores_used, (t.cpus - t.cores) * settings.cpu_allocation_ratio),
        "memory": (t.memory_used, t.memory * settings.memory_allocation_ratio),
        "disk": (t.disk_used, t.disk * settings.disk_allocation_ratio),
        "dedicated_cpus": (t.cores_used, t.cores),
    }

    def count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)

    def total(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.coalesce(sa.func.sum(sa.case((usable, value), else_=0)), 0)

    states = sa.select(count(up), count(sa.not_(up)), count(t.disabled), count(t.draining))
    claims = sa.select(*(total(value) for pair in sums.values() for value in pair))
    moving = sa.select(sa.func.count()).select_from(workload).where(workload.c.next_host_id.is_not(None))

    def work(conn: Connection) -> FleetFigures:
        numbers = conn.execute(states).one()
        pairs = list(map(float, conn.execute(claims).one()))
        return FleetFigures(
            states=dict(zip(("up", "down", "disabled", "draining"), map(int, numbers), strict=True)),
            claimed=dict(zip(sums, pairs[0::2], strict=True)),
            capacity=dict(zip(sums, pairs[1::2], strict=True)),
            moving=conn.execute(moving).scalar_one(),
        )

    return await cloud.store.read(work)


# upgrades


class Check(Struct, frozen=True):
    """Something looked at before an upgrade. ``result`` is Success, Warning or Failure."""

    name: str
    result: str
    details: str = ""


async def upgrade_checks(cloud: Cloud) -> list[Check]:
    """Whether this version may serve on the database, and what to see to before and after. Changes nothing."""
    check, usable = await asyncio.to_thread(_fit, cloud.store.engine)
    return [check, *checks(await report(cloud), cloud)] if usable else [check]


def _fit(engine: Engine) -> tuple[Check, bool]:
    """How the tables fit this version, and whether it can read them."""
    name, there = "Database revision", current(engine)
    try:
        fits = serves(engine)
    except TooOld as error:
        return Check(name, "Failure", str(error)), False
    if not fits:
        details = f"The database is at revision {there}, this version needs {head()}: run higgins db upgrade."
        if there is not None:
            known = revisions()
            again = "can" if floor() in known[: known.index(there) + 1] else "cannot"
            details += f" Processes of the version that is there go on, and {again} be started again after that."
        return Check(name, "Failure", details), False
    if there != head():
        return Check(name, "Warning", f"The database is at revision {there}, made by a newer version than this."), True
    return Check(name, "Success"), True


def checks(found: Report, cloud: Cloud) -> list[Check]:
    """Pure: what follows from a report."""
    down = [one.name for one in found.hosts if "down" in one.state]
    versions = sorted({one.version or "unknown" for one in found.hosts} - {found.version})
    alone = set(cloud.settings.tenant_isolation) - {"none"}
    shared = [one.name for one in found.hosts if alone and one.tenant == SEVERAL]
    return [
        _check("Hosts answer", down, "These hosts do not answer: {}."),
        _check("Agents' versions", versions, "Agents of other versions are at work: {}."),
        _check("Nothing is stuck", [one.uuid for one in found.stuck], "These workloads are stuck: {}."),
        _check("Tenant isolation", shared, "These hosts hold several projects from before the rule: {}."),
        _check(
            "Claims and quotas add up",
            [f"{one.kind} {one.name}" for one in found.differences],
            "These do not: {}.",
            result="Failure",
        ),
    ]


def _check(name: str, wrong: list[str], details: str, *, result: str = "Warning") -> Check:
    if not wrong:
        return Check(name, "Success")
    told = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    return Check(name, result, details.format(told))
