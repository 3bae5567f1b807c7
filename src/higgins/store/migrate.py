"""Bring a database to the newest revision. Safe to run by every process at its start: done already is done.

A database may be newer than the version that starts on it, as in the middle of an upgrade. Its floor, in a table of its
own, is the oldest revision whose version gets by with it: a revision that adds what older ones need not know leaves
the floor as it is, one that takes something away from them says with ``floor = "…"`` which is the first to do without.

Alembic is loaded only where revisions are to be run or told: it would be a tenth of each start, and what a start asks
first is one row.

One process at a time does so, the others wait. On PostgreSQL and SQLite the whole is one transaction; MariaDB commits
every statement that changes a table, so there each revision's own end is all that is certain after a failure.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from higgins.model.errors import HigginsError
from higgins.store.database import make_engine
from higgins.store.schema import schema_floor

if TYPE_CHECKING:
    from alembic.config import Config

#: The name of the lock on MariaDB; on PostgreSQL its number: "higgins" in ASCII.
_LOCK = "higgins"
_LOCK_NUMBER = int.from_bytes(_LOCK.encode())
#: Seconds to wait for another process's migration, or for one statement of one's own.
_PATIENCE = 3600
_MIGRATIONS = Path(__file__).parent / "migrations"
#: Where Alembic keeps what the database is at.
_VERSION = sa.table("alembic_version", sa.column("version_num", sa.String))


class TooOld(HigginsError):
    """The database was made by a version beside which this one may not run."""


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def revisions() -> list[str]:
    """All revisions, the oldest first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def head() -> str:
    """The newest revision that this version knows: their files bear their numbers."""
    return max(path.name for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py")).partition("_")[0]


def floor(revision: str = "head") -> str | None:
    """The oldest revision whose version may be started on the tables of ``revision``; None before there was a floor."""
    from alembic.script import ScriptDirectory

    for script in ScriptDirectory.from_config(_config()).walk_revisions(head=revision):  # the newest first
        if (told := getattr(script.module, "floor", None)) is not None:
            return str(told)
    return None


def current(engine: Engine) -> str | None:
    """The revision that the database is at; None for an empty one."""
    with engine.connect() as connection:
        return _current(connection)


def serves(engine: Engine) -> bool:
    """Whether this version may work on the database as it is; False where revisions are missing. Raises TooOld."""
    with engine.connect() as connection:
        return _serves(connection)


def migrate(engine: Engine, revision: str = "head") -> None:
    """Run what revisions are missing, up to ``revision``. Raises TooOld where the database is too new."""
    if serves(engine):
        return
    from alembic import command

    config = _config()
    with _alone(engine) as connection:
        if _serves(connection):
            return  # another process was faster
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        if (told := floor(revision)) is not None:
            connection.execute(sa.delete(schema_floor))
            connection.execute(sa.insert(schema_floor).values(revision=told))


def _current(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()


def _serves(connection: Connection) -> bool:
    there, newest = _current(connection), head()
    if there == newest:
        return True
    known = revisions()
    if there is None or there in known:
        return False
    needed = connection.execute(sa.select(schema_floor.c.revision)).scalar_one_or_none()
    if needed not in known:
        raise TooOld(
            f"The database is at revision {there}, made by a newer version, and takes one that knows revision "
            f"{needed or there}; this one knows none after {newest}."
        )
    return True


@contextlib.contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction, once no other process migrates any more."""
    match engine.dialect.name:
        case "sqlite":
            with _without_foreign_keys(engine) as connection, connection.begin():  # begins IMMEDIATE: one at a time
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise ValueError(f"After the migration rows would refer to rows that are not there: {broken[:5]}")
        case "postgresql":
            with engine.begin() as connection:
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_NUMBER)))
                yield connection
        case _:
            patient = make_engine(engine.url.update_query_dict({"read_timeout": str(2 * _PATIENCE)}))
            with contextlib.ExitStack() as stack:
                stack.callback(patient.dispose)
                connection = stack.enter_context(patient.begin())
                if connection.execute(sa.select(sa.func.get_lock(_LOCK, _PATIENCE))).scalar() != 1:
                    raise TimeoutError("Another process has been migrating the database for an hour.")
                yield connection  # the lock goes with the connection


@contextlib.contextmanager
def _without_foreign_keys(engine: Engine) -> Iterator[Connection]:
    """A table is changed by making it anew, and dropping the old one would count as deleting rows referred to."""
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA foreign_keys=OFF")
        try:
            yield connection
        finally:
            raw.execute("PRAGMA foreign_keys=ON")
