"""What a project may use. A limit of -1 is no limit.

The usage row of a project is raised in the transaction that makes the container and compared afterwards: the update
locks the row, so that of a hundred creates at once exactly as many pass as fit, on any database.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import sharing
from higgins.control.cloud import Cloud
from higgins.control.settings import Settings
from higgins.model.errors import NotImplementedHere, OverQuota
from higgins.model.limits import Limits, LimitsUnknown
from higgins.store.bulk import one_of
from higgins.store.schema import project, quota, quota_class
from higgins.store.transactions import insert_missing

T = TypeVar("T")

RESOURCES = ("containers", "memory", "cpu", "disk")


_COUNTED = project.c["containers", "cpu", "memory", "disk"]
_USED = sa.select(project).where(project.c.id == sa.bindparam("project_id"))
_HELD = _USED.with_for_update()
#: What follows in the transaction is planned once, and not for its arguments each time: to plan what a create has to
#: know takes longer than to answer it.
_PLANNED_ONCE = sa.func.set_config(*map(sa.literal_column, ("'plan_cache_mode'", "'force_generic_plan'", "true")))
_HELD_ALL = (
    sa.select(project, _PLANNED_ONCE)
    .where(project.c.id == one_of("ids", project.c.id))
    .order_by(project.c.id)
    .with_for_update()
)
_CHARGE = (
    sa.update(project)
    .where(project.c.id == sa.bindparam("project_id"))
    .values({column: column + sa.bindparam(f"added_{name}") for name, column in _COUNTED.items()})
)


class Limit(Struct, frozen=True):
    """A row of ``LIMITS``. ``project`` is "" for those of the class ``default``."""

    project: str
    resource: str
    hard_limit: int


def _limits_in(projects: sa.ColumnElement[bool]) -> sa.CompoundSelect[Any]:
    """The class's first, since the project's own go before them."""
    of_class = quota_class.c.class_name == "default"
    return sa.union_all(
        sa.select(sa.literal("").label("project"), quota_class.c.resource, quota_class.c.hard_limit).where(of_class),
        sa.select(quota.c.project_id, quota.c.resource, quota.c.hard_limit).where(projects),
    )


_LIMITS = _limits_in(quota.c.project_id == sa.bindparam("project_id"))
#: Of the projects in the list ``projects``, on PostgreSQL.
LIMITS = _limits_in(quota.c.project_id == one_of("projects", quota.c.project_id))


def limits(conn: Connection, cloud: Cloud, project_id: str) -> dict[str, int]:
    """The limits in force: the project's own, else the class ``default``, else the configuration's.

    Where they are kept elsewhere (``cloud.limits``), what is known of them; raises LimitsUnknown, see ``write``.
    """
    if cloud.limits is not None:
        return cloud.limits.known(project_id)
    rows = conn.execute(_LIMITS, {"project_id": project_id})
    found = [Limit(row.project, row.resource, row.hard_limit) for row in rows]
    return _in_force(cloud.settings, found, project_id)


def _in_force(settings: Settings, found: list[Limit], project_id: str) -> dict[str, int]:
    """Pure: the limits of a project, of those that the database keeps."""
    bounds = dict(settings.quota)
    for one in found:
        if one.project in ("", project_id):
            bounds[one.resource] = one.hard_limit
    return bounds


def defaults_of(conn: Connection, settings: Settings, class_name: str = "default") -> dict[str, int]:
    rows = conn.execute(
        sa.select(quota_class.c.resource, quota_class.c.hard_limit).where(quota_class.c.class_name == class_name)
    ).all()
    return {**settings.quota, **dict(rows)}


def hold(conn: Connection, project_id: str) -> Row[Any]:
    """Hold the project's row until the transaction ends, and give it: creates in one project are one after the other.

    So each sees the networks, addresses and volumes of the one before. On a Galera cluster this holds back those of the
    same node; those of another node lose when they are certified, since both charge the project, and run again.
    """
    row = conn.execute(_HELD, {"project_id": project_id}).one_or_none()
    if row is None:
        _make(conn, project_id)
        row = conn.execute(_HELD, {"project_id": project_id}).one()
    return row


def hold_all(conn: Connection, project_ids: list[str]) -> dict[str, Row[Any]]:
    """Hold the rows of several projects, on PostgreSQL; in order, so that no two hold what the other one wants."""
    wanted = sorted(set(project_ids))
    found = {row.id: row for row in conn.execute(_HELD_ALL, {"ids": wanted})}
    missing = [one for one in wanted if one not in found]
    for project_id in missing:
        found[project_id] = hold(conn, project_id)
    return found


def hold_names(conn: Connection, project_id: str) -> None:
    """Whoever takes a name that must be unique does so after whoever took one before; "" stands for all projects.

    An update that changes the row, since a Galera cluster compares what was written, not what was locked.
    """
    update = sa.update(project).where(project.c.id == project_id).values(names=project.c.names + 1)
    if conn.execute(update).rowcount == 0:
        _make(conn, project_id)
        conn.execute(update)


def _make(conn: Connection, project_id: str) -> None:
    insert_missing(conn, project, id=project_id, containers=0, cpu=0, memory=0, disk=0, names=0)


def charge(
    conn: Connection,
    cloud: Cloud,
    project_id: str,
    *,
    containers: int,
    cpu: float,
    memory: int,
    disk: int,
    held: Row[Any] | None = None,
) -> None:
    """Add to what the project uses (negative amounts give back); raises OverQuota where a raised amount is too much.

    Who has ``held`` the project's row and changed nothing of it since gives it, and saves a look.
    """
    added = {"containers": containers, "cpu": cpu, "memory": memory, "disk": disk}
    values = {"project_id": project_id, **{f"added_{name}": amount for name, amount in added.items()}}
    if conn.execute(_CHARGE, values).rowcount == 0:
        _make(conn, project_id)
        conn.execute(_CHARGE, values)
    if all(amount <= 0 for amount in added.values()):
        return
    if held is None:
        used = conn.execute(_USED, {"project_id": project_id}).one()._asdict()
    else:
        used = {name: getattr(held, name) + amount for name, amount in added.items()}
    over = _over(limits(conn, cloud, project_id), used, added)
    if over:
        raise OverQuota(f"Quota exceeded for resources: {over}")


def _over(bounds: dict[str, int], used: Mapping[str, float], added: Mapping[str, float]) -> list[str]:
    """Pure: of what was raised, that of which more is used than may be."""
    return [
        name for name, amount in added.items() if amount > 0 and bounds[name] >= 0 and used[name] > bounds[name] + 1e-6
    ]


class Account:
    """What a project uses, with what one transaction adds to it while it holds the project's row."""

    def __init__(self, held: Row[Any], bounds: dict[str, int]) -> None:
        self._held = held
        self._bounds = bounds
        self._added: dict[str, float] = dict.fromkeys(RESOURCES, 0)

    def affords(self, amounts: Mapping[str, float]) -> bool:
        """Add these, if that is not too much."""
        added = {name: self._added[name] + amount for name, amount in amounts.items()}
        if _over(self._bounds, {name: getattr(self._held, name) + amount for name, amount in added.items()}, amounts):
            return False
        self._added = added
        return True


