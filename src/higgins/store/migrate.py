"""Bring a database to the newest revision. Safe to run by every process at its start: done already is done.

One process at a time does so, the others wait. On PostgreSQL and SQLite the whole is one transaction; MariaDB commits
every statement that changes a table, so there each revision's own end is all that is certain after a failure.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, Engine

from higgins.store.database import make_engine

#: The name of the lock on MariaDB; on PostgreSQL its number: "higgins" in ASCII.
_LOCK = "higgins"
_LOCK_NUMBER = int.from_bytes(_LOCK.encode())
#: Seconds to wait for another process's migration, or for one statement of one's own.
_PATIENCE = 3600


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def revisions() -> list[str]:
    """All revisions, the oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def head() -> str | None:
    """The newest revision that this version knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def current(engine: Engine) -> str | None:
    """The revision that the database is at; None for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrate(engine: Engine, revision: str = "head") -> None:
    """Run what revisions are missing, up to ``revision``."""
    if current(engine) == (head() if revision == "head" else revision):
        return
    config = _config()
    with _alone(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


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
