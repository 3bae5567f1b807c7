"""SQLite: one thread writes and commits whatever waits in one go, so that concurrent requests share an fsync.

Each keeps a savepoint of its own, so that one refusal undoes only its own rows. Other processes may use the same file:
a writing transaction takes the write lock when it begins, and so never has to be run again.

Transactions and savepoints are told to the driver itself: SQLAlchemy's share in them would be as much work as the rows.
"""

import contextlib
import os
import queue
import sqlite3
import threading
from asyncio import Future
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from higgins.store.threads import Answer, Threads
from higgins.store.transactions import T, Work, finish, start
from higgins.store.wakeups import Wakeups

_BATCH = 64


class SQLiteRunner:
    """One writer that commits in batches, one reader. SQLite has one writer anyway; WAL lets the reader run beside."""

    def __init__(self, engine: Engine, wakeups: Wakeups) -> None:
        """``engine`` is one that begins no transactions itself (``plain_engine``)."""
        self._wakeups = wakeups
        self._engine = engine
        self._writes: queue.SimpleQueue[tuple[Work[Any], Answer[Any]] | None] = queue.SimpleQueue()
        self._reads = Threads(1, "higgins-read")
        self._read_conn: Connection | None = None
        self._thread = threading.Thread(target=self._write_loop, name="higgins-write", daemon=True)
        self._thread.start()

    def read(self, work: Work[T]) -> Future[T]:
        return self._reads.ask(lambda: self._read(work))

    def _read(self, work: Work[T]) -> T:
        if self._read_conn is None:
            self._read_conn = self._engine.connect()
        driver = _driver(self._read_conn)
        driver.execute("BEGIN")
        try:
            start(self._read_conn)
            return work(self._read_conn)
        finally:
            driver.rollback()

    def write(self, work: Work[T]) -> Future[T]:
        answer: Answer[T] = Answer()
        self._writes.put((work, answer))
        return answer.future

    def _write_loop(self) -> None:
        with self._engine.connect() as conn:
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

    def _commit(self, conn: Connection, batch: list[tuple[Work[Any], Answer[Any]]]) -> None:
        done: list[tuple[Answer[Any], Any]] = []
        topics: set[str] = set()
        driver = _driver(conn)
        try:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            for work, answer in batch:
                if not answer.wanted:
                    continue
                start(conn)
                driver.execute("SAVEPOINT one")
                try:
                    result = work(conn)
                    touched = finish(conn)
                except Exception as error:  # handed to the one who asked, who decides
                    if not driver.in_transaction:  # a full disk undoes the whole of it, not the savepoint alone
                        raise
                    driver.execute("ROLLBACK TO one")
                    answer.refuse(error)
                else:
                    topics |= touched
                    done.append((answer, result))
                driver.execute("RELEASE one")
            conn.exec_driver_sql("COMMIT")
        except Exception as error:  # the whole failed: nobody's rows are there
            driver.rollback()
            for _, answer in batch:  # who was refused before stays so
                answer.refuse(error)
            return
        self._wakeups.tell(topics)
        for answer, result in done:
            answer.give(result)

    def close(self) -> None:
        self._writes.put(None)
        self._thread.join()
        self._reads.close()
        if self._read_conn is not None:
            self._read_conn.close()
        self._engine.dispose()


def _driver(conn: Connection) -> sqlite3.Connection:
    driver: sqlite3.Connection = conn.connection.driver_connection  # type: ignore[assignment]
    return driver


def plain_engine(url: URL) -> Engine:
    """An engine that begins no transactions. Makes the file (its owner's alone) and its directory."""
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        # Never opened when it is there: to close it would take away the locks that this process has on it otherwise
        # (POSIX), and another process would remove the log from under it (https://sqlite.org/howtocorrupt.html).
        with contextlib.suppress(FileExistsError):
            os.close(os.open(url.database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    engine = sa.create_engine(url, connect_args={"check_same_thread": False, "timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun by ours, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def sqlite_engine(url: URL) -> Engine:
    """An engine whose transactions take the write lock when they begin."""
    engine = plain_engine(url)

    @sa.event.listens_for(engine, "begin")
    def begun(conn: Connection) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
