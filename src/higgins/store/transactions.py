"""What a transaction is to those who write one: a plain function of a connection that may be run again as a whole.

It changes nothing but rows, since it runs again where the database asks for it: after a deadlock, a lost
certification in a Galera cluster, a serialisation failure; and where its rows collided with those that another
committed between its look and its insert (two who choose the same free address, or make the same first row of a
project). So nobody catches such collisions: the second run sees what the first one could not.
"""

from asyncio import Future
from collections.abc import Callable
from typing import Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection

from higgins.store.schema import host

T = TypeVar("T")
Work = Callable[[Connection], T]

#: What a transaction touched, kept on its connection until it is committed.
_HOSTS = "higgins_hosts"
_TOPICS = "higgins_topics"
_ATTEMPT = "higgins_attempt"


class Runner(Protocol):
    """How transactions meet threads."""

    def read(self, work: Work[T]) -> Future[T]: ...  # of the event loop

    def write(self, work: Work[T]) -> Future[T]: ...

    def close(self) -> None: ...


_RAISE = sa.update(host).where(host.c.id == sa.bindparam("number")).values(revision=host.c.revision + 1)


def touch_host(conn: Connection, host_id: int) -> None:
    """What this host holds changed: raise its revision at the end of the transaction, and wake its agent afterwards.

    At the end, since a host's row is what transactions wait for most: it is held as briefly as can be, and several
    are taken in the order of their numbers, so that two transactions do not hold what the other one wants.
    """
    conn.info.setdefault(_HOSTS, set()).add(host_id)


def touched_host(conn: Connection, host_id: int) -> None:
    """What this host holds changed, and its revision is raised already: wake its agent once this is committed."""
    touch_topic(conn, f"host:{host_id}")


def touch_events(conn: Connection) -> None:
    """An event was written: wake whoever waits for one once this is committed."""
    touch_topic(conn, "events")


def touch_topic(conn: Connection, topic: str) -> None:
    """Wake whoever listens to ``topic`` once this is committed."""
    conn.info.setdefault(_TOPICS, set()).add(topic)


def attempt(conn: Connection) -> int:
    """Which run of the transaction this is, from 1: one that collided before may choose otherwise."""
    return int(conn.info.get(_ATTEMPT, 1))


def insert_missing(conn: Connection, table: sa.Table, **values: object) -> None:
    """Insert a row unless one with its primary key is there, without an error that would end the transaction."""
    match conn.dialect.name:
        case "sqlite":
            conn.execute(sqlite.insert(table).values(values).on_conflict_do_nothing())
        case "postgresql":
            conn.execute(postgresql.insert(table).values(values).on_conflict_do_nothing())
        case _:
            # Not INSERT IGNORE: that ignores too long values as well, and leaves a shared lock, on which two deadlock.
            key = {column.name: column for column in table.primary_key}
            conn.execute(mysql.insert(table).values(values).on_duplicate_key_update(key))


def start(conn: Connection, number: int = 1) -> None:
    """For runners: the ``number``-th run of a transaction begins; what an undone one touched is forgotten."""
    conn.info.pop(_HOSTS, None)
    conn.info.pop(_TOPICS, None)
    conn.info[_ATTEMPT] = number


def finish(conn: Connection) -> set[str]:
    """For runners, before the commit: write down what was left for the end; the topics to wake after the commit."""
    hosts: list[int] = sorted(conn.info.pop(_HOSTS, ()))
    for host_id in hosts:
        conn.execute(_RAISE, {"number": host_id})
    topics: set[str] = conn.info.pop(_TOPICS, set())
    return topics | {f"host:{host_id}" for host_id in hosts}
