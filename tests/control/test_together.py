"""Creates that arrive at once: each has its own answer, whoever it is made together with. On every kind of database."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from higgins.control import containers, hosts, quotas
from higgins.control.audit import audit
from higgins.control.cloud import Actor, Cloud
from higgins.control.gathering import Gathering
from higgins.model.container import Status
from higgins.model.errors import Conflict, HigginsError, Invalid, NotFound, OverQuota
from higgins.model.resources import Container
from higgins.store.schema import host as host_table
from higgins.store.schema import network, port, workload
from tests.control.conftest import Clock, Host, draft, report


async def outcomes(*creates: Any) -> list[Container | BaseException]:
    return list(await asyncio.gather(*creates, return_exceptions=True))


async def test_one_that_is_refused_takes_nobody_with_it(cloud: Cloud, host: Host, alice: Actor) -> None:
    def create(name: str, **spec: object) -> Any:
        return containers.create(cloud, alice, draft(name, memory=64, cpu=0.1, **spec), run=True)

    found = await outcomes(
        create("good-1"),
        create("odd-policy", hints={"group": "web", "policy": "nonsense"}),
        create("good-2"),
        create("nowhere", requested_host="elsewhere"),
        create("odd", hints={"policy": "affinity"}),
        create("alone", hints={"different_host": "nobody"}),
        create("good-3", hints={"group": "web", "policy": "soft-anti-affinity"}),
    )
    kinds = [type(one) if isinstance(one, HigginsError) else getattr(one, "status", one) for one in found]
    good = Status.CREATING
    assert kinds == [good, Invalid, good, NotFound, Invalid, NotFound, good]
    assert len(await host.holds()) == 3
    assert await cloud.store.read(audit) == []


async def test_what_no_column_can_hold_is_the_fault_of_the_one_who_asked_for_it(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    if cloud.store.engine.dialect.name != "postgresql":
        pytest.skip("the other databases keep a NUL")
    found = await outcomes(
        *(
            containers.create(cloud, alice, draft(f"a{one}b", memory=16, cpu=0.1), run=True)
            for one in ("1", "\x00", "2")
        )
    )
    assert [isinstance(one, Invalid) for one in found] == [False, True, False]
    assert len(await host.holds()) == 2


async def test_as_many_pass_a_quota_as_fit(cloud: Cloud, host: Host, alice: Actor, bob: Actor) -> None:
    await quotas.update(cloud, alice.project_id, {"containers": 5})
    await quotas.update(cloud, bob.project_id, {"containers": 3})
    found = await outcomes(
        *(
            containers.create(cloud, actor, draft(memory=16, cpu=0.1), run=True)
            for _ in range(8)
            for actor in (alice, bob)
        )
    )
    made = [one.project_id for one in found if isinstance(one, Container)]
    assert made.count(alice.project_id) == 5
    assert made.count(bob.project_id) == 3
    assert sum(isinstance(one, OverQuota) for one in found) == 8
    assert await cloud.store.read(audit) == []


async def test_a_key_that_several_bear_at_once_makes_one(cloud: Cloud, host: Host, alice: Actor, bob: Actor) -> None:
    def create(actor: Actor, body: str) -> Any:
        return containers.create(
            cloud, actor, draft(memory=16, cpu=0.1), run=True, idempotency_key="key", body_hash=body
        )

    found = await outcomes(create(alice, "a"), create(alice, "a"), create(bob, "b"), create(alice, "other"))
    first, again, bobs, other = found
    assert isinstance(first, Container)
    assert isinstance(again, Container)
    assert isinstance(bobs, Container)
    assert again.uuid == first.uuid != bobs.uuid
    assert isinstance(other, Conflict)
    once_more = await create(alice, "a")
    assert once_more.uuid == first.uuid


async def test_addresses_are_given_in_order_and_once_each(cloud: Cloud, host: Host, alice: Actor, bob: Actor) -> None:
    await asyncio.gather(
        *(
            containers.create(cloud, actor, draft(memory=4, cpu=0.1), run=True)
            for _ in range(20)
            for actor in (alice, bob)
        )
    )
    query = sa.select(port.c.network_id, port.c.address).order_by(port.c.id)
    rows = await cloud.store.read(lambda conn: conn.execute(query).all())
    assert len(set(rows)) == 40
    for number in {row.network_id for row in rows}:
        last = [int(row.address.rpartition(".")[2]) for row in rows if row.network_id == number]
        assert last == list(range(2, 22))


async def test_addresses_that_are_taken_are_left_out(cloud: Cloud, host: Host, alice: Actor) -> None:
    async def make() -> ipaddress.IPv4Address:
        (there,) = (await containers.create(cloud, alice, draft(memory=4, cpu=0.1), run=True)).addresses.values()
        return ipaddress.IPv4Address(there[0]["addr"])

    async def move(old: ipaddress.IPv4Address, new: ipaddress.IPv4Address) -> None:
        changed = sa.update(port).where(port.c.address == str(old)).values(address=str(new))
        await cloud.store.write(lambda conn: conn.execute(changed).rowcount)

    first, second = await make(), await make()
    await move(first, second + 2)
    assert [await make(), await make()] == [second + 1, second + 3]
    subnet = ipaddress.IPv4Network(
        await cloud.store.read(lambda conn: conn.execute(sa.select(network.c.cidr)).scalar_one())
    )
    await move(second + 3, subnet[-2])
    assert [await make(), await make(), await make()] == [first, second + 3, second + 4], (
        "after the last come the first"
    )


async def test_who_finds_no_host_among_many_is_in_error_and_is_told_why(cloud: Cloud, host: Host, alice: Actor) -> None:
    first, large, last = await asyncio.gather(
        *(containers.create(cloud, alice, draft(memory=memory, cpu=0.1), run=True) for memory in (64, 40000, 64))
    )
    assert (first.status, large.status, last.status) == (Status.CREATING, Status.ERROR, Status.CREATING)
    assert large.status_reason is not None
    assert "too little memory" in large.status_reason
    assert await cloud.store.read(audit) == []


async def test_agents_of_all_hosts_that_got_something_are_woken(cloud: Cloud, alice: Actor) -> None:
    numbers = [await hosts.register(cloud, report(name)) for name in ("one", "two", "three")]
    revisions = {}
    for number in numbers:
        told = await hosts.assignments(cloud, number, -1, 1)
        assert told is not None
        revisions[number] = told.revision
    waiting = [asyncio.create_task(hosts.assignments(cloud, number, revisions[number], 30)) for number in numbers]
    apart = {"group": "web", "policy": "anti-affinity"}
    made = await asyncio.gather(
        *(containers.create(cloud, alice, draft(memory=16, cpu=0.1, hints=apart), run=True) for _ in numbers)
    )
    assert {one.host for one in made} == {"one", "two", "three"}
    for told in await asyncio.gather(*waiting):
        assert told is not None
        assert len(told.workloads) == 1


async def test_those_that_come_while_one_is_made_take_one_transaction(
    cloud: Cloud, host: Host, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cloud.store.engine.dialect.name != "postgresql":
        pytest.skip("creates are made together on PostgreSQL only")
    await containers.create(cloud, alice, draft(memory=4, cpu=0.1), run=True)  # makes the network
    writes = 0
    write = cloud.store.write

    async def counted(work: Callable[[sa.Connection], Any]) -> Any:
        nonlocal writes
        writes += 1
        return await write(work)

    monkeypatch.setattr(cloud.store, "write", counted)
    await asyncio.gather(*(containers.create(cloud, alice, draft(memory=4, cpu=0.1), run=True) for _ in range(30)))
    count = await cloud.store.read(lambda conn: conn.execute(sa.select(sa.func.count(workload.c.id))).scalar_one())
    assert count == 31
    assert writes == 1


async def test_leases_of_hosts_without_news_are_renewed_by_one_write(
    cloud: Cloud, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [await hosts.register(cloud, report(f"host{n}")) for n in range(8)]
    query = sa.select(host_table.c.id, host_table.c.revision)
    revisions = dict(await cloud.store.read(lambda conn: conn.execute(query).all()))
    clock.forward(30)
    writes = 0
    write = cloud.store.write

    async def counted(work: Callable[[sa.Connection], Any]) -> Any:
        nonlocal writes
        writes += 1
        return await write(work)

    monkeypatch.setattr(cloud.store, "write", counted)
    told = await asyncio.gather(*(hosts.assignments(cloud, number, revisions[number], 0.01) for number in numbers))
    assert told == [None] * len(numbers)
    seen = sa.select(sa.func.count(host_table.c.id)).where(host_table.c.seen_at == clock())
    assert await cloud.store.read(lambda conn: conn.execute(seen).scalar_one()) == len(numbers)
    assert writes < len(numbers)


async def test_who_comes_while_others_are_served_is_served_with_all_who_came() -> None:
    groups: list[list[int]] = []
    gathering: Gathering[int, int] = Gathering(3)

    async def serve(asked: list[int]) -> list[int]:
        groups.append(asked)
        await asyncio.sleep(0)
        return [2 * one for one in asked]

    assert await asyncio.gather(*(gathering.ask(n, serve) for n in range(7))) == [0, 2, 4, 6, 8, 10, 12]
    assert groups == [[0, 1, 2], [3, 4, 5], [6]]
    assert await gathering.ask(9, serve) == 18


async def test_a_group_that_fails_is_told_and_the_next_one_is_served() -> None:
    gathering: Gathering[int, int] = Gathering(2)

    async def serve(asked: list[int]) -> list[int]:
        if 1 in asked:
            raise ValueError("one")
        return asked

    found = await asyncio.gather(*(gathering.ask(n, serve) for n in range(4)), return_exceptions=True)
    assert [str(one) for one in found] == ["one", "one", "2", "3"]


async def test_who_has_left_before_is_not_served() -> None:
    gathering: Gathering[int, int] = Gathering(1)
    served: list[int] = []
    go_on = asyncio.Event()

    async def serve(asked: list[int]) -> list[int]:
        await go_on.wait()
        served.extend(asked)
        return asked

    asks = [asyncio.create_task(gathering.ask(n, serve)) for n in range(3)]
    await asyncio.sleep(0)
    asks[1].cancel()
    go_on.set()
    assert await asks[0] == 0
    assert await asks[2] == 2
    assert served == [0, 2]
