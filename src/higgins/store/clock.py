"""One clock for all who share a database: its own.

Leases and the times that things end are written by one replica and read by others, whose machines may be minutes apart.
So none asks its machine what time it is. It asks the database once in a while, and counts by the monotonic clock,
which nobody sets, from one answer to the next.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.store.database import Store

_NOW = {
    "sqlite": sa.text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"),
    "postgresql": sa.text("SELECT clock_timestamp() AT TIME ZONE 'UTC'"),
    "mysql": sa.text("SELECT UTC_TIMESTAMP(6)"),
    "mariadb": sa.text("SELECT UTC_TIMESTAMP(6)"),
}
#: How exact the answers are; SQLite's is cut off after milliseconds.
_GRAIN = timedelta(milliseconds=1)
#: An answer that took longer is asked for again, so many times.
_SLOW, _TRIES = 0.25, 4
#: A difference that is no drift: somebody has set the database's clock, or another server has taken over.
_STEP = timedelta(seconds=1)


class DatabaseClock:
    """What time it is, in UTC without zone: by this machine until it is ``set``, then by the database."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._zero = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=monotonic())
        self._known = False

    def __call__(self) -> datetime:
        return self._zero + timedelta(seconds=self._monotonic())

    async def set(self, store: Store) -> timedelta:
        """Ask the database; how large a step its clock has made since it was asked last, nothing for a drift.

        It was asked between two moments, so its zero is between two as well: nothing changes as long as ours is there.
        """
        for _ in range(_TRIES):
            began, told, ended = await store.read(self._ask)
            if ended - began <= _SLOW:
                break
        earliest, latest = told - timedelta(seconds=ended), told - timedelta(seconds=began) + _GRAIN
        before, known = self._zero, self._known
        self._zero = min(max(before, earliest), latest) if known else earliest + (latest - earliest) / 2
        self._known = True
        step = self._zero - before
        return step if known and abs(step) > _STEP else timedelta()

    def _ask(self, conn: Connection) -> tuple[float, datetime, float]:
        began = self._monotonic()
        told = conn.execute(_NOW[conn.dialect.name]).scalar_one()
        ended = self._monotonic()
        return began, told if isinstance(told, datetime) else datetime.fromisoformat(told), ended
