"""Several replicas on one database at once, on each kind of it: what holds between them, and who hears of what."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy.engine import Connection

from higgins.control import capsules, containers, events, hosts, housekeeping, networks, observing, quotas
from higgins.control.capsules import CapsuleDraft
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import NetRequest
from higgins.control.feed import Tail, fresh
from higgins.control.link import Known, Observation
from higgins.model.container import ContainerSpec, Mount, Status
from higgins.model.errors import AlreadyExists, Conflict, HigginsError, OverQuota
from higgins.model.resources import Container
from higgins.store.database import open_store, touch_host
from higgins.store.postgresql import payloads
from higgins.store.schema import container, event, host, network, port, volume, workload
from tests.control.conftest import Clock, Host, draft, report
from tests.control.replicas import EXACT
from tests.engines import wait_until
from tests.engines.databases import Server

T = TypeVar("T")


@pytest.fixture
async def replicas(database: str, clock: Clock) -> AsyncIterator[list[Cloud]]:
    """Three replicas of one control plane: a store, threads and wake-ups of its own each."""
    key = Fernet.generate_key()
    clouds = [Cloud(open_store(database, threads=6), key, EXACT, clock=clock) for _ in range(3)]
    yield clouds
    for cloud in clouds:
        await cloud.store.close()


async def together(*calls: Awaitable[T]) -> list[T | HigginsError]:
    """All at once; an error that a tenant may see is a result like any other."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for one in results:
        if isinstance(one, BaseException) and not isinstance(one, HigginsError):
            raise one
    return results  # type: ignore[return-value]


async def check_claims(cloud: Cloud) -> None:
    """Every host's claims are the sum of what it holds, and no more than it has."""

    def work(conn: Connection) -> None:
        sums = sa.select(
            workload.c.host_id,
            sa.func.count().label("containers"),
            sa.func.sum(workload.c.memory).label("memory"),
            sa.func.sum(workload.c.cpu).label("cpu"),
        ).group_by(workload.c.host_id)
        held = {row.host_id: row for row in conn.execute(sums)}
        for row in conn.execute(sa.select(host)):
            mine: Any = held.get(row.id)
            assert row.memory_used <= row.memory
            assert row.containers == (mine.containers if mine else 0)
            assert row.memory_used == (mine.memory if mine else 0)
            assert row.cpu_used == pytest.approx(mine.cpu if mine else 0, abs=1e-6)

    await cloud.store.read(work)


async def test_of_a_hundred_creates_on_three_replicas_exactly_the_quota_passes(
    replicas: list[Cloud], alice: Actor
) -> None:
    await hosts.register(replicas[0], report(memory=65536))
    await quotas.update(replicas[0], "red", {"containers": 10})
    results = await together(
        *[containers.create(replicas[n % 3], alice, draft(memory=4), run=True) for n in range(100)]
    )
    assert Counter(type(one) for one in results) == {Container: 10, OverQuota: 90}
    await check_claims(replicas[0])


