"""MariaDB, alone or as a Galera cluster, by PyMySQL: the engine."""

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

#: ``sql_mode``: an error for what does not fit, never a silent cut. Timeouts in seconds.
_CONNECT: dict[str, Any] = {
    "charset": "utf8mb4",
    "sql_mode": "TRADITIONAL",
    "connect_timeout": 10,
    "read_timeout": 60,
    "write_timeout": 60,
}


@lru_cache(maxsize=64)
def packed(query: sa.Select[Any]) -> sa.Select[Any]:
    """The same query with all its columns as one, a JSON array.

    PyMySQL is written in Python: it takes apart each value, and before that a description of each column.
    """
    return query.with_only_columns(sa.func.json_array(*query.selected_columns))


def mariadb_engine(url: URL, connections: int) -> Engine:
    """An engine with so many connections at most.

    READ COMMITTED, as on PostgreSQL and for the same reason; also because InnoDB's own default locks gaps between
    rows, in which inserts that have nothing to do with each other deadlock.
    """
    engine = sa.create_engine(
        url.set(drivername="mariadb+pymysql"),
        isolation_level="READ COMMITTED",
        pool_size=connections,
        max_overflow=2,
        pool_recycle=1800,
        # Transactions are ended by those who begin them: one more ROLLBACK after each is a round trip for nothing.
        pool_reset_on_return=None,
        connect_args={key: value for key, value in _CONNECT.items() if key not in url.query},
    )

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            # A lock that is waited for longer is given up, and the transaction run again.
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 10")
            cursor.execute("SHOW SESSION VARIABLES LIKE 'wsrep_on'")
            row = cursor.fetchone()
            if row is not None and row[1] == "ON":
                # Who was answered by one node finds it on every node: a read waits for what was committed before it.
                cursor.execute("SET SESSION wsrep_sync_wait = @@SESSION.wsrep_sync_wait | 1")

    return engine
