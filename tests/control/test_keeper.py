"""What another service does for rows of ours: done once, by one keeper at a time, for as long as it takes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud
from higgins.control.keeper import LAST_RETRY, Keeper, Later, Written, ask, asked, pause
from higgins.openstack.errors import ServiceUnavailable
from higgins.store.schema import Id, Words, kept
from tests.control.conftest import Clock

PATIENCE = 30

errand = sa.Table(
    "errand",
    sa.MetaData(),
    sa.Column("id", Id, primary_key=True),
    sa.Column("state", Words(16), nullable=False),
    *kept(),
)


class Service:
    """Another service: what it was asked to do, and how it answers the next time."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.asked: list[list[int]] = []
        self.answer: Later | Exception | None = None
        self.result: Written = done
        self.answering = asyncio.Event()
        self.answering.set()
        self.called = asyncio.Event()

    async def work(self, rows: Sequence[Row[Any]]) -> Sequence[Written | Later]:
        self.asked.append([row.id for row in rows])
        self.called.set()
        await self.answering.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer or self.result] * len(rows)

    def keeper(self, **options: Any) -> Keeper:
        return Keeper(self.cloud, errand, self.work, **options)


def done(conn: Connection, row: Row[Any]) -> None:
    conn.execute(sa.update(errand).where(errand.c.id == row.id).values(state="done"))


async def add(cloud: Cloud, count: int = 1) -> None:
    def work(conn: Connection) -> None:
        for _ in range(count):
            conn.execute(sa.insert(errand).values(state="wanted", **asked(conn, cloud, errand)))

    await cloud.store.write(work)


async def rows(cloud: Cloud) -> list[Row[Any]]:
    return await cloud.store.read(lambda conn: list(conn.execute(sa.select(errand).order_by(errand.c.id)).all()))


async def states(cloud: Cloud) -> list[str]:
    return [row.state for row in await rows(cloud)]


async def until(claim: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await claim():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)


@pytest.fixture
async def service(cloud: Cloud) -> AsyncIterator[Service]:
    errand.metadata.create_all(cloud.store.engine)
    yield Service(cloud)
    errand.metadata.drop_all(cloud.store.engine)


async def test_what_is_due_is_done_once(cloud: Cloud, service: Service) -> None:
    await add(cloud, 2)
    keeper = service.keeper()
    assert await keeper.round() == 2
    assert await states(cloud) == ["done", "done"]
    assert await keeper.round() == 0
    assert [(row.due_at, row.holder) for row in await rows(cloud)] == [(None, None)] * 2


async def test_rows_are_given_in_batches(cloud: Cloud, service: Service) -> None:
    await add(cloud, 5)
    await service.keeper(batch=2).round()
    assert sorted(map(len, service.asked)) == [1, 2, 2]


async def test_what_cannot_be_written_of_one_row_holds_up_no_other(
    cloud: Cloud, clock: Clock, service: Service
) -> None:
    await add(cloud, 3)
    bad = (await rows(cloud))[1].id

    def broken(conn: Connection, row: Row[Any]) -> None:
        done(conn, row)
        if row.id == bad:
            raise ZeroDivisionError

    service.result = broken
    keeper = service.keeper(batch=3)
    assert await keeper.round() == 3
    assert await states(cloud) == ["done", "wanted", "done"]
    row = (await rows(cloud))[1]
    assert (row.tries, row.holder) == (1, None) and "fault" in row.trouble
    service.result = done
    clock.forward(pause(1) * 1.25)
    assert await keeper.round() == 1
    assert await states(cloud) == ["done"] * 3


