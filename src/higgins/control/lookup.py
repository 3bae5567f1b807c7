"""Finding containers: one by uuid or name, many by page."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor
from higgins.control.query import ListQuery
from higgins.control.rows import WITH_WORKLOAD, Listed, listed
from higgins.model.errors import Conflict, Invalid, InvalidSortKey, NotFound
from higgins.store.schema import container, workload

R = TypeVar("R")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

#: What a list of containers can be sorted and filtered by.
SORT_KEYS = frozenset(
    {"id", "uuid", "name", "project_id", "user_id", "image", "status", "task_state", "memory", "host", "created_at",
     "updated_at", "auto_remove"}
)  # fmt: skip
FILTERS = frozenset({"name", "image", "project_id", "user_id", "memory", "host", "task_state", "status", "auto_remove"})


_FOUND = sa.select(
    container,
    workload.c.uuid.label("workload_uuid"),
    workload.c.generation,
    workload.c.host_id,
    workload.c.next_host_id,
    workload.c.deleting,
    workload.c.kind,
).join(workload, workload.c.id == container.c.workload_id)
_SHOWN = _FOUND.with_only_columns(*WITH_WORKLOAD)


@lru_cache
def _by_name(found: sa.Select[Any]) -> sa.Select[Any]:
    return found.where(
        container.c.project_id == sa.bindparam("project_id"),
        container.c.role == "plain",
        container.c.name == sa.bindparam("ident"),
    ).limit(2)


@lru_cache
def _by_uuid(found: sa.Select[Any], *, every: bool, members: bool) -> sa.Select[Any]:
    """Pure: the query for a container by its uuid, in ``every`` project or one, capsules' ``members`` too or not."""
    query = found.where(container.c.uuid == sa.bindparam("ident"))
    if not every:
        query = query.where(container.c.project_id == sa.bindparam("project_id"))
    return query if members else query.where(container.c.role == "plain")


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def by_uuid(
    conn: Connection, table: sa.Table, actor: Actor, ident: str, *conditions: sa.ColumnElement[bool]
) -> Row[Any] | None:
    """The row of a noun by its uuid, in the own project or, for an administrator, in any; None where it is no such."""
    if not is_uuid(ident):
        return None
    query = sa.select(table).where(table.c.uuid == ident, *conditions)
    if not actor.is_admin:
        query = query.where(table.c.project_id == actor.project_id)
    return conn.execute(query).one_or_none()


def container_row(conn: Connection, actor: Actor, ident: str, *, members: bool = False) -> Row[Any]:
    """The row of a container, with its workload's: by uuid (an administrator sees every project's), else by name.

    ``members`` lets a capsule's member be found by its uuid too. Raises NotFound, or Conflict for a name that two bear.
    """
    return _one(lambda query, wanted: conn.execute(query, wanted).all(), _FOUND, actor, ident, members=members)


def shown_row(conn: Connection, actor: Actor, ident: str) -> Listed:
    """The same, capsules' members too, of no more columns than ``rows.listed_of`` takes."""
    return _one(lambda query, wanted: list(listed(conn, query, wanted)), _SHOWN, actor, ident, members=True)


def _one(
    read: Callable[[sa.Select[Any], dict[str, Any]], Sequence[R]],
    found: sa.Select[Any],
    actor: Actor,
    ident: str,
    *,
    members: bool,
) -> R:
    wanted = {"ident": ident, "project_id": actor.project_id}
    if is_uuid(ident):
        for row in read(_by_uuid(found, every=actor.is_admin, members=members), wanted):
            return row
    rows = read(_by_name(found), wanted)
    if len(rows) > 1:
        raise Conflict(f"Several containers have the name {ident}; use the uuid.")
    if not rows:
        raise NotFound("container", ident)
    return rows[0]