async def test_creates_on_three_replicas_fill_small_hosts_to_the_brim_and_not_further(
    replicas: list[Cloud], alice: Actor, bob: Actor
) -> None:
    for n, size in enumerate((3, 2, 4)):
        await hosts.register(replicas[0], report(f"small-{n}", memory=1024 * size + 512))
    actors = [alice, bob, Actor(user_id="carol", project_id="green")]
    made = await together(
        *[containers.create(replicas[n % 3], actors[n // 3 % 3], draft(memory=1024), run=True) for n in range(24)]
    )
    assert Counter(one.status for one in made if isinstance(one, Container)) == {Status.CREATING: 9, Status.ERROR: 15}
    await check_claims(replicas[0])


async def test_processes_that_create_at_once_do_not_overcommit(database: str, replicas: list[Cloud]) -> None:
    replicas[0].now.forward(10**9)  # type: ignore[attr-defined]  # the processes have the real time
    for n in range(2):
        await hosts.register(replicas[0], report(f"small-{n}", memory=1024 * 3))
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.control.replicas", database, f"project-{n}", "6",
            stdout=asyncio.subprocess.PIPE,
        )
        for n in range(2)
    ]  # fmt: skip
    outputs = [(await process.communicate())[0].decode() for process in processes]
    assert Counter("".join(outputs).split()) == {"Creating": 6, "Error": 6}
    await check_claims(replicas[0])


#: What is asked at once: which replica, which project, how much memory in 256 MiB; a delete of the n-th, or a resize.
ASKED = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(1, 4), st.sampled_from(["create", "delete", "resize"])),
    min_size=4,
    max_size=16,
)


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3), asked=ASKED)
async def test_whatever_is_asked_at_once_claims_and_quotas_are_what_is_held(
    replicas: list[Cloud], sizes: list[int], asked: list[tuple[int, int, int, str]]
) -> None:
    actors = [Actor(user_id="u", project_id=f"p{n}", is_admin=True, request_id="r") for n in range(2)]
    for n, size in enumerate(sizes):
        await hosts.register(replicas[0], report(f"h{n}", memory=256 * size))
    before = [await containers.create(replicas[0], actors[n % 2], draft(memory=256), run=True) for n in range(3)]

    async def ask(replica: int, project: int, amount: int, verb: str) -> None:
        cloud, actor, old = replicas[replica], actors[project], before[amount % 3]
        match verb:
            case "create":
                await containers.create(cloud, actor, draft(memory=256 * amount), run=True)
            case "delete":
                await containers.delete(cloud, actor, old.uuid, force=True)
                if old.host is not None:
                    await forget(cloud, old.uuid)
            case "resize":
                await containers.update(cloud, actor, old.uuid, memory=256 * amount)

    await together(*[ask(*one) for one in asked])
    await check_claims(replicas[0])
    await check_projects(replicas[0])
    for one in await replicas[0].store.read(lambda conn: conn.execute(sa.select(workload)).all()):
        admin = actors[0]
        if not one.deleting:
            await containers.delete(replicas[0], admin, one.uuid, force=True)
        if one.host_id is not None:
            await forget(replicas[0], one.uuid)
    assert await replicas[0].store.read(lambda conn: conn.execute(sa.select(workload)).all()) == []
    await check_claims(replicas[0])
    await check_projects(replicas[0])
    await replicas[0].store.write(lambda conn: conn.execute(sa.delete(host)).rowcount)


async def forget(cloud: Cloud, uuid: str) -> None:
    """The host says that nothing of it is left; it may have said so before."""

    def look(conn: Connection) -> Any:
        return conn.execute(sa.select(workload).where(workload.c.uuid == uuid)).one_or_none()

    row = await cloud.store.read(look)
    if row is not None:
        gone = Observation(workload=uuid, generation=row.generation, gone=True)
        await observing.observe(cloud, row.host_id, [gone])


async def check_projects(cloud: Cloud) -> None:
    """What each project is charged for is the sum of what it has."""
    for project_id in ("p0", "p1"):

        def work(conn: Connection, project_id: str = project_id) -> list[Any]:
            return list(conn.execute(sa.select(workload).where(workload.c.project_id == project_id)).all())

        rows = await cloud.store.read(work)
        used = {name: amount for name, (_, amount) in (await quotas.usages(cloud, project_id)).items()}
        assert used["containers"] == len(rows)
        assert used["memory"] == sum(row.memory for row in rows)
        assert used["cpu"] == pytest.approx(sum(row.cpu for row in rows), abs=1e-6)


async def test_first_containers_of_many_projects_get_a_network_of_their_own_each(replicas: list[Cloud]) -> None:
    await hosts.register(replicas[0], report(memory=65536))
    actors = [Actor(user_id="u", project_id=f"p{n // 2}", request_id="r") for n in range(40)]
    made = await together(
        *[containers.create(replicas[n % 3], actor, draft(memory=4), run=True) for n, actor in enumerate(actors)]
    )
    assert all(isinstance(one, Container) for one in made)
    rows = await replicas[0].store.read(lambda conn: conn.execute(sa.select(network)).all())
    assert len(rows) == len({row.cidr for row in rows}) == len({row.project_id for row in rows}) == 20


