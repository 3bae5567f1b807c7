"""What an error of a database means for the transaction that it ended. Pure: an error in, a verdict out."""

import sqlite3
from enum import Enum

from sqlalchemy import exc


class Verdict(Enum):
    """What to do about an error."""

    AGAIN = "another transaction was in the way, this one is undone: run it again"
    AWAY = "the server cannot be reached or does not serve now: run it again, with patience"
    FINAL = "running it again would bring the same"


#: SQLSTATEs of PostgreSQL and error numbers of MariaDB after which nothing of the transaction is kept, not even when
#: they answer its COMMIT (which is where a Galera cluster says that another node was faster).
_UNDONE: dict[str | int, str] = {
    "40001": "serialization_failure",
    "40P01": "deadlock_detected",
    "55P03": "lock_not_available: lock_timeout went by",
    1020: "ER_CHECKREAD: changed since it was read, with innodb_snapshot_isolation",
    1205: "ER_LOCK_WAIT_TIMEOUT",
    1213: "ER_LOCK_DEADLOCK, and Galera's lost certification",
}
#: Rows that another committed, or took away, between a look and a write. The second run sees them.
_COLLISIONS: dict[str | int, str] = {
    "23503": "foreign_key_violation",
    "23505": "unique_violation",
    1062: "ER_DUP_ENTRY",
    1451: "ER_ROW_IS_REFERENCED_2",
    1452: "ER_NO_REFERENCED_ROW_2",
}
#: A server that is starting, ending, full, or not part of its cluster now. It has not carried out what it was told.
_AWAY: dict[str | int, str] = {
    "0A000": "feature_not_supported: a standby, told to begin a transaction that writes",
    "25006": "read_only_sql_transaction: a standby, until it is promoted",
    "53300": "too_many_connections",
    "57P03": "cannot_connect_now",
    1040: "ER_CON_COUNT_ERROR",
    1047: "ER_UNKNOWN_COM_ERROR: WSREP has not yet prepared node for application use",
    1290: "ER_OPTION_PREVENTS_STATEMENT: a replica that is read only",
    2002: "CR_CONNECTION_ERROR",
    2003: "CR_CONN_HOST_ERROR",
}
#: The same, where COMMIT may have gone through before.
_INTERRUPTED: dict[str | int, str] = {
    "57P01": "admin_shutdown",
    "57P02": "crash_shutdown",
    1053: "ER_SERVER_SHUTDOWN",
    1317: "ER_QUERY_INTERRUPTED, which a Galera node tells a statement that stood in another's way",
    1927: "ER_CONNECTION_KILLED",
    2006: "CR_SERVER_GONE_ERROR",
    2013: "CR_SERVER_LOST",
}
#: What else keeps a server from doing what it is told: by PostgreSQL's class of SQLSTATEs or MariaDB's number.
_UNABLE: dict[str | int, str] = {
    "08": "connection exception",
    "28": "invalid authorization specification",
    "3D": "invalid catalog name: no such database",
    "53": "insufficient resources: disk, memory",
    "57": "operator intervention",
    "58": "system error: its files",
    1021: "ER_DISK_FULL",
    1026: "ER_ERROR_ON_WRITE",
    1030: "ER_GET_ERRNO, of the storage engine",
    1037: "ER_OUTOFMEMORY",
    1041: "ER_OUT_OF_RESOURCES",
    1044: "ER_DBACCESS_DENIED_ERROR",
    1045: "ER_ACCESS_DENIED_ERROR",
    1049: "ER_BAD_DB_ERROR",
    1114: "ER_RECORD_FILE_FULL",
    1129: "ER_HOST_IS_BLOCKED",
    1130: "ER_HOST_NOT_PRIVILEGED",
    1180: "ER_ERROR_DURING_COMMIT",
    1203: "ER_TOO_MANY_USER_CONNECTIONS",
    1206: "ER_LOCK_TABLE_FULL",
    1226: "ER_USER_LIMIT_REACHED",
    1969: "ER_STATEMENT_TIMEOUT",
}


def code_of(error: exc.DBAPIError) -> str | int | None:
    """PostgreSQL's SQLSTATE or MariaDB's number; None for an error that the driver raised without one."""
    original = error.orig
    first = original.args[0] if original is not None and original.args else None
    if isinstance(first, int):  # PyMySQL: its SQLSTATE says less
        return first
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else None


def verdict(error: exc.DBAPIError) -> Verdict:
    """Of an error that came before the transaction's COMMIT was sent: for certain, nothing is kept of it."""
    code = code_of(error)
    if code in _UNDONE or code in _COLLISIONS:
        return Verdict.AGAIN
    if code in _AWAY or code in _INTERRUPTED or error.connection_invalidated:
        return Verdict.AWAY
    if code is None and isinstance(error, exc.OperationalError):  # psycopg could not connect
        return Verdict.AWAY
    return Verdict.FINAL


def outage(error: exc.OperationalError) -> bool:
    """Whether the database is at fault, SQLite too, and not the statement: the same may be done once that is over."""
    number = getattr(error.orig, "sqlite_errorcode", None)
    if number is not None:
        return bool(number & 0xFF != sqlite3.SQLITE_ERROR)
    code = code_of(error)
    return verdict(error) is not Verdict.FINAL or (code[:2] if isinstance(code, str) else code) in _UNABLE


def undone(error: exc.DBAPIError) -> bool:
    """Whether an error that answered COMMIT says for certain that nothing is kept."""
    code = code_of(error)
    return code in _UNDONE or code in _COLLISIONS or code in _AWAY
