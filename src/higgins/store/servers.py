"""Database servers: a transaction per thread, run again as a whole where that is certain to be right.

This is the one place that decides so, for deadlocks, lost certifications, collisions and lost connections alike;
``verdicts`` says which error is which. What was read or written before COMMIT is sent is undone for certain when the
connection is lost, so it runs again, on another connection. A connection that is lost while COMMIT is under way leaves
it open whether the rows are there: that is said, and never guessed.

Each thread keeps one connection, which commits each statement unless it is told to begin: so what only reads costs no
more round trips than it has statements. READ COMMITTED promises no more to several of them in one transaction. So that
a read changes nothing all the same, only a transaction that is begun may write.
"""

import logging
import random
import threading
import time
from asyncio import Future
from collections.abc import Callable

from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from higgins.model.errors import OutcomeUnknown, StoreUnavailable
from higgins.store.threads import Answer, Threads
from higgins.store.transactions import T, Work, finish, start
from higgins.store.verdicts import Verdict, undone, verdict
from higgins.store.wakeups import Wakeups

LOG = logging.getLogger(__name__)

_ATTEMPTS = 10
#: The longest pause before the n-th run, in seconds: short where another transaction was in the way, which is over by
#: then; long where the server is away, which with a fail-over takes seconds.
_PAUSE = {Verdict.AGAIN: (0.005, 0.5), Verdict.AWAY: (0.1, 2.0)}

#: Seconds after which a connection is replaced: what lies between may forget it.
_OLD = 1800
#: What makes a connection one that only reads, where nothing is begun.
_READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
_BEGIN = "START TRANSACTION READ WRITE"

_UNKNOWN = "The database went away while this was being written; look whether it was, before you ask again."

#: Tells other processes what was changed, by a connection on which nothing is begun.
Announce = Callable[[Connection, set[str]], None]


class _Kept(threading.local):
    """A thread's connection, and when it was made."""

    conn: Connection | None = None
    since = 0.0


class ServerRunner:
    """Runs transactions in as many threads as there are connections."""

    def __init__(self, engine: Engine, wakeups: Wakeups, threads: int, announce: Announce | None = None) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._kept = _Kept()
        self._all: set[Connection] = set()
        self._wakeups = wakeups
        self._announce = announce
        self._threads = Threads(threads, "higgins-db")

    def read(self, work: Work[T]) -> Future[T]:
        return self._threads.ask(lambda: self._run(work))

    def write(self, work: Work[T]) -> Future[T]:
        answer: Answer[T] = Answer()
        self._threads.run(lambda: self._write(work, answer))
        return answer.future

    def _write(self, work: Work[T], answer: Answer[T]) -> None:
        """Other processes are told once the one who asked has the answer, who need not wait for that."""
        topics: set[str] = set()
        done = answer.take(lambda: self._run(work, topics))
        if done and topics and self._announce is not None and self._kept.conn is not None:
            self._announce(self._kept.conn, topics)

    def _run(self, work: Work[T], touched: set[str] | None = None) -> T:
        """Run ``work`` until it is done: committed where what it ``touched`` is to be told, else rolled back."""
        for number in range(1, _ATTEMPTS + 1):
            try:
                return self._once(work, touched, number)
            except exc.DBAPIError as error:
                judged = verdict(error)
                if judged is Verdict.FINAL or (number == _ATTEMPTS and judged is Verdict.AGAIN):
                    raise
                if number == _ATTEMPTS:
                    raise StoreUnavailable("The database does not answer now; try again later.") from error
                LOG.debug("Run %d of a transaction: %s (%s)", number, judged.value, error.orig)
            first, longest = _PAUSE[judged]
            time.sleep(random.uniform(0, min(longest, first * 2**number)))  # noqa: S311 - spreads them, no secret
        raise AssertionError("unreachable")

    def _once(self, work: Work[T], touched: set[str] | None, number: int) -> T:
        conn = self._connection()
        start(conn, number)
        try:
            if touched is None:
                return work(conn)
            conn.exec_driver_sql(_BEGIN)
            result = work(conn)
            topics = finish(conn)
        except BaseException as error:
            self._undo(conn, touched is not None, error)
            raise
        try:
            conn.exec_driver_sql("COMMIT")
        except exc.DBAPIError as error:
            self._undo(conn, True, error)
            if undone(error):
                raise
            raise OutcomeUnknown(_UNKNOWN) from error
        self._wakeups.tell(topics)
        touched |= topics
        return result

    def _connection(self) -> Connection:
        """This thread's."""
        if self._kept.conn is not None and time.monotonic() - self._kept.since > _OLD:
            self._drop(self._kept.conn)
        if self._kept.conn is None:
            conn = self._engine.connect()
            conn.exec_driver_sql(_READ_ONLY[conn.dialect.name])
            self._all.add(conn)
            self._kept.conn, self._kept.since = conn, time.monotonic()
        return self._kept.conn

    def _undo(self, conn: Connection, begun: bool, error: BaseException) -> None:
        """What was ``begun`` is undone; a connection that cannot do that, or is lost, is given up."""
        if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
            self._drop(conn)
        elif begun:
            try:
                conn.exec_driver_sql("ROLLBACK")
            except exc.DBAPIError:
                self._drop(conn)

    def _drop(self, conn: Connection) -> None:
        self._kept.conn = None
        self._all.discard(conn)
        conn.invalidate()
        conn.close()

    def close(self) -> None:
        self._threads.close()
        for conn in self._all:
            conn.close()
