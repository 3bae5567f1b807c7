"""Who waits for a change, and how word of one reaches them: from this process at once, from another by a feed.

A topic is ``host:<number>`` (what the host holds changed), ``events``, or ``kept:<table>`` (rows are due, see
``control.keeper``; who made them due works on them, so the poll below does not look for those). A wake-up says "look
again", never what there is to see; so one too many does no harm, and one too few costs a waiter no more than its own
timeout.
"""

import asyncio
import functools
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from higgins.model.errors import StoreUnavailable
from higgins.store.schema import event, host

LOG = logging.getLogger(__name__)

#: ``Store.read``.
Read = Callable[[Callable[[Connection], Any]], Awaitable[Any]]

#: Seconds between two looks of the poll.
POLL = 0.5
#: Transactions may commit their events in another order than they numbered them: that many are looked at.
_LAST_EVENTS = 64


class Wakeups:
    """Who waits for a change in this process. Bound to one event loop, told from the threads of the store."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._somebody = asyncio.Event()

    def tell(self, topics: set[str]) -> None:
        """Wake who listens to one of these; from any thread."""
        if topics and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, topics)

    def tell_all(self) -> None:
        """Wake everybody, since nobody knows what was missed; in the loop."""
        self._tell(self.topics)

    @property
    def topics(self) -> set[str]:
        """What is listened to now; in the loop."""
        return set(self._waiting)

    async def somebody(self) -> None:
        """Return as soon as anybody listens to anything."""
        await self._somebody.wait()

    def _tell(self, topics: set[str]) -> None:
        for topic in topics:
            for one in self._waiting.get(topic, ()):
                one.set()

    def listen(self, topic: str) -> "Listener":
        return Listener(self, topic)

    def add(self, topic: str, waiter: asyncio.Event) -> None:
        self._waiting[topic].add(waiter)
        self._somebody.set()

    def discard(self, topic: str, waiter: asyncio.Event) -> None:
        waiters = self._waiting[topic]
        waiters.discard(waiter)
        if not waiters:
            del self._waiting[topic]
        if not self._waiting:
            self._somebody.clear()


class Listener:
    """One who waits. Listen first, look second, wait third: nothing in between is missed."""

    def __init__(self, wakeups: Wakeups, topic: str) -> None:
        self._wakeups = wakeups
        self._topic = topic
        self._event = asyncio.Event()

    def __enter__(self) -> "Listener":
        self._wakeups.add(self._topic, self._event)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._wakeups.discard(self._topic, self._event)

    async def wait(self, timeout: float) -> bool:
        """Until told (True), or ``timeout`` seconds went by (False)."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


async def poll(wakeups: Wakeups, read: Read) -> None:
    """The feed for a database that sends no word itself: while somebody listens, look at what a change would move.

    What was seen last of a topic is kept when nobody listens to it for a while, so that a host that asks again has
    missed nothing in between; of a new topic nothing is known, and its listeners are woken once.
    """
    last: dict[str, object] = {}
    while True:
        await wakeups.somebody()
        topics = wakeups.topics
        try:
            now: dict[str, object] = await read(functools.partial(_marks, topics=topics))
        except (StoreUnavailable, exc.DBAPIError) as error:  # a look that fails is no reason not to look again
            LOG.warning("Changes made by other processes are not seen now: %s", error.__cause__ or error)
        else:
            wakeups.tell({topic for topic, mark in now.items() if topic not in last or last[topic] != mark})
            last |= now
        await asyncio.sleep(POLL)


def _marks(conn: Connection, topics: set[str]) -> dict[str, object]:
    """For each topic a value that is another one after a change."""
    marks: dict[str, object] = {}
    numbers = [int(topic.removeprefix("host:")) for topic in topics if topic.startswith("host:")]
    if numbers:
        rows = conn.execute(sa.select(host.c.id, host.c.revision).where(host.c.id.in_(numbers))).all()
        marks |= {f"host:{row.id}": row.revision for row in rows}
    if "events" in topics:
        newest = sa.select(event.c.id).order_by(event.c.id.desc()).limit(_LAST_EVENTS)
        marks["events"] = tuple(conn.execute(newest).scalars())
    return marks
