"""What another service has to do for rows of ours, done until it is done: ports of Neutron, volumes of Cinder.

A transaction calls no other service, and what it wants of one must survive the process that committed it. So it writes
down what is wanted, and the row is *due* (``asked``, ``ask``). Every process of the control plane has a keeper of the
table. It takes due rows, has the service do its part, and writes what came of it:

    keeper = Keeper(cloud, ports, work)      # work: rows → for each what to write, or Later
    await stack.enter_async_context(background(keeper.run))

A row is taken with a lease that is renewed while it is worked on, so no two keepers work on one; that of a process that
died is taken by another when its lease is over. So ``work`` may find that the service has done its part already, and
must look for that first. What is asked anew while a row is worked on stays due, and is seen by the next look.

A process may be stopped for longer than its lease, and go on in the middle of ``work`` when another does the same. So
``work`` asks right before each call that changes something whether the rows are ours yet (``still_ours``).

A service that does not answer is asked again and again, less and less often, for as long as it takes.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud
from higgins.model.errors import HigginsError
from higgins.openstack.errors import ServiceUnavailable
from higgins.store.database import touch_topic

LOG = logging.getLogger(__name__)

#: Seconds after which what a process had taken is another's, if it does not say that it still works on it.
LEASE = 30.0
#: Seconds between two looks for rows that another process made due, or died over.
LOOK = 5.0
#: Seconds before a row is tried again for the first time, doubled with each time up to the last.
FIRST_RETRY = 0.5
LAST_RETRY = 60.0

_FAULT = "A fault of this service holds it up; it is tried again."


class Later(Struct, frozen=True):
    """It cannot be done now: ``reason`` is a sentence for the owner, ``after`` seconds to leave the service alone."""

    reason: str
    after: float = 0.0


class LeaseLost(HigginsError):
    """Another may be working on these rows by now."""


#: Writes what came of the work on a row; given the row as it is by then, held.
Written = Callable[[Connection, Row[Any]], None]
#: One result for each row, in their order. What it raises counts for all of them, and is tried again.
Work = Callable[[Sequence[Row[Any]]], Awaitable[Sequence["Written | Later"]]]


def asked(conn: Connection, cloud: Cloud, table: sa.Table) -> dict[str, Any]:
    """The columns of a new row of ``table`` that make it due."""
    touch_topic(conn, topic(table))
    return {"due_at": cloud.now(), "asks": 1, "tries": 0}


def ask(conn: Connection, cloud: Cloud, table: sa.Table, *which: sa.ColumnElement[bool], **values: object) -> int:
    """Write ``values`` into rows of ``table`` and make them due; how many they are."""
    update = sa.update(table).where(*which)
    changed = conn.execute(update.values(due_at=cloud.now(), asks=table.c.asks + 1, tries=0, trouble=None, **values))
    touch_topic(conn, topic(table))
    return changed.rowcount


async def still_ours(cloud: Cloud, table: sa.Table, rows: Sequence[Row[Any]]) -> None:
    """Raises LeaseLost where one of the rows is not held any more by whom it was held when it was taken."""
    mine = [sa.and_(table.c.id == row.id, table.c.holder == row.holder) for row in rows]
    query = sa.select(sa.func.count()).select_from(table).where(sa.or_(*mine), table.c.held_until > cloud.now())
    if rows and await cloud.store.read(lambda conn: conn.execute(query).scalar_one()) < len(rows):
        raise LeaseLost("This process was stopped for too long; another goes on with it.")


def topic(table: sa.Table) -> str:
    """What keepers of the table listen to."""
    return f"kept:{table.name}"


def pause(tries: int, after: float = 0.0) -> float:
    """Pure: seconds before a row that failed ``tries`` times is tried again."""
    return max(after, min(FIRST_RETRY * 2.0 ** min(tries - 1, 30), LAST_RETRY))


class Keeper:
    """Works on the due rows of one table, ``batch`` rows at a time in up to ``at_once`` places.

    ``only``: on those of them for which it is true; another keeper works on the rest, which wait for none of these.
    ``troubled`` is told, in the same transaction, of each row that has to wait and has another reason than before.
    """

    def __init__(
        self,
        cloud: Cloud,
        table: sa.Table,
        work: Work,
        *,
        batch: int = 1,
        at_once: int = 8,
        lease: float = LEASE,
        only: sa.ColumnElement[bool] | None = None,
        troubled: Callable[[Connection, Row[Any]], None] | None = None,
    ) -> None:
        self._cloud = cloud
        self._table = table
        self._work = work
        self._batch = batch
        self._at_once = at_once
        self._lease = lease
        self._only = sa.true() if only is None else only
        self._troubled = troubled
        self._working: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        wakeups = self._cloud.store.wakeups
        try:
            with wakeups.listen(topic(self._table)) as listener:
                while True:
                    for part in self._parts(await self._take()):
                        task = asyncio.create_task(self._do(part))
                        self._working.add(task)
                        task.add_done_callback(self._working.discard)
                        task.add_done_callback(lambda _: wakeups.tell({topic(self._table)}))
                    await listener.wait(await self._idle())
        finally:
            for task in self._working:
                task.cancel()
            await asyncio.gather(*self._working, return_exceptions=True)

    async def round(self) -> int:
        """Work once on what is due now; how many rows that were."""
        rows = await self._take()
        await asyncio.gather(*(self._do(part) for part in self._parts(rows)))
        return len(rows)

    # taking

    def _parts(self, rows: list[Row[Any]]) -> Iterator[list[Row[Any]]]:
        for start in range(0, len(rows), self._batch):
            yield rows[start : start + self._batch]

    def _due(self) -> sa.ColumnElement[bool]:
        t, now = self._table.c, self._cloud.now()
        return sa.and_(self._only, t.due_at <= now, sa.or_(t.held_until.is_(None), t.held_until <= now))

    async def _take(self) -> list[Row[Any]]:
        """Due rows that are ours now, as many as there are places for."""
        room = (self._at_once - len(self._working)) * self._batch
        t = self._table.c
        query = sa.select(t.id).where(self._due()).order_by(t.due_at, t.id).limit(max(room, 0))
        numbers = await self._cloud.store.read(lambda conn: list(conn.execute(query).scalars())) if room > 0 else []
        if not numbers:
            return []
        holder = secrets.token_hex(16)

        def work(conn: Connection) -> list[Row[Any]]:
            lease = {"holder": holder, "held_until": self._cloud.now() + timedelta(seconds=self._lease)}
            for number in sorted(numbers):  # another keeper may have been quicker
                conn.execute(sa.update(self._table).where(t.id == number, self._due()).values(lease))
            mine = sa.select(self._table).where(t.holder == holder, t.id.in_(numbers))
            return list(conn.execute(mine.order_by(t.due_at, t.id)).all())

        return await self._cloud.store.write(work)

    async def _idle(self) -> float:
        """Seconds until a row is due, at most ``LOOK``."""
        if len(self._working) >= self._at_once:
            return LOOK
        t = self._table.c
        first_due = sa.func.min(sa.case((t.held_until > t.due_at, t.held_until), else_=t.due_at))
        query = sa.select(first_due).where(self._only, t.due_at.is_not(None))
        first = await self._cloud.store.read(lambda conn: conn.execute(query).scalar())
        return LOOK if first is None else min(max((first - self._cloud.now()).total_seconds(), 0.01), LOOK)

    # working

    async def _do(self, rows: Sequence[Row[Any]]) -> None:
        renewing = asyncio.create_task(self._renew(rows))
        try:
            results = await self._results(rows)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        await self._write(rows, results)

    async def _write(self, rows: Sequence[Row[Any]], results: Sequence[Written | Later]) -> None:
        """Write what came of the work; what cannot be written of one row holds up no other, and is tried again."""
        try:
            await self._cloud.store.write(lambda conn: self._finish(conn, rows, results))
        except HigginsError as error:  # the lease ends, and the rows are looked at again
            LOG.warning("What came of %s cannot be written: %s", self._names(rows), error)
        except Exception:
            LOG.exception("A fault over what came of %s", self._names(rows))
            if len(rows) > 1:
                for row, result in zip(rows, results, strict=True):
                    await self._write([row], [result])
            elif not isinstance(results[0], Later):
                await self._write(rows, [Later(_FAULT)])

    async def _results(self, rows: Sequence[Row[Any]]) -> Sequence[Written | Later]:
        try:
            return await self._work(rows)
        except HigginsError as error:
            LOG.warning("%s: %s Cause: %r", self._names(rows), error, error.__cause__)
            waiting = error.waiting if isinstance(error, ServiceUnavailable) else ""
            return [Later(waiting or str(error))] * len(rows)
        except Exception:  # a fault of ours about one row must not stop the others, nor this one for ever
            LOG.exception("A fault over %s", self._names(rows))
            return [Later(_FAULT)] * len(rows)

    def _names(self, rows: Sequence[Row[Any]]) -> str:
        return f"{self._table.name} {', '.join(str(row.id) for row in rows)}"

    def _held(self, row: Row[Any]) -> sa.ColumnElement[bool]:
        return sa.and_(self._table.c.id == row.id, self._table.c.holder == row.holder)

    async def _renew(self, rows: Sequence[Row[Any]]) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            until = self._cloud.now() + timedelta(seconds=self._lease)
            update = sa.update(self._table).where(sa.or_(*map(self._held, rows))).values(held_until=until)

            def work(conn: Connection, update: sa.Update = update) -> None:
                conn.execute(update)

            try:
                await self._cloud.store.write(work)
            except HigginsError as error:
                LOG.warning("The lease of %s cannot be renewed now: %s", self._names(rows), error)

    def _finish(self, conn: Connection, rows: Sequence[Row[Any]], results: Sequence[Written | Later]) -> None:
        """Give the rows back, each with what came of it, unless another has taken it meanwhile."""
        for row, result in sorted(zip(rows, results, strict=True), key=lambda pair: pair[0].id):
            now = conn.execute(sa.select(self._table).where(self._held(row)).with_for_update()).one_or_none()
            if now is None:
                continue
            settled = now.asks == row.asks
            values: dict[str, Any] = {"holder": None, "held_until": None}
            if isinstance(result, Later):
                values |= {"tries": now.tries + 1, "trouble": result.reason} if settled else {}
                if settled:
                    wait = pause(now.tries + 1, result.after) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads them
                    values["due_at"] = self._cloud.now() + timedelta(seconds=wait)
            elif settled:
                values |= {"due_at": None, "tries": 0, "trouble": None}
            conn.execute(sa.update(self._table).where(self._held(row)).values(values))
            fresh = conn.execute(sa.select(self._table).where(self._table.c.id == row.id)).one()
            if not isinstance(result, Later):
                result(conn, fresh)
            elif self._troubled is not None and fresh.trouble != row.trouble:
                self._troubled(conn, fresh)
