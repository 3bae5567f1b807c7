"""Where networks span hosts, each host learns where the others' ports of its networks are."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network

import pytest
from cryptography.fernet import Fernet
from msgspec.structs import replace

from higgins.control import containers, hosts, security_groups
from higgins.control.cloud import Actor, Cloud
from higgins.control.link import Assignments
from higgins.control.networks import create as create_network
from higgins.control.requests import NetRequest
from higgins.control.settings import Settings
from higgins.model.resources import Container, HostInfo, SecurityGroupRule
from higgins.networks.base import Neighbour
from higgins.store.database import open_store
from tests.control.conftest import Clock, Host, draft, report


@pytest.fixture
async def wide(database: str, clock: Clock) -> AsyncIterator[Cloud]:
    store = open_store(database)
    yield Cloud(store, Fernet.generate_key(), Settings(overlay=True), clock=clock)
    await store.close()


@pytest.fixture
async def two(wide: Cloud) -> list[Host]:
    return [Host(wide, await register(wide, name, f"192.0.2.{number}")) for number, name in enumerate(("a", "b"), 1)]


async def register(cloud: Cloud, name: str, tunnel_address: str) -> int:
    info = HostInfo(runtimes=("runc",), tunnel_address=tunnel_address)
    return await hosts.register(cloud, report(name, info=info))


async def run_on(cloud: Cloud, actor: Actor, name: str, *networks: str) -> Container:
    made = replace(
        draft(), spec=replace(draft().spec, requested_host=name), nets=tuple(NetRequest(network=n) for n in networks)
    )
    return await containers.create(cloud, actor, made, run=True)


async def told(host: Host, since: int = -1) -> Assignments:
    answer = await hosts.assignments(host.cloud, host.number, since, 5)
    assert answer is not None, "nothing was said to the host"
    return answer


async def near(host: Host) -> set[tuple[str, str]]:
    return {(one.address, one.host) for one in (await told(host)).neighbours}


def address_of(made: Container) -> str:
    ((first,),) = made.addresses.values()
    return str(first["addr"])


async def test_a_host_learns_of_a_neighbour_on_another_host_and_that_it_went(
    wide: Cloud, two: list[Host], alice: Actor
) -> None:
    one = await run_on(wide, alice, "a")
    before = await told(two[0])
    assert before.neighbours == ()
    other = await run_on(wide, alice, "b")
    after = await told(two[0], before.revision)
    (found,) = after.neighbours
    wire = (await two[1].holds())[other.uuid].ports[0]
    assert found == Neighbour(
        network=wire.network,
        tunnel=found.tunnel,
        project_id="red",
        address=wire.address,
        mac=wire.mac,
        host="192.0.2.2",
    )
    assert await near(two[1]) == {(address_of(one), "192.0.2.1")}
    assert (await told(two[1])).neighbours[0].tunnel == found.tunnel
    await containers.delete(wide, alice, other.uuid, force=True)
    await two[1].removed(other.uuid)
    assert (await told(two[0], after.revision)).neighbours == ()


async def test_a_host_learns_nothing_of_networks_that_it_has_no_port_on(
    wide: Cloud, two: list[Host], alice: Actor, bob: Actor
) -> None:
    await run_on(wide, alice, "a")
    await run_on(wide, bob, "b")
    await create_network(wide, alice, "back")
    await run_on(wide, alice, "b", "back")
    assert await near(two[0]) == set() and await near(two[1]) == set()


async def test_a_port_that_is_attached_or_detached_is_made_known(wide: Cloud, two: list[Host], alice: Actor) -> None:
    await create_network(wide, alice, "back")
    await run_on(wide, alice, "a", "back")
    other = await run_on(wide, alice, "b")
    await two[1].says(other.uuid, state="running")
    assert await near(two[0]) == set()
    revision = (await told(two[0])).revision
    await containers.network_attach(wide, alice, other.uuid, NetRequest(network="back"))
    attached = await told(two[0], revision)
    assert [one.host for one in attached.neighbours] == ["192.0.2.2"]
    await two[1].says(other.uuid, state="running")
    await containers.network_detach(wide, alice, other.uuid, network="back")
    assert (await told(two[0], attached.revision)).neighbours == ()


async def test_a_host_that_no_tunnel_reaches_has_no_neighbours_and_is_nobody_s(
    wide: Cloud, two: list[Host], alice: Actor
) -> None:
    apart = Host(wide, await register(wide, "c", ""))
    await run_on(wide, alice, "a")
    await run_on(wide, alice, "c")
    assert await near(two[0]) == set() and await near(apart) == set()


async def test_networks_end_at_their_host_unless_told_otherwise(cloud: Cloud, alice: Actor) -> None:
    pair = [Host(cloud, await register(cloud, name, "192.0.2.1")) for name in ("a", "b")]
    await run_on(cloud, alice, "a")
    await run_on(cloud, alice, "b")
    assert await near(pair[0]) == set()


async def test_a_rule_about_a_group_is_about_its_members_on_other_hosts_too(
    wide: Cloud, two: list[Host], alice: Actor
) -> None:
    await security_groups.create(wide, alice, "web")
    rule = SecurityGroupRule(id="", protocol="tcp", remote_group_id="web")
    await security_groups.create(wide, alice, "db", (rule,))

    async def run(name: str, *groups: str) -> Container:
        spec = replace(draft().spec, requested_host=name, security_groups=groups)
        return await containers.create(wide, alice, replace(draft(), spec=spec), run=True)

    async def let_in(revision: int = -1) -> tuple[int, set[str | None]]:
        answer = await told(two[0], revision)
        ((one,),) = (workload.filters for workload in answer.workloads)
        return answer.revision, {rule.remote for rules in one.groups for rule in rules}

    await run("a", "db")
    revision, remotes = await let_in()
    assert remotes == set()
    first, second = await run("b", "web"), await run("b")
    revision, remotes = await let_in(revision)
    assert remotes == {f"{address_of(first)}/32"}
    await two[1].says(second.uuid, state="running")
    await containers.add_security_group(wide, alice, second.uuid, "web")
    revision, remotes = await let_in(revision)
    near = (IPv4Address(address_of(one)) for one in (first, second))
    assert all(any(one in IPv4Network(remote or "") for remote in remotes) for one in near)
    await containers.remove_security_group(wide, alice, second.uuid, "web")
    revision, remotes = await let_in(revision)
    assert remotes == {f"{address_of(first)}/32"}
    await containers.delete(wide, alice, first.uuid, stop=True)
    await two[1].removed(first.uuid)
    assert (await let_in(revision))[1] == set()
