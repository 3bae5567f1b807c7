"""Changes of status as a stream that can be taken up again where it broke off."""

from collections.abc import AsyncIterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.model.resources import ChangeEvent
from higgins.store.schema import event

_COLUMNS = [event.c[name] for name in ChangeEvent.__struct_fields__]
_PAGE = 500
#: Seconds after which a silent stream says so, and looks for what another replica wrote.
HEARTBEAT = 15.0


async def stream(
    cloud: Cloud, actor: Actor, since: int | None, *, all_projects: bool = False
) -> AsyncIterator[ChangeEvent | None]:
    """Events after number ``since`` (from now on without one) of the project; None when nothing came for a while."""
    if since is None:
        since = await cloud.store.read(lambda conn: conn.execute(sa.select(sa.func.max(event.c.id))).scalar()) or 0
    with cloud.store.wakeups.listen("events") as listener:
        while True:
            rows = await cloud.store.read(lambda conn, after=since: _after(conn, actor, after, all_projects))  # type: ignore[misc]
            for row in rows:
                yield row
                since = row.id
            if len(rows) < _PAGE and not await listener.wait(HEARTBEAT):
                yield None


def _after(conn: Connection, actor: Actor, since: int, all_projects: bool) -> list[ChangeEvent]:
    query = sa.select(*_COLUMNS).where(event.c.id > since).order_by(event.c.id).limit(_PAGE)
    if not (all_projects and actor.is_admin):
        query = query.where(event.c.project_id == actor.project_id)
    return [ChangeEvent(**row._mapping) for row in conn.execute(query)]
