"""What was asked of a container, by whom, and how it ended."""

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.control.lookup import container_row
from higgins.model.errors import NotFound
from higgins.model.resources import Action
from higgins.store.schema import action

_LIMIT = 1000


def _of(row: Row[tuple[object, ...]]) -> Action:
    return Action(**{name: getattr(row, name) for name in Action.__struct_fields__})


async def find(cloud: Cloud, actor: Actor, ident: str) -> list[Action]:
    """The newest thousand actions of a container, newest first."""

    def work(conn: Connection) -> list[Action]:
        row = container_row(conn, actor, ident, members=True)
        query = sa.select(action).where(action.c.container_uuid.in_([row.uuid, row.workload_uuid]))
        return [_of(one) for one in conn.execute(query.order_by(action.c.id.desc()).limit(_LIMIT)).all()]

    return await cloud.store.read(work)


async def get(cloud: Cloud, actor: Actor, ident: str, request_id: str) -> Action:
    """The action of one request."""

    def work(conn: Connection) -> Action:
        row = container_row(conn, actor, ident, members=True)
        query = sa.select(action).where(
            action.c.container_uuid.in_([row.uuid, row.workload_uuid]), action.c.request_id == request_id
        )
        found = conn.execute(query.order_by(action.c.id)).first()
        if found is None:
            raise NotFound("action", request_id)
        return _of(found)

    return await cloud.store.read(work)
