"""A place on a host, taken and given back: conditional updates of the host's row, which hold whoever else decides."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control.cloud import Settings
from higgins.control.placement.cores import Nodes, pick
from higgins.control.placement.filters import SLACK, isolated
from higgins.control.placement.needs import Need
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
    if settings.placement_steps is None:
        return []
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


def claim(conn: Connection, host_id: int, need: Need, settings: Settings, now: datetime) -> bool:
    """Take what is needed from the host; False if somebody else was faster and it cannot be had any more."""
    t = host_table.c
    shared = need.cpu - need.cores
    conditions = [
        t.id == host_id,
        sa.not_(t.disabled),
        sa.not_(t.draining),
        sa.not_(t.forced_down),
        t.seen_at >= now - timedelta(seconds=settings.host_lease),
        t.memory_used + need.memory <= t.memory * settings.memory_allocation_ratio,
        t.disk_used + need.disk <= t.disk * settings.disk_allocation_ratio,
        *held(settings, cpu=need.cpu, memory=need.memory, disk=need.disk),
    ]
    if shared > 0:
        room = (t.cpus - t.cores) * settings.cpu_allocation_ratio + SLACK
        conditions.append(t.cpu_used - t.cores_used + shared <= room)
    if need.cores:
        conditions.append(t.cores_used + need.cores <= t.cores)
    if set(settings.tenant_isolation) - {"none"}:
        company = [t.containers == 0, t.tenant == need.project]
        if not isolated(settings, need.project):
            company.append(t.tenant.not_in(settings.tenant_isolation))
        conditions.append(sa.or_(*company))
    tenant = sa.case((sa.or_(t.containers == 0, t.tenant == need.project), need.project), else_=SEVERAL)
    sums = _sums(need.cpu, need.memory, need.disk, need.cores, sign=1)
    # In this order, since MariaDB's later assignments see what the earlier ones have set.
    update = sa.update(host_table).where(*conditions).ordered_values((t.tenant, tenant), *sums)
    return conn.execute(update).rowcount == 1


def release(conn: Connection, host_id: int, *, cpu: float, memory: int, disk: int, cores: int = 0) -> None:
    """Give back what was claimed. With its last workload a host is free for any project again."""
    t = host_table.c
    tenant = sa.case((t.containers <= 1, sa.null()), else_=t.tenant)
    sums = _sums(cpu, memory, disk, cores, sign=-1)
    conn.execute(sa.update(host_table).where(t.id == host_id).ordered_values((t.tenant, tenant), *sums))


def _sums(cpu: float, memory: int, disk: int, cores: int, *, sign: int) -> list[tuple[Any, Any]]:
    t = host_table.c
    return [
        (t.cpu_used, t.cpu_used + sign * cpu),
        (t.memory_used, t.memory_used + sign * memory),
        (t.disk_used, t.disk_used + sign * disk),
        (t.cores_used, t.cores_used + sign * cores),
        (t.containers, t.containers + sign),
    ]


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