def workload_row(conn: Connection, actor: Actor, ident: str, kind: str) -> Row[Any]:
    """A workload of this kind by uuid or name; raises as ``container_row``."""
    row = by_uuid(conn, workload, actor, ident, workload.c.kind == kind)
    if row is not None:
        return row
    query = sa.select(workload).where(workload.c.kind == kind)
    rows = conn.execute(query.where(workload.c.project_id == actor.project_id, workload.c.name == ident).limit(2)).all()
    if len(rows) > 1:
        raise Conflict(f"Several capsules have the name {ident}; use the uuid.")
    if not rows:
        # Zun answers "container not found" for capsules too, and clients look for that.
        raise NotFound("container", ident)
    return rows[0]


def held(conn: Connection, row: Row[Any]) -> Row[Any]:
    """The workload's row as it is once nobody else changes it, held until the transaction ends. Raises NotFound."""
    query = sa.select(workload).where(workload.c.id == row.id).with_for_update()
    fresh = conn.execute(query).one_or_none()
    if fresh is None:
        raise NotFound("container", row.uuid)
    return fresh


def page(
    table: sa.Table,
    query: ListQuery,
    sort_keys: frozenset[str],
    conn: Connection,
    kind: str,
    *,
    project: Any = None,
) -> tuple[list[Any], list[Any]]:
    """The conditions and the order of a page after its marker, of one ``project`` (its id, or an argument) or of all.

    Raises NotFound for an unknown marker, and for one of another project.

    Sorted by another key than ``id`` the place of the marker is (key, id), nulls first, so that equal keys keep apart.
    It is told so that every database finds it in an index of the key, where there is one.
    """
    if query.sort_key not in sort_keys:
        raise InvalidSortKey(f"sort_key: {query.sort_key} is not one of {', '.join(sorted(sort_keys))}.")
    ids = table.c.id
    key = table.c[query.sort_key]
    descending = query.sort_dir == "desc"
    conditions: list[Any] = [] if project is None else [table.c.project_id == project]
    if query.marker is not None:
        marker = sa.select(ids, key.label("sort_value")).where(table.c.uuid == query.marker, *conditions)
        row = conn.execute(marker).one_or_none()
        if row is None:
            raise NotFound(kind, query.marker)
        beyond = ids < row.id if descending else ids > row.id
        value = sa.literal(row.sort_value, key.type)
        if query.sort_key == "id":
            conditions.append(beyond)
        elif not key.nullable:
            conditions += [key <= value if descending else key >= value, sa.or_(key != value, beyond)]
        elif row.sort_value is None:
            conditions.append(
                sa.and_(key.is_(None), beyond)
                if descending
                else sa.or_(key.is_not(None), sa.and_(key.is_(None), beyond))
            )
        elif descending:
            conditions.append(sa.or_(key < value, key.is_(None), sa.and_(key == value, beyond)))
        else:
            conditions.append(sa.or_(key > value, sa.and_(key == value, beyond)))
    if query.sort_key == "id":
        return conditions, [ids.desc() if descending else ids]
    if not key.nullable:
        return conditions, [key.desc(), ids.desc()] if descending else [key, ids]
    nulls_last = sa.case((key.is_(None), 1), else_=0)
    if descending:
        return conditions, [nulls_last, key.desc(), ids.desc()]
    return conditions, [nulls_last.desc(), key, ids]


def filter_conditions(query: ListQuery) -> list[sa.ColumnElement[bool]]:
    """What holds of those that a list is asked for; its arguments are ``filter_values``. Raises Invalid."""
    unknown = sorted(query.filters.keys() - FILTERS)
    if unknown:
        raise Invalid(f"Unknown parameters: {unknown[0]}")
    return [container.c[name] == sa.bindparam(f"wanted_{name}") for name in query.filters]


def filter_values(query: ListQuery) -> dict[str, Any]:
    """What the filters of a list of containers compare with. Raises Invalid."""
    values: dict[str, Any] = {f"wanted_{name}": value for name, value in query.filters.items()}
    memory = query.filters.get("memory")
    if memory is not None:
        if not str(memory).isascii() or not str(memory).isdigit() or len(str(memory)) > 9:
            raise Invalid(f"memory: {memory} is not a number of MiB.")
        values["wanted_memory"] = int(memory)
    return values
