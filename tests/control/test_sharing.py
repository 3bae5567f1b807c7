"""Hosts shared through Placement: what is held follows what is claimed, and is never less."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from higgins.control import containers, evacuation, hosts, housekeeping, sharing
from higgins.control.audit import audit
from higgins.control.cloud import Actor, Cloud
from higgins.control.settings import Settings
from higgins.control.sharing import target
from higgins.model.container import Status
from higgins.model.errors import Conflict, HostUnavailable
from higgins.model.resources import Container
from higgins.model.shares import Amount, Offer
from higgins.openstack.errors import ServiceUnavailable
from higgins.store.schema import host as host_table
from higgins.store.schema import share
from tests.control.conftest import Clock, Host, draft, report

STEPS = (2, 512, 10)


class FakePlacement:
    """``room`` is what there is for Higgins of every host; ``held`` what it holds."""

    def __init__(self) -> None:
        self.room = Amount(64, 100_000, 1_000)
        self.held: dict[str, Amount] = {}
        self.offered: set[str] = set()
        self.calls = 0
        self.fails: Exception | None = None

    async def hold(self, *, name: str, uuid: str, offer: Offer, amounts: list[Amount]) -> Amount | None:
        self.calls += 1
        if self.fails is not None:
            raise self.fails
        self.offered.add(name)
        for one in amounts:
            if one.cpu <= self.room.cpu and one.memory <= self.room.memory and one.disk <= self.room.disk:
                self.held[name] = one
                return one
        return None

    async def let_go(self, *, name: str, uuid: str) -> None:
        self.offered.discard(name)
        self.held.pop(name, None)


@pytest.fixture
async def placement(cloud: Cloud) -> AsyncIterator[FakePlacement]:
    cloud.settings = structs.replace(Settings(), placement_steps=STEPS)
    made = FakePlacement()
    running = asyncio.create_task(sharing.keeper(cloud, made).run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def create(cloud: Cloud, actor: Actor, **spec: object) -> Container:
    return await containers.create(cloud, actor, draft(None, **{"memory": 256, "cpu": 1.0, **spec}), run=True)


async def settled(cloud: Cloud) -> None:
    """What is held is what is to be held."""
    await cloud.store.write(lambda conn: housekeeping.sweep(conn, cloud))
    due = sa.select(share.c.id).where(share.c.due_at.is_not(None))
    for _ in range(3000):
        if await cloud.store.read(lambda conn: conn.execute(due).first()) is None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never comes to rest")


async def sound(cloud: Cloud, placement: FakePlacement) -> Amount:
    """Claims are within what the database says is held, and that within what Placement knows; what that is."""
    assert await cloud.store.read(audit) == []
    row = await cloud.store.read(lambda conn: conn.execute(sa.select(host_table)).one())
    known = placement.held.get(row.name, Amount())
    assert row.cpu_used <= (row.held_cpu or 0) <= known.cpu
    assert row.memory_used <= (row.held_memory or 0) <= known.memory
    assert row.disk_used <= (row.held_disk or 0) <= known.disk
    return known


@given(st.floats(0, 1000), st.integers(0, 2000), st.integers(1, 100))
def test_what_is_held_suffices_and_is_not_far_above(used: float, held: int, step: int) -> None:
    found = target(used, held, step)
    assert used <= found + 1e-6 and found <= used + 1 + 2 * step
    assert target(used, found, step) == found, "it comes to rest"


async def test_containers_are_told_of_in_steps_and_not_one_by_one(
    cloud: Cloud, host: Host, alice: Actor, placement: FakePlacement
) -> None:
    made = [await create(cloud, alice, cpu=0.1, memory=32) for _ in range(20)]
    assert all(one.status == Status.CREATING for one in made)
    await settled(cloud)
    known = await sound(cloud, placement)
    assert known.cpu >= 2 and known.memory >= 640
    assert placement.calls <= 5, "20 containers"
    for one in made:
        await containers.delete(cloud, alice, one.uuid, stop=True)
        await host.removed(one.uuid)
    await settled(cloud)
    known = await sound(cloud, placement)
    assert known.cpu <= 2 * STEPS[0] and known.memory <= 2 * STEPS[1]
    assert placement.calls <= 8


async def test_of_many_at_once_each_gets_its_room(
    cloud: Cloud, host: Host, alice: Actor, placement: FakePlacement
) -> None:
    made = await asyncio.gather(*(create(cloud, alice) for _ in range(12)))
    assert {one.status for one in made} == {Status.CREATING}
    await settled(cloud)
    assert (await sound(cloud, placement)).cpu >= 12


async def test_where_others_have_the_rest_the_owner_reads_it_and_later_it_goes(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, placement: FakePlacement
) -> None:
    placement.room = Amount(2, 100_000, 1_000)
    assert [(await create(cloud, alice)).status for _ in range(2)] == [Status.CREATING] * 2
    refused = await create(cloud, alice)
    assert refused.status == Status.ERROR
    assert "one: Placement has no more room on it" in (refused.status_reason or "")
    calls = placement.calls
    with pytest.raises(Conflict, match="no more room"):
        await containers.start(cloud, alice, refused.uuid)
    assert placement.calls == calls, "it is not asked again at once"
    await sound(cloud, placement)
    placement.room = Amount(64, 100_000, 1_000)
    clock.forward(11)
    await containers.start(cloud, alice, refused.uuid)
    assert (await containers.get(cloud, alice, refused.uuid)).host == "one"
    await settled(cloud)
    await sound(cloud, placement)


async def test_a_container_grows_only_into_what_is_held(
    cloud: Cloud, host: Host, alice: Actor, placement: FakePlacement
) -> None:
    made = await create(cloud, alice)
    await host.says(made.uuid, state="running")
    await containers.update(cloud, alice, made.uuid, cpu=9.0, memory=2048)
    placement.room = Amount(10, 100_000, 1_000)
    with pytest.raises(Conflict, match="too little CPU"):
        await containers.update(cloud, alice, made.uuid, cpu=14.0)
    await settled(cloud)
    assert (await sound(cloud, placement)).cpu <= 10


async def test_while_placement_is_away_what_is_held_goes_on_being_used(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, placement: FakePlacement
) -> None:
    await settled(cloud)
    placement.fails = ServiceUnavailable("Placement", "host one cannot be shared")
    assert (await create(cloud, alice)).host == "one"
    with pytest.raises(HostUnavailable, match="Placement does not answer now"):
        await create(cloud, alice, cpu=6.0)
    placement.fails = None
    clock.forward(60)
    assert (await create(cloud, alice, cpu=6.0)).host == "one"
    await settled(cloud)
    await sound(cloud, placement)


async def test_what_placement_holds_up_holds_up_nobody_else_who_leaves_a_host(
    cloud: Cloud, host: Host, alice: Actor, placement: FakePlacement
) -> None:
    large, small = await create(cloud, alice, cpu=6.0, auto_heal=True), await create(cloud, alice, auto_heal=True)
    await hosts.register(cloud, report("two"))
    await settled(cloud)
    placement.fails = ServiceUnavailable("Placement", "host two cannot be shared")
    done = await evacuation.drain(cloud, "one")
    assert done.moving == [small.uuid]
    assert [(one.uuid, "Placement does not answer" in one.reason) for one in done.staying] == [(large.uuid, True)]


async def test_a_host_that_goes_is_offered_no_more(cloud: Cloud, host: Host, placement: FakePlacement) -> None:
    await settled(cloud)
    assert placement.offered == {"one"}
    await hosts.delete(cloud, "one", hosts.BINARY)
    await settled(cloud)
    assert placement.offered == set() and placement.held == {}
