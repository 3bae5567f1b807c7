"""The newest events of all projects, read once for all who follow them in this process, however many they are.

Events are numbered when they are written and seen when their transaction is committed, so on a database server number
7 may be seen before number 6. The feed therefore looks back for as long as a transaction may take.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection

from higgins.model.errors import HigginsError
from higgins.model.resources import ChangeEvent
from higgins.store.database import Store
from higgins.store.schema import event

COLUMNS = [event.c[name] for name in ChangeEvent.__struct_fields__]
PAGE = 500
#: Seconds after which no transaction can be under way any more that wrote an event with a number below one seen.
_SETTLED = 30.0
#: Events that are kept for those who are slow to take them.
_KEPT = 10_000

_ABOVE = sa.select(event.c.id).where(event.c.id > sa.bindparam("floor")).order_by(event.c.id)
_THESE = sa.select(*COLUMNS).where(event.c.id.in_(sa.bindparam("numbers", expanding=True))).order_by(event.c.id)
_OLD = sa.select(event.c.id).where(event.c.at < sa.bindparam("moment")).order_by(event.c.at.desc()).limit(1)


class Behind(HigginsError):
    """A stream is so far behind that what it has not taken is not kept any more; it can be taken up again."""


class Tail:
    """How far a feed has come: all up to ``floor`` is over, and of what is above, ``given`` was given already."""

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


def fresh(conn: Connection, tail: Tail) -> list[ChangeEvent]:
    """What is committed now and was not given yet, a page at most."""
    found = conn.execute(_ABOVE.limit(PAGE + len(tail.given)), {"floor": tail.floor}).scalars()
    numbers = [number for number in found if number not in tail.given][:PAGE]
    if not numbers:
        return []
    return [ChangeEvent(**row._mapping) for row in conn.execute(_THESE, {"numbers": numbers})]


class Mark(Struct, frozen=True):
    """A moment of the feed: so many had arrived; below ``floor`` none comes any more, and of those above these had."""

    count: int
    floor: int
    known: frozenset[int]

    def may_come(self, number: int) -> bool:
        """Whether the event of this number may arrive later."""
        return number > self.floor and number not in self.known


class Feed:
    """What arrives is counted from the start of the process; a follower remembers up to which number it has taken.

    In the event loop, but for the looks themselves, of which there is never more than one.
    """

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now
        self._tail: Tail | None = None
        self._arrived: deque[ChangeEvent] = deque(maxlen=_KEPT)
        self._count = 0
        self._followers = 0
        self._look: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """While somebody follows. What arrives while nobody does is not kept."""
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers:
                self._tail = None
                self._arrived.clear()

    async def mark(self) -> Mark:
        """See all that was committed before this was called, and where the feed is then. Raises as ``Store.read``."""
        await self.look()
        tail = self._tail or Tail(0)
        return Mark(self._count, tail.floor, frozenset(tail.given))

    async def look(self) -> None:
        """See all that was committed before this was called. Raises as ``Store.read``.

        Who calls while a look is under way waits for the one after it, together with all others who do.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._look))
            self._next.add_done_callback(_heard)
        await asyncio.shield(self._next)

    def after(self, count: int) -> list[ChangeEvent]:
        """What arrived after so many. Raises Behind."""
        missing = self._count - count
        if missing > len(self._arrived):
            raise Behind("The stream is too far behind; take it up again where it broke off.")
        return [self._arrived[place] for place in range(-missing, 0)]

    async def _after(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        self._look, self._next = self._next, None
        if self._tail is None:
            self._tail = await self._store.read(self._first)
        tail, page = self._tail, PAGE
        while page == PAGE:
            rows = await self._store.read(lambda conn: fresh(conn, tail))
            tail.took([row.id for row in rows], asyncio.get_running_loop().time())
            self._arrived.extend(rows)
            self._count += len(rows)
            page = len(rows)

    def _first(self, conn: Connection) -> Tail:
        """Where a feed begins: below whatever may be committed yet, and what is committed there counts as arrived."""
        settled = self._now() - timedelta(seconds=_SETTLED)
        return Tail(conn.execute(_OLD, {"moment": settled}).scalar() or 0)


def _heard(look: "asyncio.Task[None]") -> None:
    """Those who waited are told of a failure; when all have left, nobody is."""
    if not look.cancelled():
        look.exception()
