"""PostgreSQL, by psycopg: the engine, and word of changes by LISTEN and NOTIFY."""

import asyncio
import logging
import secrets
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from higgins.store.wakeups import Wakeups

LOG = logging.getLogger(__name__)

#: Seconds between two attempts to listen again.
_RECONNECT = 1.0
_CHANNEL = "higgins"
#: The most that one notice may carry, in bytes, is 7999; topics that do not fit go into further ones.
_PAYLOAD = 7000

#: Seconds until a lock that is waited for is given up (and the transaction run again), until a transaction that stands
#: still is ended by the server (its process hangs, and holds locks), and how a dead connection is noticed.
_CONNECT: dict[str, Any] = {
    "options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s -c timezone=UTC",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60000,
    "application_name": "higgins",
}


def _arguments(url: URL) -> dict[str, Any]:
    """What the connections are made with; an operator's own settings in the URL come first."""
    return {key: value for key, value in _CONNECT.items() if key not in url.query}


def postgresql_engine(url: URL, connections: int) -> Engine:
    """An engine with so many connections at most.

    READ COMMITTED: each statement sees what is committed, so an update whose WHERE says what must hold (a claim, a
    quota) is judged by the newest row, without the failures that a snapshot for the whole transaction would bring.
    """
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        pool_size=connections,
        max_overflow=2,
        pool_recycle=1800,
        connect_args=_arguments(url),
    )


class Notices:
    """Tells the other processes, and hears them.

    A notice is sent soon after the commit and not in it: PostgreSQL takes one lock for the whole server from a
    notice to the end of its transaction, so transactions that carry one would wait for each other's disk. It waits
    for no disk itself. A process that dies in between has told nobody; who waits looks again after a while anyway.
    """

    def __init__(self, engine: Engine, wakeups: Wakeups) -> None:
        self._engine = engine
        self._wakeups = wakeups
        self._me = secrets.token_hex(4)

    def announce(self, conn: Connection, topics: set[str]) -> None:
        """Tell other processes. A failure is not the failure of what was committed."""
        notices = "".join(f"NOTIFY {_CHANNEL}, '{payload}'; " for payload in payloads(self._me, topics))
        driver: Any = conn.connection.driver_connection
        try:
            driver.execute(f"BEGIN; SET LOCAL synchronous_commit = off; {notices}COMMIT", prepare=False)
        except psycopg.Error as error:  # a connection that is lost is found to be so when it is used next
            LOG.warning("Other processes were not told of a change: %s", error)

    async def hear(self) -> None:
        """Wake listeners of this process by what others tell, until cancelled; what was missed meanwhile wakes all."""
        arguments, keywords = self._engine.dialect.create_connect_args(self._engine.url)
        keywords = {**_arguments(self._engine.url), **keywords, "autocommit": True}
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(*arguments, **keywords) as connection:
                    await connection.execute(f"LISTEN {_CHANNEL}")
                    self._wakeups.tell_all()
                    async for notice in connection.notifies():
                        sender, *topics = notice.payload.split()
                        if sender != self._me:
                            self._wakeups.tell(set(topics))
            except psycopg.Error as error:  # whatever it is, listening is tried again
                LOG.warning("Changes made by other processes are not heard now: %s", error)
            await asyncio.sleep(_RECONNECT)


def payloads(sender: str, topics: set[str]) -> list[str]:
    """Pure: the sender and the topics, in as many notices as they need."""
    result = [sender]
    for topic in sorted(topics):
        if len(result[-1]) + 1 + len(topic) > _PAYLOAD:
            result.append(sender)
        result[-1] += f" {topic}"
    return result
