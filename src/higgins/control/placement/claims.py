"""A place on a host, taken and given back: conditional updates of the host's row, which hold whoever else decides."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control.cloud import Settings
from higgins.control.placement.cores import Nodes, pick
from higgins.control.placement.filters import SLACK, isolated
from higgins.control.placement.needs import Need
from higgins.store.schema import core
from higgins.store.schema import host as host_table

#: ``tenant`` of a host with workloads of several projects.
SEVERAL = ""


def claim(conn: Connection, host_id: int, need: Need, settings: Settings) -> bool:
    """Take what is needed from the host; False if somebody else was faster and it cannot be had any more."""
    t = host_table.c
    shared = need.cpu - need.cores
    conditions = [
        t.id == host_id,
        sa.not_(t.disabled),
        sa.not_(t.draining),
        sa.not_(t.forced_down),
        t.memory_used + need.memory <= t.memory * settings.memory_allocation_ratio,
        t.disk_used + need.disk <= t.disk * settings.disk_allocation_ratio,
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