def accounts(cloud: Cloud, held: Mapping[str, Row[Any]], found: list[Limit]) -> dict[str, Account]:
    """The accounts of projects whose rows are held; without those whose limits are to be learnt first."""
    result: dict[str, Account] = {}
    for one, row in held.items():
        with contextlib.suppress(LimitsUnknown):
            bounds = cloud.limits.known(one) if cloud.limits else _in_force(cloud.settings, found, one)
            result[one] = Account(row, bounds)
    return result


def charged(workloads: sa.FromClause) -> sa.Update:
    """Part of a statement, on PostgreSQL: adds what new workloads with one container each use to their projects."""
    t = workloads.c
    amounts = {"containers": sa.func.count(), **{name: sa.func.sum(t[name]) for name in ("cpu", "memory", "disk")}}
    sums = sa.select(t.project_id, *(amount.label(name) for name, amount in amounts.items()))
    added = sums.group_by(t.project_id).subquery("added")
    values = {project.c[name]: project.c[name] + added.c[name] for name in amounts}
    return sa.update(project).where(project.c.id == added.c.project_id).values(values)


async def _with_limits(limits: Limits | None, run: Callable[[], Awaitable[T]]) -> T:
    """What ``run`` gives once it does not miss limits any more; it is run from the start each time."""
    while True:
        try:
            return await run()
        except LimitsUnknown as unknown:
            if limits is None:
                raise
            await limits.learn(unknown.project_id)