@pytest.mark.parametrize(
    "refusal",
    [Later("Neutron is tired."), ServiceUnavailable("Neutron", "no port can be made"), ZeroDivisionError()],
    ids=["later", "unavailable", "fault"],
)
async def test_what_failed_is_tried_again_less_and_less_often(
    cloud: Cloud, clock: Clock, service: Service, refusal: Any
) -> None:
    await add(cloud)
    service.answer = refusal
    keeper = service.keeper()
    for tries in range(1, 5):
        assert await keeper.round() == 1
        assert await keeper.round() == 0, "it is left alone for a while"
        (row,) = await rows(cloud)
        assert row.tries == tries and row.trouble.endswith(".")
        clock.forward(pause(tries) * 1.25)
    service.answer = None
    assert await keeper.round() == 1
    (row,) = await rows(cloud)
    assert (row.state, row.tries, row.trouble) == ("done", 0, None)


def test_the_pause_doubles_and_has_an_end() -> None:
    assert [pause(tries) for tries in (1, 2, 3)] == [0.5, 1, 2]
    assert pause(1000) == LAST_RETRY
    assert pause(1, after=90) == 90, "a service says how long it wants to be left alone"


async def test_two_keepers_never_work_on_one_row(cloud: Cloud, service: Service) -> None:
    await add(cloud, 20)
    keepers = [service.keeper(at_once=20) for _ in range(3)]
    await asyncio.gather(*(keeper.round() for keeper in keepers))
    assert sorted(number for batch in service.asked for number in batch) == list(range(1, 21))


async def test_what_a_dead_process_had_taken_is_taken_after_its_lease(
    cloud: Cloud, clock: Clock, service: Service
) -> None:
    await add(cloud)
    service.answering.clear()
    died = asyncio.create_task(service.keeper(lease=30).round())
    await service.called.wait()
    died.cancel()
    await asyncio.wait({died})
    service.answering.set()
    assert await service.keeper().round() == 0
    clock.forward(31)
    assert await service.keeper().round() == 1
    assert await states(cloud) == ["done"]


async def test_who_lost_its_lease_writes_nothing(cloud: Cloud, clock: Clock, service: Service) -> None:
    await add(cloud)
    service.answering.clear()
    slow = asyncio.create_task(service.keeper().round())
    await service.called.wait()
    clock.forward(1000)
    service.called.clear()
    quick = asyncio.create_task(service.keeper().round())
    await service.called.wait()
    service.answer = Later("The slow one is too late.")
    service.answering.set()
    await slow
    await quick
    (row,) = await rows(cloud)
    assert row.tries == 1, "one of them wrote"


async def test_a_lease_is_renewed_while_the_service_is_slow(cloud: Cloud, clock: Clock, service: Service) -> None:
    await add(cloud)
    service.answering.clear()
    slow = asyncio.create_task(service.keeper(lease=0.3).round())
    await service.called.wait()
    (before,) = await rows(cloud)
    clock.forward(0.2)

    async def renewed() -> bool:
        return bool((await rows(cloud))[0].held_until != before.held_until)

    await until(renewed)
    service.answering.set()
    await slow


async def test_what_is_asked_anew_meanwhile_stays_due(cloud: Cloud, service: Service) -> None:
    await add(cloud)
    service.answering.clear()
    keeper = service.keeper()
    first = asyncio.create_task(keeper.round())
    await service.called.wait()
    assert await cloud.store.write(lambda conn: ask(conn, cloud, errand, errand.c.id == 1, state="removing")) == 1
    service.answering.set()
    await first
    assert await keeper.round() == 1
    assert len(service.asked) == 2


async def test_it_runs_and_is_woken_by_the_commit(cloud: Cloud, service: Service) -> None:
    running = asyncio.create_task(service.keeper(at_once=2).run())
    await add(cloud, 5)

    async def all_done() -> bool:
        return set(await states(cloud)) == {"done"}

    await until(all_done)
    running.cancel()
    await asyncio.wait({running})


async def test_the_reason_is_told_when_it_is_another(cloud: Cloud, clock: Clock, service: Service) -> None:
    told: list[str] = []
    await add(cloud)
    keeper = service.keeper(troubled=lambda conn, row: told.append(row.trouble))
    for reason in ("slow", "slow", "away"):
        service.answer = Later(reason)
        await keeper.round()
        clock.forward(100)
    assert told == ["slow", "away"]
