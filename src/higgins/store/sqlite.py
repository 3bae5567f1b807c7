"""SQLite: one thread writes and commits whatever waits in one go, so that concurrent requests share an fsync.

Each keeps a savepoint of its own, so that one refusal undoes only its own rows. Other processes may use the same file:
a writing transaction takes the write lock when it begins, and so never has to be run again.
"""

import contextlib
import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from higgins.store.transactions import T, Work, finish, start
from higgins.store.wakeups import Wakeups

_BATCH = 64


class SQLiteRunner:
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
            start(self._read_conn)
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
                    start(conn)
                    savepoint = conn.begin_nested() if len(batch) > 1 else None  # one alone is the whole
                    try:
                        result = work(conn)
                        touched = finish(conn)
                        if savepoint is not None:
                            savepoint.commit()
                    except Exception as error:  # handed to the one who asked, who decides
                        if savepoint is None or not _in_transaction(conn):  # a full disk undoes the savepoint too
                            raise
                        savepoint.rollback()
                        future.set_exception(error)
                    else:
                        topics |= touched
                        done.append((future, result))
        except Exception as error:  # the whole failed: nobody's rows are there
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


def _in_transaction(conn: Connection) -> bool:
    return bool(conn.connection.driver_connection.in_transaction)  # type: ignore[union-attr]


def sqlite_engine(url: URL, begin: str = "BEGIN IMMEDIATE") -> Engine:
    """An engine whose transactions begin with this statement. Makes the file (its owner's alone) and its directory."""
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        # Never opened when it is there: to close it would take away the locks that this process has on it otherwise
        # (POSIX), and another process would remove the log from under it (https://sqlite.org/howtocorrupt.html).
        with contextlib.suppress(FileExistsError):
            os.close(os.open(url.database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    engine = sa.create_engine(url, connect_args={"check_same_thread": False, "timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begun(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine
