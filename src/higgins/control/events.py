"""Changes of status as a stream that can be taken up again where it broke off.

Events are numbered when they are written and seen when their transaction is committed, so on a database server number
7 may be seen before number 6. A stream therefore looks back for as long as a transaction may take.
"""

import asyncio
from collections import deque
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
#: Seconds after which no transaction can be under way any more that wrote an event with a number below one seen.
_SETTLED = 30.0


class Tail:
    """How far a stream has come: all up to ``floor`` is over, and of what is above, ``given`` was given already."""

    def __init__(self, since: int) -> None:
        self.floor = since
        self.given: set[int] = set()
        self._marks: deque[tuple[float, int]] = deque()

    def took(self, numbers: list[int], now: float) -> None:
        """These were given at this time (seconds of any steady clock)."""
        if numbers:
            self.given.update(numbers)
            self._marks.append((now, max(numbers)))
        while self._marks and now - self._marks[0][0] > _SETTLED:
            self.floor = max(self.floor, self._marks.popleft()[1])
            self.given = {number for number in self.given if number > self.floor}


async def stream(
    cloud: Cloud, actor: Actor, since: int | None, *, all_projects: bool = False
) -> AsyncIterator[ChangeEvent | None]:
    """Events after number ``since`` (from now on without one) of the project; None when nothing came for a while."""
    if since is None:
        since = await cloud.store.read(lambda conn: conn.execute(sa.select(sa.func.max(event.c.id))).scalar()) or 0
    tail = Tail(since)
    with cloud.store.wakeups.listen("events") as listener:
        while True:
            rows = await cloud.store.read(lambda conn: _after(conn, actor, tail, all_projects))
            for row in rows:
                yield row
            tail.took([row.id for row in rows], asyncio.get_running_loop().time())
            if len(rows) < _PAGE and not await listener.wait(HEARTBEAT):
                yield None


def _after(conn: Connection, actor: Actor, tail: Tail, all_projects: bool) -> list[ChangeEvent]:
    mine = [] if all_projects and actor.is_admin else [event.c.project_id == actor.project_id]
    above = sa.select(event.c.id).where(event.c.id > tail.floor, *mine).order_by(event.c.id)
    numbers = conn.execute(above.limit(_PAGE + len(tail.given))).scalars()
    fresh = [number for number in numbers if number not in tail.given][:_PAGE]
    if not fresh:
        return []
    query = sa.select(*_COLUMNS).where(event.c.id.in_(fresh)).order_by(event.c.id)
    return [ChangeEvent(**row._mapping) for row in conn.execute(query)]
