"""One clock for all replicas, the database's: what leases are worth on machines whose own clocks are minutes off."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from higgins.control import containers, evacuation, hosts, housekeeping
from higgins.control.background import background
from higgins.control.cloud import Actor, Cloud
from higgins.control.fencing import lost_after
from higgins.store import clock as clock_module
from higgins.store.clock import DatabaseClock
from higgins.store.database import Store, open_store
from higgins.store.schema import host as host_table
from tests.control.conftest import Clock, Host, draft, report

#: How far the database's clock and what a replica takes for it may be apart, in seconds: on a busy machine.
NEAR = 2.0


def machines_clock(off: float) -> type[datetime]:
    """The class ``datetime`` of a machine whose clock is so many seconds off."""

    class Off(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=off)

    return Off


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def replica(stack: AsyncExitStack, database: str, monkeypatch: pytest.MonkeyPatch, off: float) -> Cloud:
    """A process of the control plane on a machine whose clock is off."""
    store = open_store(database)
    stack.push_async_callback(store.close)
    with monkeypatch.context() as patch:
        patch.setattr(clock_module, "datetime", machines_clock(off))
        made = Cloud(store, Fernet.generate_key())
    assert apart(made, off) < NEAR
    return made


def apart(cloud: Cloud, off: float = 0) -> float:
    """Seconds between a replica's time and this machine's, which is the database's too."""
    right = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=off)
    return abs((cloud.now() - right).total_seconds())


@pytest.mark.parametrize("wrong", ["hears", "decides"])
@pytest.mark.parametrize("off", [-300, 300])
async def test_a_host_is_lost_when_it_was_silent_for_so_long_whatever_the_clocks_of_replicas_say(
    stack: AsyncExitStack, database: str, monkeypatch: pytest.MonkeyPatch, alice: Actor, off: float, wrong: str
) -> None:
    hears = await replica(stack, database, monkeypatch, off if wrong == "hears" else 0)
    decides = await replica(stack, database, monkeypatch, off if wrong == "decides" else 0)
    for cloud in (hears, decides):
        await cloud.keep_time()
        assert apart(cloud) < NEAR
    one, two = [Host(hears, await hosts.register(hears, report(name))) for name in ("one", "two")]
    made = await containers.create(hears, alice, draft(memory=64, auto_heal=True), run=True)
    held = one if made.uuid in await one.holds() else two
    await held.knows()
    await held.says(made.uuid, state="running")
    assert await decides.store.write(partial(housekeeping.sweep, cloud=decides)) == 0
    assert all([(await hosts.get(decides, name)).up for name in ("one", "two")])
    assert (await evacuation.everywhere(decides, lost=True)).moving == []
    await was_silent(hears, held, lost_after(decides.settings) - 10)
    assert (await evacuation.everywhere(decides, lost=True)).moving == []
    await hosts.seen(hears, one.number, two.number)
    await was_silent(hears, held, lost_after(decides.settings) + 10)
    assert (await evacuation.everywhere(decides, lost=True)).moving == [made.uuid]


@pytest.mark.parametrize("joins", [False, True])
async def test_a_replica_that_slept_makes_no_host_silent(
    stack: AsyncExitStack, database: str, monkeypatch: pytest.MonkeyPatch, alice: Actor, joins: bool
) -> None:
    awake, slept = [await replica(stack, database, monkeypatch, off) for off in (0, -600)]
    await awake.keep_time()
    number = await hosts.register(awake, report())
    made = await containers.create(awake, alice, draft(memory=64, auto_heal=True), run=True)
    await Host(awake, number).knows()
    await Host(awake, number).says(made.uuid, state="running")
    if joins:
        assert await hosts.register(slept, report()) == number
    await Host(slept, number).holds()
    await hosts.register(awake, report("two"))
    assert (await evacuation.everywhere(awake, lost=True)).moving == []
    assert (await hosts.get(awake, "one")).up


async def was_silent(cloud: Cloud, host: Host, seconds: float) -> None:
    """What its replica last wrote down of it is so long ago."""

    def work(conn: sa.Connection) -> None:
        mine = host_table.c.id == host.number
        seen_at = conn.execute(sa.select(host_table.c.seen_at).where(mine)).scalar_one()
        conn.execute(sa.update(host_table).where(mine).values(seen_at=seen_at - timedelta(seconds=seconds)))

    await cloud.store.write(work)


async def test_whoever_keeps_house_keeps_the_time(
    stack: AsyncExitStack, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_EVERY", 0.05)
    cloud = await replica(stack, database, monkeypatch, 600)
    async with background(lambda: housekeeping.run(cloud)), asyncio.timeout(30):
        while True:
            if apart(cloud) < NEAR:
                break
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_hosts_stay_what_they_were_when_the_databases_clock_is_set(
    stack: AsyncExitStack, database: str, monkeypatch: pytest.MonkeyPatch, alice: Actor, step: float
) -> None:
    cloud = await replica(stack, database, monkeypatch, 0)
    await cloud.keep_time()
    dead = Host(cloud, await hosts.register(cloud, report("dead")))
    await was_silent(cloud, dead, cloud.settings.host_lease + 10)
    alive = Host(cloud, await hosts.register(cloud, report("alive")))
    made = await containers.create(cloud, alice, draft(memory=64), run=True)
    await alive.says(made.uuid, state="running")
    ask, sweep, swept = DatabaseClock._ask, housekeeping.sweep, threading.Event()

    def stepped(clock: DatabaseClock, conn: sa.Connection) -> tuple[float, datetime, float]:
        began, told, ended = ask(clock, conn)
        return began, told + timedelta(seconds=step), ended

    def told(conn: sa.Connection, cloud: Cloud) -> int:
        lost = sweep(conn, cloud)
        swept.set()
        return lost

    monkeypatch.setattr(DatabaseClock, "_ask", stepped)
    monkeypatch.setattr(housekeeping, "sweep", told)
    monkeypatch.setattr(housekeeping, "_EVERY", 0.05)
    async with background(lambda: housekeeping.run(cloud)), asyncio.timeout(60):
        await asyncio.to_thread(swept.wait, 60)
    assert apart(cloud, step) < NEAR
    assert [(await hosts.get(cloud, name)).up for name in ("alive", "dead")] == [True, False]
    assert (await containers.get(cloud, alice, made.uuid)).status == "Running"
    await cloud.store.write(partial(housekeeping.heard_by_now, cloud=cloud))
    await was_silent(cloud, alive, cloud.settings.host_lease + 10)
    assert not (await hosts.get(cloud, "alive")).up


async def test_a_host_falls_silent_also_by_two_clocks_in_turn(cloud: Cloud, clock: Clock, host: Host) -> None:
    for _ in range(4):
        for step in (timedelta(seconds=5), timedelta(seconds=-5)):
            clock.forward(10 + step.total_seconds())
            await cloud.store.write(partial(housekeeping.clock_set, cloud=cloud, step=step))
    assert not (await hosts.get(cloud, "one")).up


async def test_a_clock_that_drifts_is_set_and_one_that_steps_is_told(
    stack: AsyncExitStack, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Store = (await replica(stack, database, monkeypatch, 0)).store
    ran = [0.0]
    mine = DatabaseClock(lambda: ran[0])
    assert not await mine.set(store)  # as at the start
    before = mine()
    ran[0] += 0.4  # while the database's has hardly moved on
    assert not await mine.set(store)
    assert abs((mine() - before).total_seconds()) < NEAR
    ran[0] += 3600
    assert await mine.set(store)
    assert abs((mine() - before).total_seconds()) < 30
