"""Database servers: a transaction per thread, run again as a whole where that is certain to be right.

This is the one place that decides so, for deadlocks, lost certifications, collisions and lost connections alike;
``verdicts`` says which error is which. What was read or written before COMMIT is sent is undone for certain when the
connection is lost, so it runs again, on another connection. A connection that is lost while COMMIT is under way leaves
it open whether the rows are there: that is said, and never guessed.
"""

import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from sqlalchemy import exc
from sqlalchemy.engine import Engine

from higgins.model.errors import OutcomeUnknown, StoreUnavailable
from higgins.store.transactions import T, Work, finish, start
from higgins.store.verdicts import Verdict, undone, verdict
from higgins.store.wakeups import Wakeups

LOG = logging.getLogger(__name__)

_ATTEMPTS = 10
#: The longest pause before the n-th run, in seconds: short where another transaction was in the way, which is over by
#: then; long where the server is away, which with a fail-over takes seconds.
_PAUSE = {Verdict.AGAIN: (0.005, 0.5), Verdict.AWAY: (0.1, 2.0)}

_UNKNOWN = "The database went away while this was being written; look whether it was, before you ask again."

#: Tells other processes what was changed.
Announce = Callable[[set[str]], None]


class ServerRunner:
    """Runs transactions in as many threads as there are connections."""

    def __init__(self, engine: Engine, wakeups: Wakeups, threads: int, announce: Announce | None = None) -> None:
        self._engine = engine
        self._wakeups = wakeups
        self._announce = announce
        self._pool = ThreadPoolExecutor(threads, "higgins-db")

    def read(self, work: Work[T]) -> Future[T]:
        return self._pool.submit(self._run, work)

    def write(self, work: Work[T]) -> Future[T]:
        future: Future[T] = Future()
        self._pool.submit(self._write, work, future)
        return future

    def _write(self, work: Work[T], future: Future[T]) -> None:
        """Other processes are told once the one who asked has the answer, who need not wait for that."""
        if not future.set_running_or_notify_cancel():
            return
        topics: set[str] = set()
        try:
            result = self._run(work, topics)
        except BaseException as error:  # handed to the one who asked, who decides
            future.set_exception(error)
            return
        future.set_result(result)
        if topics and self._announce is not None:
            self._announce(topics)

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
        with self._engine.connect() as conn:
            start(conn, number)
            with conn.begin() as transaction:
                result = work(conn)
                if touched is None:
                    transaction.rollback()
                    return result
                topics = finish(conn)
                try:
                    transaction.commit()
                except exc.DBAPIError as error:
                    if undone(error):
                        raise
                    raise OutcomeUnknown(_UNKNOWN) from error
        self._wakeups.tell(topics)
        touched |= topics
        return result

    def close(self) -> None:
        self._pool.shutdown()