async def test_one_key_sent_to_three_replicas_at_once_makes_one_container(replicas: list[Cloud], alice: Actor) -> None:
    await hosts.register(replicas[0], report())
    made = await together(
        *[
            containers.create(replicas[n % 3], alice, draft(), run=True, idempotency_key="k", body_hash="b")
            for n in range(9)
        ]
    )
    capsule = CapsuleDraft(name=None, containers=(ContainerSpec(image="busybox"),))
    pods = await together(
        *[capsules.create(replicas[n % 3], alice, capsule, idempotency_key="c", body_hash="b") for n in range(6)]
    )
    assert len({one.uuid for one in made if isinstance(one, Container)}) == 1
    assert len({one.uuid for one in pods if not isinstance(one, HigginsError)}) == 1
    assert not [one for one in (*made, *pods) if isinstance(one, HigginsError)]


@pytest.mark.parametrize("scope", ["project", "global"])
async def test_a_name_that_must_be_unique_is_taken_once(
    database: str, clock: Clock, alice: Actor, bob: Actor, scope: str
) -> None:
    strict = structs.replace(EXACT, unique_names=scope)
    clouds = [Cloud(open_store(database, threads=4), Fernet.generate_key(), strict, clock=clock) for _ in range(2)]
    actors = [alice, bob] if scope == "global" else [alice, alice]
    results = await together(
        *[containers.create(clouds[n % 2], actors[n // 2 % 2], draft("same"), run=False) for n in range(8)]
    )
    assert Counter(type(one) for one in results) == {Container: 1, AlreadyExists: 7}
    others = [await containers.create(clouds[0], alice, draft(f"other-{n}"), run=False) for n in range(4)]
    renamed = await together(
        *[containers.rename(clouds[n % 2], alice, one.uuid, "renamed") for n, one in enumerate(others)]
    )
    assert Counter(type(one) for one in renamed) == {Container: 1, AlreadyExists: 3}
    for cloud in clouds:
        await cloud.store.close()


async def test_what_is_named_once_is_made_once(replicas: list[Cloud], alice: Actor) -> None:
    await hosts.register(replicas[0], report(memory=65536))
    nets = await together(*[networks.create(replicas[n % 3], alice, "back") for n in range(6)])
    assert sum(isinstance(one, AlreadyExists) for one in nets) == 5
    mount = (Mount(destination="/data", source="things", size=1),)
    await together(
        *[containers.create(replicas[n % 3], alice, draft(memory=4, mounts=mount), run=True) for n in range(6)]
    )
    numbers = await together(*[hosts.register(replicas[n % 3], report("new")) for n in range(6)])
    assert len(set(map(str, numbers))) == 1
    limits = await together(*[quotas.update(replicas[n % 3], "red", {"cpu": n}) for n in range(6)])
    assert not [one for one in limits if isinstance(one, HigginsError)]
    assert await replicas[0].store.read(lambda conn: len(conn.execute(sa.select(volume)).all())) == 1


async def test_a_volume_that_lies_nowhere_yet_comes_to_lie_where_all_its_containers_are(
    replicas: list[Cloud], alice: Actor
) -> None:
    mount = (Mount(destination="/data", source="things", size=1),)
    await containers.create(replicas[0], alice, draft(memory=4, mounts=mount), run=True)  # no host is there yet
    for n in range(3):
        await hosts.register(replicas[0], report(f"host-{n}", memory=65536))
    made = await together(
        *[containers.create(replicas[n % 3], alice, draft(memory=4, mounts=mount), run=True) for n in range(6)]
    )
    assert len({one.host for one in made if isinstance(one, Container)}) == 1


async def test_addresses_that_are_chosen_at_once_are_different(replicas: list[Cloud], alice: Actor) -> None:
    one = Host(replicas[0], await hosts.register(replicas[0], report(memory=65536)))
    await networks.create(replicas[0], alice, "back")
    made = [await containers.create(replicas[0], alice, draft(memory=4), run=True) for _ in range(12)]
    for each in made:
        await one.says(each.uuid, state="running")
    back = NetRequest(network="back")
    results = await together(
        *[containers.network_attach(replicas[n % 3], alice, each.uuid, back) for n, each in enumerate(made)]
    )
    assert results == [None] * 12
    addresses = await replicas[0].store.read(lambda conn: list(conn.execute(sa.select(port.c.address)).scalars()))
    assert len(addresses) == len(set(addresses)) == 24


async def test_a_network_is_not_deleted_under_a_container_that_just_joins_it(
    replicas: list[Cloud], alice: Actor
) -> None:
    one = Host(replicas[0], await hosts.register(replicas[0], report(memory=65536)))
    made = await containers.create(replicas[0], alice, draft(memory=4), run=True)
    await one.says(made.uuid, state="running")
    for _ in range(5):
        await networks.create(replicas[0], alice, "back")
        await together(
            containers.network_attach(replicas[0], alice, made.uuid, NetRequest(network="back")),
            networks.delete(replicas[1], alice, "back"),
        )
        on = await containers.network_list(replicas[2], alice, made.uuid)
        if len(on) == 2:
            await containers.network_detach(replicas[0], alice, made.uuid, network="back")
            await one.says(made.uuid, state="running")
            await networks.delete(replicas[0], alice, "back")


async def test_a_report_that_meets_a_verb_waits_for_it_and_is_too_old_then(replicas: list[Cloud], alice: Actor) -> None:
    one = Host(replicas[0], await hosts.register(replicas[0], report()))
    made = await containers.create(replicas[0], alice, draft(), run=True)
    await one.says(made.uuid, state="running")
    under_way, go_on = threading.Event(), threading.Event()

    def verb(conn: Connection) -> None:
        conn.execute(sa.update(workload).where(workload.c.uuid == made.uuid).values(generation=2))
        conn.execute(sa.update(container).where(container.c.uuid == made.uuid).values(status=Status.RESTARTING))
        under_way.set()
        assert go_on.wait(30)

    write = asyncio.create_task(replicas[0].store.write(verb))
    await asyncio.to_thread(under_way.wait, 30)
    late = Observation(workload=made.uuid, generation=1, members={made.uuid: Known(state="exited", ended=True)})
    observed = asyncio.create_task(observing.observe(replicas[1], one.number, [late]))
    await asyncio.sleep(0.1)  # so that it comes to the row meanwhile; if it does not, it comes too late all the same
    go_on.set()
    await asyncio.gather(write, observed)
    assert (await containers.get(replicas[2], alice, made.uuid)).status == Status.RESTARTING


async def test_a_host_that_speaks_while_it_is_given_up_is_asked_again(replicas: list[Cloud], alice: Actor) -> None:
    one = Host(replicas[0], await hosts.register(replicas[0], report()))
    made = await containers.create(replicas[0], alice, draft(), run=True)
    await one.says(made.uuid, state="running")
    replicas[0].now.forward(3600)  # type: ignore[attr-defined]
    generation = (await one_workload(replicas[0], made.uuid)).generation
    await together(
        replicas[1].store.write(lambda conn: housekeeping.sweep(conn, replicas[1])),
        hosts.seen(replicas[2], one.number),
    )
    status = (await containers.get(replicas[0], alice, made.uuid)).status
    asked = (await one_workload(replicas[0], made.uuid)).generation > generation
    assert (status == Status.UNKNOWN) == asked


async def one_workload(cloud: Cloud, uuid: str) -> Any:
    return await cloud.store.read(lambda conn: conn.execute(sa.select(workload).where(workload.c.uuid == uuid)).one())


async def test_a_write_through_one_replica_wakes_who_listens_on_another(replicas: list[Cloud], alice: Actor) -> None:
    number = await hosts.register(replicas[0], report())
    for revision in range(3):
        answer = asyncio.create_task(hosts.assignments(replicas[1], number, revision, 60))
        await containers.create(replicas[0], alice, draft(f"c{revision}", memory=4), run=True)
        told = await answer
        assert told is not None
        assert told.revision == revision + 1
    again = await hosts.assignments(replicas[1], number, 3, 0.05)
    assert again is None


async def test_an_event_of_one_replica_is_in_the_stream_of_another(
    replicas: list[Cloud], alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 600)  # it does not look for itself
    await hosts.register(replicas[0], report())
    stream = events.stream(replicas[1], alice, 0)
    for name in ("first", "second"):
        following = asyncio.ensure_future(anext(stream))
        await containers.create(replicas[0], alice, draft(name, memory=4), run=True)
        seen = await asyncio.wait_for(following, 60)
        assert seen is not None
        assert seen.name == name
    await stream.aclose()  # type: ignore[attr-defined]


async def test_an_event_that_is_committed_after_a_later_one_is_not_missed(
    server: Server, clock: Clock, alice: Actor
) -> None:
    """On servers: on SQLite one writes after the other."""
    store = open_store(server.empty(), threads=3)
    written, go_on = threading.Event(), threading.Event()

    def write(conn: Connection, name: str, wait: bool) -> None:
        conn.execute(
            sa.insert(event).values(project_id="red", container_uuid="c", name=name, status="Running", at=clock())
        )
        if wait:
            written.set()
            assert go_on.wait(30)

    slow = asyncio.create_task(store.write(lambda conn: write(conn, "slow", True)))
    await asyncio.to_thread(written.wait, 30)
    await store.write(lambda conn: write(conn, "fast", False))
    tail = Tail(0)
    names = []
    for _ in range(2):
        rows = await store.read(lambda conn: fresh(conn, tail))
        tail.took([row.id for row in rows], 0)
        names.append([row.name for row in rows])
        go_on.set()
        await slow
    await store.close()
    assert names == [["fast"], ["slow"]]


def test_a_stream_forgets_what_it_gave_once_nothing_older_can_come() -> None:
    tail = Tail(3)
    tail.took([4, 6], now=0)
    tail.took([9], now=29)
    assert (tail.floor, tail.given) == (3, {4, 6, 9})
    tail.took([], now=31)
    assert (tail.floor, tail.given) == (6, {9})
    tail.took([], now=60)
    assert (tail.floor, tail.given) == (9, set())


def listening(server: Server) -> set[int]:
    """The server's processes that listen."""
    query = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
    with server.admin().connect() as admin:
        return set(admin.exec_driver_sql(query).scalars())


def listen_again(server: Server, before: set[int]) -> None:
    wait_until(lambda: len(listening(server) - before) == len(before), "they do not listen again")


async def test_word_of_changes_comes_again_after_the_listening_connection_ended(
    postgresql: Server, clock: Clock, alice: Actor
) -> None:
    url = postgresql.empty()
    clouds = [Cloud(open_store(url, threads=2), Fernet.generate_key(), EXACT, clock=clock) for _ in range(2)]
    number = await hosts.register(clouds[0], report())
    with clouds[1].store.wakeups.listen(f"host:{number}") as listener:
        for _ in range(2):
            await clouds[0].store.write(lambda conn: touch_host(conn, number))
            assert await listener.wait(30)
            before = listening(postgresql)
            with postgresql.admin().connect() as admin:
                for process in before:
                    admin.exec_driver_sql(f"SELECT pg_terminate_backend({process}, 30000)")
            await asyncio.to_thread(listen_again, postgresql, before)
            assert await listener.wait(30)  # all are woken for what was missed
            while await listener.wait(0.2):
                pass
    for cloud in clouds:
        await cloud.store.close()


def test_topics_that_do_not_fit_into_one_notice_go_into_several() -> None:
    topics = {f"host:{n}" for n in range(3000)}
    made = payloads("me", topics)
    assert all(len(one) < 8000 and one.startswith("me ") for one in made)
    assert {topic for one in made for topic in one.split()[1:]} == topics


async def test_a_host_with_containers_that_come_just_now_is_not_deleted(replicas: list[Cloud], alice: Actor) -> None:
    for _ in range(5):
        await hosts.register(replicas[0], report())
        made, gone = await together(
            containers.create(replicas[0], alice, draft(memory=4), run=True),
            hosts.delete(replicas[1], "one", hosts.BINARY),
        )
        assert isinstance(made, Container)
        if made.status == Status.CREATING:
            assert isinstance(gone, Conflict)
            await check_claims(replicas[0])
        else:
            assert gone is None
