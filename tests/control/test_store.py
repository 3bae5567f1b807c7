"""Transactions: what is committed together, what is undone alone, and who is woken."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from higgins.control import hosts
from higgins.control.cloud import Cloud
from higgins.model.errors import Conflict, StoreUnavailable
from higgins.store import servers
from higgins.store.database import Store, open_store, touch_host
from higgins.store.migrate import current, head, migrate
from higgins.store.schema import metadata, project
from tests.control.conftest import Host


def insert(name: str) -> sa.Insert:
    return sa.insert(project).values(id=name, containers=0, cpu=0, memory=0, disk=0)


async def names(cloud: Cloud) -> set[str]:
    return await cloud.store.read(lambda conn: set(conn.execute(sa.select(project.c.id)).scalars()))


async def test_one_refusal_in_a_group_of_commits_undoes_only_its_own_rows(cloud: Cloud) -> None:
    def refuse(conn: Connection) -> None:
        conn.execute(insert("refused"))
        raise Conflict("no")

    async def good(name: str) -> None:
        await cloud.store.write(lambda conn: conn.execute(insert(name)).rowcount)

    async def bad() -> None:
        with pytest.raises(Conflict):
            await cloud.store.write(refuse)

    await asyncio.gather(*[good(f"good-{n}") for n in range(20)], *[bad() for _ in range(5)])
    assert await names(cloud) == {f"good-{n}" for n in range(20)}


async def test_a_read_changes_nothing(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_ATTEMPTS", 1)
    # A server refuses at once; SQLite undoes it.
    with contextlib.suppress(StoreUnavailable, sa.exc.OperationalError):
        await cloud.store.read(lambda conn: conn.execute(insert("read")).rowcount)
    assert await names(cloud) == set()


async def test_a_write_that_is_refused_leaves_nothing_behind_for_the_next_one(cloud: Cloud) -> None:
    def refuse(conn: Connection) -> None:
        conn.execute(insert("refused"))
        raise Conflict("no")

    for number in range(20):  # each thread has a connection of its own
        with pytest.raises(Conflict):
            await cloud.store.write(refuse)
        await cloud.store.write(lambda conn, number=number: conn.execute(insert(f"{number}")).rowcount)  # type: ignore[misc]
    assert await names(cloud) == {f"{number}" for number in range(20)}


async def test_what_was_written_is_there_after_the_store_is_opened_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/again.db"
    store = open_store(url)
    migrate(store.engine)
    await store.write(lambda conn: conn.execute(insert("kept")).rowcount)
    await store.close()
    store = open_store(url)
    assert await store.read(lambda conn: conn.execute(sa.select(project.c.id)).scalar_one()) == "kept"
    await store.close()


async def test_who_waits_is_woken_by_the_commit_and_not_by_a_refusal(cloud: Cloud, host: Host) -> None:
    def refused(conn: Connection) -> None:
        touch_host(conn, host.number)
        raise Conflict("no")

    answer = asyncio.create_task(hosts.assignments(cloud, host.number, 0, 30))
    with pytest.raises(Conflict):
        await cloud.store.write(refused)
    assert not answer.done()
    await cloud.store.write(lambda conn: touch_host(conn, host.number))
    told = await answer
    assert told is not None
    assert told.revision == 1


async def test_a_host_that_asks_with_an_old_revision_is_answered_at_once(cloud: Cloud, host: Host) -> None:
    await cloud.store.write(lambda conn: touch_host(conn, host.number))
    told = await hosts.assignments(cloud, host.number, 0, 30)
    assert told is not None
    assert told.revision == 1
    assert await hosts.assignments(cloud, host.number, told.revision, 0.01) is None


async def test_the_migrations_make_exactly_the_tables_of_the_schema(cloud: Cloud) -> None:
    assert current(cloud.store.engine) == head()
    with cloud.store.engine.connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []


async def test_another_process_leaves_the_log_of_a_file_that_two_stores_of_this_one_use(
    sqlite: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(sqlite, tmp_path / "higgins.db"))
    url = f"sqlite:///{file}"
    stores: list[Store] = []
    for _ in range(2):  # the second is opened while the first one has its locks
        store = open_store(url)
        await store.write(lambda conn: conn.execute(insert(str(len(stores)))).rowcount)
        stores.append(store)
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM host'); c.close()"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, str(file)], check=True)
    assert file.with_name("higgins.db-wal").exists()  # who thinks that nobody else is there removes it
    for store in stores:
        await store.close()
