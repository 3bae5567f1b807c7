"""Transactions. A use case is a plain function of a connection; the store runs it in a thread and commits.

One hop to a thread per transaction instead of one per statement, and a transaction that can be run again as a whole
where the database asks for it: a deadlock, a lost certification in a Galera cluster, a serialisation failure. So a
function given to ``read`` or ``write`` changes nothing but rows, and may run twice.

On SQLite one thread writes and commits whatever waits in one go: concurrent requests share an fsync. Each keeps a
savepoint of its own, so that one refusal undoes only its own rows.
"""

import asyncio
import queue
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine, make_url

from higgins.store.schema import host

T = TypeVar("T")
Work = Callable[[Connection], T]

_BATCH = 64
_ATTEMPTS = 8
#: SQLSTATEs and MariaDB numbers that mean "run the transaction again": serialisation failure, deadlock, lock timeout.
_RETRY = {"40001", "40P01", 1205, 1213, 1047}

#: What a transaction touched, kept on its connection until it is committed.
_HOSTS = "higgins_hosts"
_EVENTS = "higgins_events"


def touch_host(conn: Connection, host_id: int) -> None:
    """What this host holds changed: raise its revision, and wake its agent once this is committed."""

    conn.execute(sa.update(host).where(host.c.id == host_id).values(revision=host.c.revision + 1))
    conn.info.setdefault(_HOSTS, set()).add(host_id)


def touch_events(conn: Connection) -> None:
    """An event was written: wake whoever waits for one once this is committed."""
    conn.info[_EVENTS] = True


class Wakeups:
    """Who waits for a change in this process. Bound to one event loop, told from the threads of the store."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def tell(self, topics: set[str]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, topics)

    def _tell(self, topics: set[str]) -> None:
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()

    def listen(self, topic: str) -> "Listener":
        return Listener(self._waiting, topic)


class Listener:
    """One who waits. Listen first, look second, wait third: nothing in between is missed."""

    def __init__(self, waiting: defaultdict[str, set[asyncio.Event]], topic: str) -> None:
        self._waiting = waiting
        self._topic = topic
        self._event = asyncio.Event()

    def __enter__(self) -> "Listener":
        self._waiting[self._topic].add(self._event)
        return self

    def __exit__(self, *exc_info: object) -> None:
        waiters = self._waiting[self._topic]
        waiters.discard(self._event)
        if not waiters:
            del self._waiting[self._topic]

    async def wait(self, timeout: float) -> bool:
        """Until told (True), or ``timeout`` seconds went by (False)."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Store:
    """A database that is open. Made with ``open_store``."""

    def __init__(self, engine: Engine, runner: "_Runner", wakeups: Wakeups) -> None:
        self.engine = engine
        self.wakeups = wakeups
        self._runner = runner

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction that is rolled back."""
        return await asyncio.wrap_future(self._runner.read(work))

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction that is committed, unless it raises."""
        return await asyncio.wrap_future(self._runner.write(work))

    async def close(self) -> None:
        await asyncio.to_thread(self._runner.close)
        self.engine.dispose()


class _Runner:
    """How transactions meet threads."""

    def read(self, work: Work[T]) -> Future[T]:
        raise NotImplementedError

    def write(self, work: Work[T]) -> Future[T]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def _topics(conn: Connection) -> set[str]:
    topics = {f"host:{host_id}" for host_id in conn.info.pop(_HOSTS, ())}
    if conn.info.pop(_EVENTS, False):
        topics.add("events")
    return topics


