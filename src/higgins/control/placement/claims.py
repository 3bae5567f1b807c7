"""A place on a host, taken and given back: conditional updates of the host's row, which hold whoever else decides."""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection

from higgins.control.placement.cores import Nodes, pick
from higgins.control.placement.filters import SLACK, isolated
from higgins.control.placement.needs import Need
from higgins.control.settings import Settings
from higgins.store.bulk import encoded, one_of, rows
from higgins.store.schema import core, share
from higgins.store.schema import host as host_table

#: ``tenant`` of a host with workloads of several projects.
SEVERAL = ""


class RoomNeeded(Exception):
    """A host has room, but less of it is held at Placement than is to be claimed; see ``sharing``."""

    def __init__(self, host_id: int, cpu: float, memory: int, disk: int) -> None:
        super().__init__(host_id, cpu, memory, disk)
        self.host_id, self.cpu, self.memory, self.disk = host_id, cpu, memory, disk


def held(settings: Settings, *, cpu: float, memory: int, disk: int) -> list[sa.ColumnElement[bool]]:
    """That so much more may be claimed of what is held of a host, where hosts are shared."""
    return [] if settings.placement_steps is None else _within_held(cpu, memory, disk)


def _within_held(cpu: Any, memory: Any, disk: Any) -> list[sa.ColumnElement[bool]]:
    t = host_table.c
    return [
        t.cpu_used + cpu <= sa.func.coalesce(t.held_cpu, 0) + SLACK,
        t.memory_used + memory <= sa.func.coalesce(t.held_memory, 0),
        t.disk_used + disk <= sa.func.coalesce(t.held_disk, 0),
    ]


def need_room(
    conn: Connection, settings: Settings, now: datetime, host_id: int, *, cpu: float, memory: int, disk: int
) -> bool:
    """Whether it is what is held that does not suffice, and no more of it is to be had for a while.

    Raises RoomNeeded where more may be had.
    """
    suffices = held(settings, cpu=cpu, memory=memory, disk=disk)
    mine = sa.select(host_table.c.id).where(host_table.c.id == host_id)
    if not suffices or conn.execute(mine.where(*suffices)).first() is not None:
        return False
    refused = sa.select(share.c.id).where(share.c.host_id == host_id, share.c.refused_until > now)
    if conn.execute(refused).first() is None:
        raise RoomNeeded(host_id, cpu, memory, disk)
    return True


_TENANT = sa.bindparam("project", type_=host_table.c.tenant.type)
#: In this order, since MariaDB's later assignments see what the earlier ones have set.
_SUMS = [
    (host_table.c[name], host_table.c[name] + sa.bindparam(f"more_{name}"))
    for name in ("cpu_used", "memory_used", "disk_used", "cores_used", "containers")
]


Ratios = tuple[float, float, float]  # of cpu, memory and disk


@lru_cache(maxsize=64)
def _claim(
    ratios: Ratios, apart: tuple[str, ...], *, shared: bool, cores: bool, isolated: bool, held: bool
) -> sa.Update:
    """Pure: the conditional update. ``apart`` are the projects that share hosts with no other, of which this is one if
    it is ``isolated``; ``held``: within what Placement knows of."""
    t = host_table.c
    memory: sa.BindParameter[int] = sa.bindparam("more_memory_used")
    disk: sa.BindParameter[int] = sa.bindparam("more_disk_used")
    conditions = [t.id == sa.bindparam("number"), *_alive(), *_fits(ratios, memory, disk)]
    if held:
        conditions += _within_held(*(sa.bindparam(f"more_{name}") for name in ("cpu_used", "memory_used", "disk_used")))
    if shared:
        conditions.append(_fits_cpu(ratios, sa.bindparam("shared", type_=t.cpu_used.type)))
    if cores:
        conditions.append(t.cores_used + sa.bindparam("more_cores_used") <= t.cores)
    if set(apart) - {"none"}:
        company = [t.containers == 0, t.tenant == _TENANT]
        if not isolated:
            company.append(t.tenant.not_in(apart))
        conditions.append(sa.or_(*company))
    tenant = sa.case((sa.or_(t.containers == 0, t.tenant == _TENANT), _TENANT), else_=SEVERAL)
    return sa.update(host_table).where(*conditions).ordered_values((t.tenant, tenant), *_SUMS)


def _alive() -> list[sa.ColumnElement[bool]]:
    t = host_table.c
    return [sa.not_(t.disabled), sa.not_(t.draining), sa.not_(t.forced_down), t.seen_at >= sa.bindparam("since")]


def _fits(ratios: Ratios, memory: Any, disk: Any) -> list[sa.ColumnElement[bool]]:
    t = host_table.c
    return [t.memory_used + memory <= t.memory * ratios[1], t.disk_used + disk <= t.disk * ratios[2]]


def _fits_cpu(ratios: Ratios, shared: Any) -> sa.ColumnElement[bool]:
    t = host_table.c
    fits: sa.ColumnElement[bool] = t.cpu_used - t.cores_used + shared <= (t.cpus - t.cores) * ratios[0] + SLACK
    return fits


class Share(Struct, frozen=True, kw_only=True):
    """What several workloads without dedicated cores take of one host together.

    ``project`` is theirs, "" if they are of several; ``isolated`` if it shares its hosts with no other.
    """

    id: int
    cpu: float
    memory: int
    disk: int
    containers: int
    project: str
    isolated: bool