async def write(cloud: Cloud, work: Callable[[Connection], T]) -> T:
    """A transaction of the store that charges a project, or claims a host. It runs again where limits had to be learnt
    first, or more had to be held of a host."""
    return await _with_limits(cloud.limits, lambda: sharing.with_room(cloud, lambda: cloud.store.write(work)))


def _require_own(cloud: Cloud) -> None:
    """Raises NotImplementedHere where the limits are not the database's to change."""
    if cloud.limits is not None:
        raise NotImplementedHere(
            "Limits are kept in Keystone here: openstack limit create, set and delete change them."
        )


async def get(cloud: Cloud, project_id: str) -> dict[str, int]:
    return await _with_limits(cloud.limits, lambda: cloud.store.read(lambda conn: limits(conn, cloud, project_id)))


async def usages(cloud: Cloud, project_id: str) -> dict[str, tuple[int, float]]:
    """Limit and use of each resource."""

    def work(conn: Connection) -> dict[str, tuple[int, float]]:
        bounds = limits(conn, cloud, project_id)
        row: Any = conn.execute(sa.select(project).where(project.c.id == project_id)).one_or_none()
        return {name: (bounds[name], getattr(row, name) if row else 0) for name in RESOURCES}

    return await _with_limits(cloud.limits, lambda: cloud.store.read(work))


async def defaults(cloud: Cloud) -> dict[str, int]:
    if cloud.limits is not None:
        return await cloud.limits.defaults()
    return await cloud.store.read(lambda conn: defaults_of(conn, cloud.settings))


async def update(cloud: Cloud, project_id: str, changes: dict[str, int]) -> dict[str, int]:
    _require_own(cloud)

    def work(conn: Connection) -> dict[str, int]:
        for resource, limit in changes.items():
            key = (quota.c.project_id == project_id) & (quota.c.resource == resource)
            conn.execute(sa.delete(quota).where(key))
            conn.execute(sa.insert(quota).values(project_id=project_id, resource=resource, hard_limit=limit))
        return limits(conn, cloud, project_id)

    return await cloud.store.write(work)


async def delete(cloud: Cloud, project_id: str) -> None:
    """Back to the defaults."""
    _require_own(cloud)
    await cloud.store.write(
        lambda conn: conn.execute(sa.delete(quota).where(quota.c.project_id == project_id)).rowcount
    )


async def class_get(cloud: Cloud, class_name: str) -> dict[str, int]:
    if cloud.limits is not None:
        return await cloud.limits.defaults()
    return await cloud.store.read(lambda conn: defaults_of(conn, cloud.settings, class_name))


async def class_update(cloud: Cloud, class_name: str, changes: dict[str, int]) -> dict[str, int]:
    _require_own(cloud)

    def work(conn: Connection) -> dict[str, int]:
        for resource, limit in changes.items():
            key = (quota_class.c.class_name == class_name) & (quota_class.c.resource == resource)
            conn.execute(sa.delete(quota_class).where(key))
            conn.execute(sa.insert(quota_class).values(class_name=class_name, resource=resource, hard_limit=limit))
        return defaults_of(conn, cloud.settings, class_name)

    return await cloud.store.write(work)
