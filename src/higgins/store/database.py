"""The store: a database that is open. A use case is a plain function of a connection, run in a thread and committed.

One hop to a thread per transaction instead of one per statement, and a transaction that can be run again as a whole
(see ``transactions``), which the drivers' asynchronous halves would not give.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import URL, Engine, make_url

from higgins.model.errors import Invalid, StoreUnavailable
from higgins.store.servers import ServerRunner
from higgins.store.sqlite import SQLiteRunner, plain_engine, sqlite_engine
from higgins.store.transactions import Runner, T, Work, touch_events, touch_host, touch_topic
from higgins.store.verdicts import outage
from higgins.store.wakeups import Wakeups, poll

__all__ = ["Store", "make_engine", "open_store", "touch_events", "touch_host", "touch_topic"]


class Store:
    """A database that is open. Made with ``open_store``."""

    def __init__(self, engine: Engine, runner: Runner, wakeups: Wakeups) -> None:
        self.engine = engine
        self.wakeups = wakeups
        self._runner = runner
        self._feed: asyncio.Task[None] | None = None

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction that is rolled back. Raises StoreUnavailable."""
        with _refusals():
            return await self._runner.read(work)

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction that is committed, unless it raises.

        Raises StoreUnavailable, and OutcomeUnknown where the database went away in the middle of the commit.
        """
        with _refusals():
            return await self._runner.write(work)

    def follow(self, feed: Coroutine[Any, Any, None]) -> None:
        """Hear by ``feed``, until closed, what other processes change."""
        self._feed = asyncio.create_task(feed, name="higgins-changes")

    async def close(self) -> None:
        if self._feed is not None:
            self._feed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._feed
        await asyncio.to_thread(self._runner.close)
        self.engine.dispose()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What a column cannot hold is the fault of who asked for it: too long, out of range, NUL, half a surrogate.

    What the database cannot do now is nobody's.
    """
    try:
        yield
    except exc.OperationalError as error:
        if not outage(error):
            raise
        raise StoreUnavailable("The database does not answer now; try again later.") from error
    except (exc.DataError, UnicodeEncodeError) as error:
        raise Invalid("A value is too long, too large or has a character that cannot be kept.") from error


def make_engine(url: str | URL, *, connections: int = 1) -> Engine:
    """An engine for an SQLAlchemy URL: ``sqlite:///…``, ``postgresql+psycopg://…`` or ``mysql+pymysql://…``.

    Raises ValueError for another database, or where the driver is not installed.
    """
    parsed = make_url(url)
    try:
        match parsed.get_backend_name():
            case "sqlite":
                return sqlite_engine(parsed)
            case "postgresql":
                from higgins.store.postgresql import postgresql_engine

                return postgresql_engine(parsed, connections)
            case "mysql" | "mariadb":
                from higgins.store.mariadb import mariadb_engine

                return mariadb_engine(parsed, connections)
            case other:
                raise ValueError(f"A database of the kind {other} is no store of Higgins.")
    except ModuleNotFoundError as error:
        extra = "postgresql" if parsed.get_backend_name() == "postgresql" else "mariadb"
        raise ValueError(f"The driver {error.name} is not installed: pip install 'higgins[{extra}]'.") from error


def open_store(url: str, *, threads: int = 10) -> Store:
    """Open the database at an SQLAlchemy ``url``; its tables are there already (see ``migrate``).

    Called inside the event loop that will wait for its wake-ups. ``threads`` is how many transactions run at once on
    a server, and how many connections are kept to it; one more listens.
    """
    wakeups = Wakeups(asyncio.get_running_loop())
    engine = make_engine(url, connections=threads)
    match engine.dialect.name:
        case "sqlite":
            runner: Runner = SQLiteRunner(plain_engine(make_url(url)), wakeups)
        case "postgresql":
            from higgins.store.postgresql import Notices

            notices = Notices(engine, wakeups)
            store = Store(engine, ServerRunner(engine, wakeups, threads, notices.announce), wakeups)
            store.follow(notices.hear())
            return store
        case _:
            runner = ServerRunner(engine, wakeups, threads)
    store = Store(engine, runner, wakeups)
    store.follow(poll(wakeups, store.read))
    return store
