"""Changes of status as a stream that can be taken up again where it broke off."""

from collections.abc import AsyncIterator
from functools import partial

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.control.feed import COLUMNS, PAGE
from higgins.model.resources import ChangeEvent
from higgins.store.schema import event

#: Seconds after which a silent stream says so, and looks for what another replica wrote.
HEARTBEAT = 15.0


async def newest(cloud: Cloud) -> int:
    """The number of the newest event: a stream since then tells what happens from now on."""
    return await cloud.store.read(lambda conn: conn.execute(sa.select(sa.func.max(event.c.id))).scalar()) or 0


async def stream(
    cloud: Cloud, actor: Actor, since: int, *, all_projects: bool = False
) -> AsyncIterator[ChangeEvent | None]:
    """Events after number ``since`` of the project; None when nothing came for a while.

    Raises Behind where they are taken so slowly that they are not kept any longer. What was there before is read for
    this stream alone, what comes is read once for all of them.
    """
    project = None if all_projects and actor.is_admin else actor.project_id
    with cloud.feed.followed(), cloud.store.wakeups.listen("events") as listener:
        mark = await cloud.feed.mark()
        last, size, given = since, PAGE, set[int]()
        while size == PAGE:
            page = await cloud.store.read(partial(_page, project=project, last=last))
            for row in page:
                yield row
            given.update(row.id for row in page if mark.may_come(row.id))
            last, size = page[-1].id if page else last, len(page)
        taken = mark.count
        while True:
            for row in cloud.feed.after(taken):
                taken += 1
                if (project is None or row.project_id == project) and row.id > since and row.id not in given:
                    yield row
            if not await listener.wait(HEARTBEAT):
                yield None
            await cloud.feed.look()


def _page(conn: Connection, *, project: str | None, last: int) -> list[ChangeEvent]:
    query = sa.select(*COLUMNS).where(event.c.id > last)
    if project is not None:
        query = query.where(event.c.project_id == project)
    return [ChangeEvent(**row._mapping) for row in conn.execute(query.order_by(event.c.id).limit(PAGE))]
