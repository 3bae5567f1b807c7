"""Pages of lists: complete in every order, and found by an index wherever there is one."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from higgins.control import containers, lookup
from higgins.control.cloud import Actor, Cloud
from higgins.control.query import ListQuery
from higgins.control.rows import COLUMNS, Making
from higgins.model.resources import Container
from higgins.store.database import make_engine
from higgins.store.schema import container
from tests.control.conftest import Clock, Host, draft

#: What a list of a project is found in order by; by any other key its containers are sorted for each page.
INDEXED = ("created_at", "id", "image", "name", "status")


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_in_any_order_have_each_container_once(
    cloud: Cloud, host: Host, alice: Actor, direction: str
) -> None:
    for number in range(5):
        spec = {"memory": 4 + number % 2, "auto_remove": number % 2 == 0}
        await containers.create(cloud, alice, draft(f"c{number % 3}", cpu=0.1, **spec), run=True)
    everything = {one.uuid for one in await containers.find(cloud, alice, ListQuery())}
    for key in sorted(lookup.SORT_KEYS):
        query = ListQuery(limit=2, sort_key=key, sort_dir=direction)  # type: ignore[arg-type]
        seen: list[str] = []
        while page := await containers.find(cloud, alice, query):
            seen += [one.uuid for one in page]
            query.marker = page[-1].uuid
        assert len(seen) == 5, key
        assert set(seen) == everything, key


async def test_a_list_has_of_each_what_it_has_alone(cloud: Cloud, host: Host, alice: Actor) -> None:
    odd = {"labels": {'"quoted"': "back\\slash", "line\nbreak": "tab\t\x01 é 🐳"}, "command": ["sh", "-c", "echo '{}'"]}
    made = [await containers.create(cloud, alice, draft(f"c{n}", cpu=0.1, memory=4, **odd), run=True) for n in range(3)]
    reason = 'exec: "a\\b"\n\tno such file: é 🐳 \x07'
    changed = sa.update(container).where(container.c.uuid == made[1].uuid).values(status="Error", status_reason=reason)
    await cloud.store.write(lambda conn: conn.execute(changed).rowcount)
    assert await containers.find(cloud, alice, ListQuery()) == [
        await containers.get(cloud, alice, one.uuid) for one in made
    ]
    assert (await containers.get(cloud, alice, made[1].uuid)).status_reason == reason


async def test_what_was_made_of_a_list_is_made_anew_where_it_reads_otherwise(
    cloud: Cloud, host: Host, alice: Actor, clock: Clock
) -> None:
    first, second = [await containers.create(cloud, alice, draft(cpu=0.1, memory=4), run=True) for _ in range(2)]
    await host.says(first.uuid, state="running", started_at=clock())
    made: list[str] = []

    def shown(item: Container) -> str:
        made.append(item.uuid)
        return f"{item.status} {item.status_detail}"

    making = Making(shown)

    async def told() -> list[str]:
        made.clear()
        found: list[str] = await containers.find(cloud, alice, ListQuery(), making)
        return found

    assert await told() == ["Running Up 0 seconds", "Creating None"]
    assert await told() == ["Running Up 0 seconds", "Creating None"]
    assert made == []
    clock.forward(180)
    assert await told() == ["Running Up 3 mins", "Creating None"]
    assert made == [first.uuid]
    await containers.delete(cloud, alice, second.uuid)
    assert await told() == ["Running Up 3 mins", "Deleting None"]
    assert made == [second.uuid]


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Of those two, whose plans can be told without many rows; MariaDB's depend on how many there are."""
    found = request.getfixturevalue(request.param)
    made = make_engine(found.empty() if request.param == "postgresql" else f"sqlite:///{found}")
    yield made
    made.dispose()


def plan(conn: Connection, query: sa.Select[tuple[object, ...]]) -> str:
    """How the database goes about it; PostgreSQL sorts and scans only where it must, however few rows there are."""
    sql = query.compile(conn, compile_kwargs={"literal_binds": True}).string
    if conn.dialect.name == "sqlite":
        return "\n".join(str(row) for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
    for way in ("seqscan", "sort", "bitmapscan"):
        conn.exec_driver_sql(f"SET LOCAL enable_{way} = off")
    return "\n".join(conn.exec_driver_sql(f"EXPLAIN {sql}").scalars())


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("key", INDEXED)
def test_a_page_finds_its_place_in_an_index(engine: Engine, key: str, direction: str) -> None:
    with engine.begin() as conn:
        query = ListQuery(sort_key=key, sort_dir=direction)  # type: ignore[arg-type]
        conditions, order = lookup.page(container, query, lookup.SORT_KEYS, conn, "container", project="red")
        found = plan(
            conn, sa.select(*COLUMNS).where(container.c.role == "plain", *conditions).order_by(*order).limit(10)
        )
    assert "TEMP B-TREE" not in found  # SQLite's way to sort
    assert "Sort" not in found  # PostgreSQL's
    assert "ix_container" in found
    if conn.dialect.name == "sqlite":  # which has no figures of the rows to decide by, so it always decides so
        assert "(project_id=? AND role=?)" in found


@pytest.mark.parametrize("field", ["image", "name", "status"])
def test_a_filter_finds_its_rows_in_an_index(engine: Engine, field: str) -> None:
    with engine.begin() as conn:
        conditions = [container.c.project_id == "red", container.c.role == "plain", container.c[field] == "x"]
        found = plan(conn, sa.select(*COLUMNS).where(*conditions).order_by(container.c.id).limit(10))
    if conn.dialect.name == "sqlite":
        assert f"ix_container_project_id_role_{field}_id (project_id=? AND role=? AND {field}=?)" in found
    assert "Seq Scan" not in found
    assert "TEMP B-TREE" not in found


@pytest.mark.parametrize("scope", ["project", "global"])
def test_a_name_is_looked_up_in_an_index(engine: Engine, scope: str) -> None:
    query = sa.select(container.c.id).where(container.c.name == "web").limit(1)
    if scope == "project":
        query = query.where(container.c.project_id == "red")
    with engine.begin() as conn:
        found = plan(conn, query)
    assert "ix_container" in found
    if conn.dialect.name == "sqlite":
        assert "ix_container_name_project_id_role (name=?" in found
