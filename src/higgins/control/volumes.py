"""Volumes that a project keeps, as it asks for them."""

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import quotas
from higgins.control.cloud import Actor, Cloud
from higgins.control.lookup import is_uuid, page
from higgins.control.query import ListQuery
from higgins.model.errors import Conflict, NotFound
from higgins.model.resources import Volume
from higgins.store.database import touch_host
from higgins.store.schema import container, volume

_COLUMNS = [volume.c[name] for name in Volume.__struct_fields__]
#: Those that go with a container, and files, are part of the container; Cinder tells of its own.
_KEPT = (
    volume.c.workload_id.is_(None), volume.c.content.is_(None), volume.c.driver == "local", sa.not_(volume.c.deleting)
)  # fmt: skip


async def find(cloud: Cloud, actor: Actor, query: ListQuery) -> list[Volume]:
    """A page of the volumes that the project keeps (of all projects' for an administrator who asks for that)."""

    def work(conn: Connection) -> list[Volume]:
        project = None if query.all_projects and actor.is_admin else actor.project_id
        conditions, order = page(volume, query, frozenset({"id", "name", "size"}), conn, "volume", project=project)
        rows = conn.execute(sa.select(*_COLUMNS).where(*_KEPT, *conditions).order_by(*order).limit(query.limit))
        return [Volume(**row._mapping) for row in rows]

    return await cloud.store.read(work)


async def delete(cloud: Cloud, actor: Actor, ident: str) -> None:
    """Give up a volume by uuid or name, and with it its data. Conflict while a container uses it.

    An administrator may name any by uuid.
    """

    def work(conn: Connection) -> None:
        project_id = _find(conn, actor, ident).project_id
        quotas.hold(conn, project_id)  # whoever makes a container with it does so before this, or misses it
        row = _find(conn, actor, ident)
        used = sa.select(container.c.uuid).where(
            container.c.project_id == project_id, container.c.spec.contains(f'"volume":"{row.uuid}"')
        )
        user = conn.execute(used.limit(1)).scalar()
        if user is not None:
            raise Conflict(f"Volume {ident} is in use by container {user}.")
        quotas.charge(conn, cloud, project_id, containers=0, cpu=0, memory=0, disk=-row.size)
        if row.host_id is None:
            conn.execute(sa.delete(volume).where(volume.c.id == row.id))
            return
        gone = {"deleting": True, "name": None, "updated_at": cloud.now()}
        conn.execute(sa.update(volume).where(volume.c.id == row.id).values(gone))
        touch_host(conn, row.host_id)

    await cloud.store.write(work)


def _find(conn: Connection, actor: Actor, ident: str) -> Row[tuple[object, ...]]:
    query = sa.select(volume).where(*_KEPT)
    mine = volume.c.project_id == actor.project_id
    found = [query.where(mine, volume.c.name == ident)]
    if is_uuid(ident):
        found.insert(0, query.where(volume.c.uuid == ident, sa.true() if actor.is_admin else mine))
    for one in found:
        row = conn.execute(one).one_or_none()
        if row is not None:
            return row
    raise NotFound("volume", ident)