class _SQLite(_Runner):
    """One writer that commits in batches, one reader. SQLite has one writer anyway; WAL lets the reader run beside."""

    def __init__(self, writer: Engine, reader: Engine, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        self._reader_engine = reader
        self._writes: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._reads = ThreadPoolExecutor(1, "higgins-read")
        self._read_conn: Connection | None = None
        self._thread = threading.Thread(target=self._write_loop, args=(writer,), name="higgins-write", daemon=True)
        self._thread.start()

    def read(self, work: Work[T]) -> Future[T]:
        return self._reads.submit(self._read, work)

    def _read(self, work: Work[T]) -> T:
        if self._read_conn is None:
            self._read_conn = self._reader_engine.connect()
        with self._read_conn.begin() as transaction:
            result = work(self._read_conn)
            transaction.rollback()
        return result

    def write(self, work: Work[T]) -> Future[T]:
        future: Future[T] = Future()
        self._writes.put((work, future))
        return future

    def _write_loop(self, engine: Engine) -> None:
        with engine.connect() as conn:
            while (first := self._writes.get()) is not None:
                batch = [first]
                stop = False
                while len(batch) < _BATCH and not self._writes.empty():
                    item = self._writes.get()
                    if item is None:
                        stop = True
                        break
                    batch.append(item)
                self._commit(conn, batch)
                if stop:
                    return

    def _commit(self, conn: Connection, batch: list[tuple[Work[Any], Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        topics: set[str] = set()
        try:
            with conn.begin():
                for work, future in batch:
                    if not future.set_running_or_notify_cancel():
                        continue
                    try:
                        with conn.begin_nested():
                            result = work(conn)
                    except Exception as error:  # handed to the one who asked, who decides
                        conn.info.pop(_HOSTS, None)
                        conn.info.pop(_EVENTS, None)
                        future.set_exception(error)
                    else:
                        topics |= _topics(conn)
                        done.append((future, result))
        except Exception as error:  # the commit itself failed (a full disk): nobody's rows are there
            for future, _ in done:
                future.set_exception(error)
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        self._wakeups.tell(topics)
        for future, result in done:
            future.set_result(result)

    def close(self) -> None:
        self._writes.put(None)
        self._thread.join()
        self._reads.shutdown()
        if self._read_conn is not None:
            self._read_conn.close()
        self._reader_engine.dispose()


class _Server(_Runner):
    """A database server: a transaction per thread, run again where the server asks for it."""

    def __init__(self, engine: Engine, wakeups: Wakeups, threads: int) -> None:
        self._engine = engine
        self._wakeups = wakeups
        self._pool = ThreadPoolExecutor(threads, "higgins-db")

    def read(self, work: Work[T]) -> Future[T]:
        return self._pool.submit(self._run, work, False)

    def write(self, work: Work[T]) -> Future[T]:
        return self._pool.submit(self._run, work, True)

    def _run(self, work: Work[T], commit: bool) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._engine.connect() as conn, conn.begin() as transaction:
                    try:
                        result = work(conn)
                    except BaseException:
                        _topics(conn)
                        raise
                    topics = _topics(conn)
                    if not commit:
                        transaction.rollback()
                self._wakeups.tell(topics)
                return result
            except exc.DBAPIError as error:
                if attempt == _ATTEMPTS or not _again(error):
                    raise
                time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - spreads retries, keeps no secret
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._pool.shutdown()


def _again(error: exc.DBAPIError) -> bool:
    original = error.orig
    code = getattr(original, "sqlstate", None) or (original.args[0] if original and original.args else None)
    return code in _RETRY


def _sqlite_engine(url: str, begin: str) -> Engine:
    engine = sa.create_engine(url, connect_args={"check_same_thread": False, "timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def start(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine


def open_store(url: str, *, threads: int = 10) -> Store:
    """Open the database at an SQLAlchemy ``url``; its tables are there already (see ``migrate``).

    Called inside the event loop that will wait for its wake-ups.
    """
    wakeups = Wakeups(asyncio.get_running_loop())
    if make_url(url).get_backend_name() == "sqlite":
        path = make_url(url).database
        if path and path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        writer = _sqlite_engine(url, "BEGIN IMMEDIATE")
        return Store(writer, _SQLite(writer, _sqlite_engine(url, "BEGIN"), wakeups), wakeups)
    engine = sa.create_engine(url, pool_size=threads, pool_pre_ping=True)
    return Store(engine, _Server(engine, wakeups, threads), wakeups)
