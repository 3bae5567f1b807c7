"""What the store promises of a transaction and of a value, on each kind of database."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.model.errors import Invalid, OutcomeUnknown, StoreUnavailable
from higgins.store import servers
from higgins.store.database import Store, open_store
from higgins.store.schema import console, project
from higgins.store.transactions import attempt, insert_missing
from higgins.store.verdicts import Verdict, verdict
from tests.engines.databases import Server

ZERO = {"containers": 0, "cpu": 0, "memory": 0, "disk": 0}


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    opened = open_store(database)
    yield opened
    await opened.close()


@pytest.fixture
async def served(server: Server) -> AsyncIterator[Store]:
    """A store on a server: what only those can do."""
    opened = open_store(server.empty())
    yield opened
    await opened.close()


def insert(conn: Connection, *names: str) -> None:
    for name in names:
        conn.execute(sa.insert(project).values(id=name, **ZERO))


def names(conn: Connection) -> list[str]:
    return list(conn.execute(sa.select(project.c.id).order_by(project.c.id)).scalars())


def count(conn: Connection, name: str) -> int:
    """Add one to a row; what it is then."""
    mine = project.c.id == name
    conn.execute(sa.update(project).where(mine).values(containers=project.c.containers + 1))
    return int(conn.execute(sa.select(project.c.containers).where(mine)).scalar_one())


def kill(conn: Connection, server: Server) -> None:
    """End a connection as its server does when it stops, or an operator who ends it."""
    with server.admin().connect() as admin:
        if conn.dialect.name == "postgresql":
            number = conn.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
            admin.exec_driver_sql(f"SELECT pg_terminate_backend({number}, 30000)")
        else:
            number = conn.connection.driver_connection.thread_id()  # type: ignore[union-attr]
            admin.exec_driver_sql(f"KILL CONNECTION {number}")


async def test_transactions_that_want_each_others_rows_are_both_done_once(store: Store) -> None:
    await store.write(lambda conn: insert(conn, "a", "b"))
    first_taken = threading.Barrier(2)

    def cross(conn: Connection, first: str, second: str) -> None:
        count(conn, first)
        if attempt(conn) == 1 and conn.dialect.name != "sqlite":  # there the second begins when the first is over
            first_taken.wait(30)
        count(conn, second)

    await asyncio.gather(
        store.write(lambda conn: cross(conn, "a", "b")),
        store.write(lambda conn: cross(conn, "b", "a")),
    )
    assert await store.read(lambda conn: set(conn.execute(sa.select(project.c.containers)).scalars())) == {2}


async def test_who_collides_runs_again_and_sees_the_row_that_was_in_the_way(served: Store) -> None:
    inserted = threading.Event()
    looked = threading.Event()

    def first(conn: Connection) -> None:
        assert looked.wait(30)
        insert(conn, "one")
        inserted.set()

    def second(conn: Connection) -> tuple[int, bool]:
        there = "one" in names(conn)
        looked.set()
        assert inserted.wait(30)
        if not there:
            insert(conn, "one")
        return attempt(conn), there

    _, result = await asyncio.gather(served.write(first), served.write(second))
    assert result == (2, True)


async def test_a_collision_that_stays_is_an_error_in_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_ATTEMPTS", 2)
    with pytest.raises(sa.exc.IntegrityError):
        await store.write(lambda conn: insert(conn, "same", "same"))
    assert await store.read(names) == []


async def test_a_row_that_is_there_is_left_as_it_is(store: Store) -> None:
    await store.write(lambda conn: insert(conn, "there"))
    await store.write(lambda conn: count(conn, "there"))
    for name in ("there", "new"):
        await store.write(lambda conn, name=name: insert_missing(conn, project, id=name, **ZERO))  # type: ignore[misc]
    assert await store.read(names) == ["new", "there"]
    assert await store.write(lambda conn: count(conn, "there")) == 2


async def test_a_connection_that_ends_before_the_commit_costs_nothing_but_another_run(
    served: Store, server: Server
) -> None:
    await served.write(lambda conn: insert(conn, "a"))

    def work(conn: Connection, change: Callable[[], object]) -> tuple[int, int]:
        change()
        if attempt(conn) == 1:
            kill(conn, server)
        return attempt(conn), conn.execute(sa.select(project.c.containers)).scalar_one()

    assert await served.write(lambda conn: work(conn, lambda: count(conn, "a"))) == (2, 1)
    assert await served.read(lambda conn: work(conn, lambda: None)) == (2, 1)
    assert await served.write(lambda conn: count(conn, "a")) == 2


async def test_a_connection_that_ends_in_the_commit_is_told_and_not_run_again(served: Store, server: Server) -> None:
    await served.write(lambda conn: insert(conn, "a"))
    runs: list[int] = []

    def work(conn: Connection) -> None:
        runs.append(count(conn, "a"))
        sa.event.listen(conn, "before_cursor_execute", killed)

    def killed(conn: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        if statement == "COMMIT":
            kill(conn, server)

    with pytest.raises(OutcomeUnknown, match="look whether it was"):
        await served.write(work)
    assert runs == [1]


@pytest.mark.parametrize("refusal", [psycopg.errors.FeatureNotSupported, psycopg.errors.ReadOnlySqlTransaction])
def test_a_standby_is_waited_for_until_it_is_promoted(refusal: type[psycopg.Error]) -> None:
    assert verdict(sa.exc.NotSupportedError("START TRANSACTION READ WRITE", None, refusal())) is Verdict.AWAY


async def test_a_server_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_ATTEMPTS", 2)
    store = open_store("postgresql+psycopg://nobody@/nothing?host=/nowhere")
    with pytest.raises(StoreUnavailable, match="does not answer now"):
        await store.read(names)
    await store.close()


async def test_an_sqlite_file_that_is_full_keeps_what_it_had_and_refuses_the_rest(sqlite: Path, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{shutil.copy(sqlite, tmp_path / 'small.db')}")

    def shrink(conn: Connection) -> None:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")

    await store.write(shrink)
    await store.write(lambda conn: insert(conn, "kept"))
    results = await asyncio.gather(
        *[store.write(lambda conn, n=n: insert(conn, f"{n:04}" + "x" * 200)) for n in range(200)],  # type: ignore[misc]
        return_exceptions=True,
    )
    there = await store.read(names)
    assert sum(result is None for result in results) == len(there) - 1 < 200
    assert {type(result) for result in results} == {type(None), StoreUnavailable}
    assert "kept" in there
    await store.close()


async def test_an_sqlite_file_that_another_process_keeps_locked_is_unavailable(sqlite: Path, tmp_path: Path) -> None:
    file = shutil.copy(sqlite, tmp_path / "locked.db")
    store = open_store(f"sqlite:///{file}")
    await store.write(lambda conn: conn.exec_driver_sql("PRAGMA busy_timeout=0").close())
    other = sqlite3.connect(file)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="does not answer now"):
        await store.write(lambda conn: insert(conn, "late"))
    other.close()
    await store.write(lambda conn: insert(conn, "late"))
    await store.close()


async def test_a_statement_that_is_wrong_is_no_outage(store: Store) -> None:
    for run in (store.read, store.write):
        with pytest.raises(sa.exc.DBAPIError, match="no_such_column"):
            await run(lambda conn: conn.execute(sa.select(sa.column("no_such_column")).select_from(project)).all())


async def test_words_that_differ_in_case_accents_or_trailing_space_are_different(store: Store) -> None:
    words = ["web", "Web", "wéb", "web ", "we\u0301b", "\U0001f40b", "ss", "ß", ""]
    await store.write(lambda conn: insert(conn, *words))
    assert await store.read(names) == sorted(words)
    for word in words:
        query = sa.select(project.c.id).where(project.c.id == word)
        assert await store.read(lambda conn, query=query: conn.execute(query).scalar_one()) == word  # type: ignore[misc]


async def test_moments_amounts_and_long_texts_are_kept_exactly(store: Store) -> None:
    moment, long = datetime(2026, 6, 1, 12, 30, 59, 123457), "🐋" * 300_000

    def work(conn: Connection) -> None:
        conn.execute(
            sa.insert(console).values(token_hash="t", container_uuid="c", kind="exec", command=long, expires_at=moment)
        )
        conn.execute(sa.insert(project).values(id="p", **{**ZERO, "cpu": 1234567.1}))

    await store.write(work)
    read = sa.select(console.c.expires_at, console.c.command, project.c.cpu).select_from(
        console.join(project, project.c.id == "p")
    )
    assert tuple(await store.read(lambda conn: conn.execute(read).one())) == (moment, long, 1234567.1)


async def test_an_update_counts_the_rows_it_matched_and_not_those_it_changed(store: Store) -> None:
    await store.write(lambda conn: insert(conn, "a"))
    same = sa.update(project).where(project.c.id == "a").values(containers=0)
    assert await store.write(lambda conn: conn.execute(same).rowcount) == 1


@pytest.mark.parametrize(
    "bad",
    [
        lambda conn: insert(conn, "x" * 256),
        lambda conn: insert(conn, "half a \ud83d"),
        lambda conn: conn.execute(sa.insert(project).values(id="p", **{**ZERO, "memory": 2**40})),
    ],
    ids=["too long", "no character", "too large"],
)
async def test_a_value_that_no_column_can_hold_is_the_fault_of_who_sends_it(
    served: Store, bad: Callable[[Connection], None]
) -> None:
    with pytest.raises(Invalid, match="cannot be kept"):
        await served.write(bad)
    assert await served.read(names) == []