def share_of(host_id: int, needs: list[Need], settings: Settings) -> Share:
    """Pure: what these take together; those of one host suit each other."""
    projects = {need.project for need in needs}
    project = projects.pop() if len(projects) == 1 else SEVERAL
    return Share(
        id=host_id, cpu=sum(need.cpu for need in needs), memory=sum(need.memory for need in needs),
        disk=sum(need.disk for need in needs), containers=len(needs), project=project,
        isolated=isolated(settings, project),
    )  # fmt: skip


#: The hosts ``ids`` whose rows no other transaction holds now: these are held.
_HELD = (
    sa.select(host_table.c.id)
    .where(host_table.c.id == one_of("ids", host_table.c.id))
    .with_for_update(key_share=True, skip_locked=True)
    .cte("held")
)


def claimed(settings: Settings) -> sa.CTE:
    """Part of a statement, on PostgreSQL: takes what is needed of many hosts; the numbers of those where it is had.

    It waits for nobody: a host whose row another transaction holds now is one that cannot be had. So two that each want
    what the other one holds never meet. The hosts' revisions are raised, since they are held to the end.
    """
    return _claimed(_ratios(settings), settings.tenant_isolation)


@lru_cache(maxsize=8)
def _claimed(ratios: Ratios, apart: tuple[str, ...]) -> sa.CTE:
    """Pure: the conditional update of many hosts."""
    t = host_table.c
    kinds = {name: t[f"{name}_used"].type for name in ("cpu", "memory", "disk")}
    given = rows({"id": t.id.type, **kinds, "containers": t.containers.type, "project": t.tenant.type,
                  "isolated": t.disabled.type}, "shares").c  # fmt: skip
    cpu = sa.or_(given.cpu <= 0, _fits_cpu(ratios, given.cpu))
    conditions = [
        t.id == given.id, t.id == _HELD.c.id, *_alive(), *_fits(ratios, given.memory, given.disk), cpu
    ]  # fmt: skip
    mine = t.tenant == given.project
    if set(apart) - {"none"}:
        conditions.append(sa.or_(t.containers == 0, mine, sa.not_(given.isolated) & t.tenant.not_in(apart)))
    sums = {column: column + given[name] for column, name in (
        (t.cpu_used, "cpu"), (t.memory_used, "memory"), (t.disk_used, "disk"), (t.containers, "containers")
    )}  # fmt: skip
    tenant = sa.case((sa.or_(t.containers == 0, mine), given.project), else_=SEVERAL)
    update = sa.update(host_table).where(*conditions).values({**sums, t.tenant: tenant, t.revision: t.revision + 1})
    return update.returning(t.id).cte("claimed")


def shares_taken(shares: list[Share], settings: Settings, now: datetime) -> dict[str, Any]:
    """The arguments of a statement that ``claimed`` is part of."""
    since = now - timedelta(seconds=settings.host_lease)
    return {"ids": [share.id for share in shares], "since": since, **encoded(shares, "shares")}


def _ratios(settings: Settings) -> Ratios:
    return settings.cpu_allocation_ratio, settings.memory_allocation_ratio, settings.disk_allocation_ratio


_RELEASE = (
    sa.update(host_table)
    .where(host_table.c.id == sa.bindparam("number"))
    .ordered_values(
        (host_table.c.tenant, sa.case((host_table.c.containers <= 1, sa.null()), else_=host_table.c.tenant)), *_SUMS
    )
)


def claim(conn: Connection, host_id: int, need: Need, settings: Settings, now: datetime) -> bool:
    """Take what is needed from the host; False if somebody else was faster and it cannot be had any more."""
    shared = need.cpu - need.cores
    update = _claim(
        _ratios(settings),
        settings.tenant_isolation,
        shared=shared > 0,
        cores=need.cores > 0,
        isolated=isolated(settings, need.project),
        held=settings.placement_steps is not None,
    )
    values = {"project": need.project, "since": now - timedelta(seconds=settings.host_lease)}
    if shared > 0:
        values["shared"] = shared
    values |= _more(host_id, need.cpu, need.memory, need.disk, need.cores, sign=1)
    return conn.execute(update, values).rowcount == 1


def release(conn: Connection, host_id: int, *, cpu: float, memory: int, disk: int, cores: int = 0) -> None:
    """Give back what was claimed. With its last workload a host is free for any project again."""
    conn.execute(_RELEASE, _more(host_id, cpu, memory, disk, cores, sign=-1))


def _more(host_id: int, cpu: float, memory: int, disk: int, cores: int, *, sign: int) -> dict[str, Any]:
    return {
        "number": host_id,
        "more_cpu_used": sign * cpu,
        "more_memory_used": sign * memory,
        "more_disk_used": sign * disk,
        "more_cores_used": sign * cores,
        "more_containers": sign,
    }


def free_cores(conn: Connection, host_id: int, nodes: Nodes, count: int) -> tuple[int, ...] | None:
    """Cores of a host that nobody has, once it was claimed: its row is held, so nobody else chooses there now."""
    taken = frozenset(conn.execute(sa.select(core.c.number).where(core.c.host_id == host_id)).scalars())
    return pick(nodes, taken, count)


def take_cores(conn: Connection, host_id: int, workload_id: int, numbers: tuple[int, ...]) -> None:
    if numbers:
        rows = [{"host_id": host_id, "number": number, "workload_id": workload_id} for number in numbers]
        conn.execute(sa.insert(core), rows)


def give_cores(conn: Connection, host_id: int, workload_id: int) -> int:
    """Give back the cores that a workload has to itself on a host; how many these were."""
    gone = sa.delete(core).where(core.c.host_id == host_id, core.c.workload_id == workload_id)
    return conn.execute(gone).rowcount
