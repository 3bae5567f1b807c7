"""Migrations: from every earlier revision, with rows in every table, on each kind of database."""

import datetime
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection, Engine

from higgins.store import migrate as migrating
from higgins.store.database import make_engine
from higgins.store.migrate import TooOld, current, head, migrate, revisions, serves
from higgins.store.schema import metadata
from tests.releases import MIGRATIONS, NEXT, next_release

#: Of each table that many rows: the second has no value wherever none is needed.
_ROWS = 2
#: What the migrations note for themselves.
_OWN = {"alembic_version", "schema_floor"}
#: Columns that a revision changes: since 0004 volumes count.
_COUNTED_ANEW = {"host": {"disk_used"}, "project": {"disk"}}


@pytest.fixture
def engine(bare_database: str) -> Any:
    made = make_engine(bare_database)
    yield made
    made.dispose()


def value(column: sa.Column[Any], table: sa.Table, row: int) -> object:
    """A value that fits the column: one of its own for each row, and the same row of the table that it refers to."""
    kind = column.type.python_type
    if column.foreign_keys or column.primary_key:
        return row + 1 if kind is int else f"{table.name}-{row}"[: getattr(column.type, "length", None) or 255]
    if row == 1 and column.nullable:
        return None
    if kind is datetime.datetime:
        return datetime.datetime(2026, 6, 1, 12, 0, row, 123456)
    if kind is bool:
        return row == 0
    if kind is str:
        return f"Ünï {row}"[: getattr(column.type, "length", None) or 255]
    return kind(row + 1)


def fill(conn: Connection) -> dict[str, list[dict[str, Any]]]:
    """Insert rows into every table as it is now; what is in them."""
    there = sa.MetaData()
    there.reflect(conn)
    for table in there.sorted_tables:
        if table.name in _OWN:
            continue
        for row in range(_ROWS):
            conn.execute(sa.insert(table).values({column.name: value(column, table, row) for column in table.columns}))
    return contents(conn, there)


def contents(conn: Connection, there: sa.MetaData) -> dict[str, list[dict[str, Any]]]:
    return {
        table.name: [dict(row) for row in conn.execute(sa.select(table).order_by(*table.primary_key)).mappings()]
        for table in there.sorted_tables
        if table.name not in _OWN
    }


def test_the_newest_revision_is_told_by_the_names_of_the_files() -> None:
    assert head() == revisions()[-1]


@pytest.mark.parametrize("start", revisions())
def test_rows_survive_the_way_from_every_revision_to_the_newest(engine: Engine, start: str) -> None:
    migrate(engine, start)
    assert current(engine) == start
    with engine.begin() as conn:
        before = fill(conn)
    assert before["container"][0]["name"] == "Ünï 0"
    migrate(engine)
    assert current(engine) == head()
    there = sa.MetaData()
    there.reflect(engine)
    with engine.connect() as conn:
        after = contents(conn, there)
    for name, rows in before.items():
        assert len(after[name]) == len(rows), name
        for old, new in zip(rows, after[name], strict=True):
            same = (old.keys() & new.keys()) - _COUNTED_ANEW.get(name, set())
            assert {key: new[key] for key in same} == {key: old[key] for key in same}, name


def test_volumes_that_were_there_are_charged_and_claimed(engine: Engine) -> None:
    migrate(engine, "0003")
    there = sa.MetaData()
    there.reflect(engine)
    volume, project = there.tables["volume"], there.tables["project"]
    with engine.begin() as conn:
        fill(conn)
        conn.execute(sa.update(volume).values(size=5, deleting=False, project_id="project-0", name=None))
    migrate(engine)
    with engine.connect() as conn:
        used = conn.execute(sa.select(there.tables["host"].c.disk_used).order_by(sa.text("id"))).scalars().all()
        charged = conn.execute(sa.select(project.c.disk).order_by(project.c.id)).scalars().all()
    assert (list(used), list(charged)) == ([1 + 5, 2 + 5], [1 + 10, 2])


def test_one_revision_after_the_other_makes_exactly_the_tables_of_the_schema(engine: Engine) -> None:
    for revision in revisions():
        migrate(engine, revision)
        assert current(engine) == revision
    with engine.connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []


def test_the_columns_are_those_that_the_schema_itself_would_make(bare_database: str, engine: Engine) -> None:
    """What autogenerate does not compare: collations, and how exact moments and amounts are."""
    migrate(engine)
    migrated = described(engine)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    assert described(engine) == migrated


def described(engine: Engine) -> dict[tuple[str, str], str]:
    inspector = sa.inspect(engine)
    return {
        (table, column["name"]): f"{column['type'].compile(engine.dialect)} {column['nullable']}"
        for table in metadata.tables
        for column in inspector.get_columns(table)
    }


def test_two_processes_that_migrate_at_once_are_one_after_the_other(bare_database: str) -> None:
    engines = [make_engine(bare_database) for _ in range(2)]
    failed: list[Exception] = []

    def run(engine: Engine) -> None:
        try:
            migrate(engine)
        except Exception as error:  # shown by the assertion below, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=run, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert current(engines[0]) == head()
    for engine in engines:
        engine.dispose()


def migrated_by(release: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a start of that release does it."""
    with monkeypatch.context() as patch:
        patch.setattr(migrating, "_MIGRATIONS", release / MIGRATIONS)
        migrate(engine)
    assert current(engine) == NEXT


def test_tables_of_the_next_release_are_left_as_they_are_where_this_one_gets_by_with_them(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(engine)
    migrated_by(next_release(tmp_path), engine, monkeypatch)
    assert serves(engine)
    migrate(engine)
    assert current(engine) == NEXT


def test_tables_of_the_next_release_are_refused_where_it_says_that_this_one_does_not(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated_by(next_release(tmp_path, floor=NEXT), engine, monkeypatch)
    for start in (serves, migrate):
        with pytest.raises(TooOld, match=f"revision {NEXT}; this one knows none after {head()}"):
            start(engine)
    assert current(engine) == NEXT
