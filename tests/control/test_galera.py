"""Two nodes of a Galera cluster, written to at once: what one node locks the other does not know before the commit."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from msgspec import structs

from higgins.control import containers, hosts, quotas
from higgins.control.cloud import Actor, Cloud
from higgins.model.container import Status, TaskState
from higgins.model.errors import AlreadyExists, OverQuota
from higgins.model.resources import Container
from higgins.store.database import open_store
from higgins.store.schema import network, port
from tests.control.conftest import Clock, Host, draft, report
from tests.control.replicas import EXACT
from tests.control.test_replicas import check_claims, together
from tests.engines.databases import Server


@pytest.fixture
async def nodes(galera: tuple[Server, Server], clock: Clock) -> AsyncIterator[list[Cloud]]:
    """A replica of the control plane on each node."""
    first = galera[0].empty()
    urls = [first, galera[1].url.set(database=sa.make_url(first).database).render_as_string(hide_password=False)]
    key = Fernet.generate_key()
    clouds = [Cloud(open_store(url, threads=6), key, EXACT, clock=clock) for url in urls]
    yield clouds
    for cloud in clouds:
        await cloud.store.close()


async def test_creates_on_both_nodes_neither_pass_the_quota_nor_overcommit(nodes: list[Cloud], alice: Actor) -> None:
    for n in range(2):
        await hosts.register(nodes[0], report(f"small-{n}", memory=1024 * 4))
    await quotas.update(nodes[1], "red", {"containers": 10})
    made = await together(*[containers.create(nodes[n % 2], alice, draft(memory=1024), run=True) for n in range(30)])
    assert Counter(type(one) for one in made) == {Container: 10, OverQuota: 20}
    assert Counter(one.status for one in made if isinstance(one, Container)) == {Status.CREATING: 8, Status.ERROR: 2}
    for cloud in nodes:
        await check_claims(cloud)


async def test_projects_that_begin_on_both_nodes_get_networks_and_addresses_of_their_own(nodes: list[Cloud]) -> None:
    await hosts.register(nodes[0], report(memory=65536))
    actors = [Actor(user_id="u", project_id=f"p{n // 4}", request_id="r") for n in range(20)]
    made = await together(
        *[containers.create(nodes[n % 2], actor, draft(memory=4), run=True) for n, actor in enumerate(actors)]
    )
    assert all(isinstance(one, Container) for one in made)
    nets = await nodes[1].store.read(lambda conn: conn.execute(sa.select(network)).all())
    assert len({row.cidr for row in nets}) == len({row.project_id for row in nets}) == len(nets) == 5
    ports = await nodes[1].store.read(lambda conn: conn.execute(sa.select(port)).all())
    assert len({(row.network_id, row.address) for row in ports}) == 20


@pytest.mark.parametrize("scope", ["project", "global"])
async def test_a_name_is_taken_on_one_node_only(nodes: list[Cloud], alice: Actor, bob: Actor, scope: str) -> None:
    for cloud in nodes:
        cloud.settings = structs.replace(EXACT, unique_names=scope)
    actors = [alice, bob] if scope == "global" else [alice, alice]
    made = await together(*[containers.create(nodes[n % 2], actors[n % 2], draft("same"), run=False) for n in range(6)])
    assert Counter(type(one) for one in made) == {Container: 1, AlreadyExists: 5}


async def test_what_one_node_answered_is_there_on_the_other(nodes: list[Cloud], alice: Actor) -> None:
    for n in range(20):
        made = await containers.create(nodes[n % 2], alice, draft(memory=4), run=False)
        assert (await containers.get(nodes[1 - n % 2], alice, made.uuid)).uuid == made.uuid


async def test_verbs_on_one_node_and_reports_on_the_other_end_in_one_order(nodes: list[Cloud], alice: Actor) -> None:
    one = Host(nodes[1], await hosts.register(nodes[0], report(memory=65536)))
    made = [await containers.create(nodes[0], alice, draft(memory=4), run=True) for _ in range(6)]
    for each in made:
        await one.says(each.uuid, state="running")
    await asyncio.gather(
        *[containers.stop(nodes[0], alice, each.uuid) for each in made],
        *[one.says(each.uuid, generation=1, state="running") for each in made],
    )
    told = await one.holds()
    assert {told[each.uuid].generation for each in made} == {2}
    for each in made:
        # Written by the stop; a report that is older than it would have taken it away.
        assert (await containers.get(nodes[1], alice, each.uuid)).task_state == TaskState.STOPPING
        await one.says(each.uuid, state="exited", ended=True, exit_code=0)
        assert (await containers.get(nodes[0], alice, each.uuid)).status == Status.STOPPED
    told_again = await hosts.assignments(nodes[0], one.number, -1, 1)
    assert told_again is not None
    assert len(told_again.workloads) == 6
