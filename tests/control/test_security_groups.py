"""What a host is told of security groups, and when."""

import asyncio
import ipaddress

import pytest
import sqlalchemy as sa

from higgins.control import containers, hosts, security_groups
from higgins.control.capsules import CapsuleDraft
from higgins.control.capsules import create as create_capsule
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import NetRequest
from higgins.control.networks import create as create_network
from higgins.model.container import ContainerSpec
from higgins.model.errors import Conflict, NotFound
from higgins.model.resources import Container, SecurityGroupRule
from higgins.networks.base import PortFilter, Rule
from higgins.store.schema import container, host
from tests.control.conftest import Host, draft, report

HTTP = SecurityGroupRule(id="", protocol="tcp", port_range_min=80, port_range_max=80)
LET_IN = Rule(protocol="tcp", port_min=80, port_max=80)


async def run(cloud: Cloud, actor: Actor, *groups: str) -> Container:
    return await containers.create(cloud, actor, draft(memory=4, cpu=0.1, security_groups=groups), run=True)


async def filter_of(host: Host, uuid: str) -> PortFilter:
    (only,) = (await host.holds())[uuid].filters
    return only


async def revision(cloud: Cloud, number: int) -> int:
    return await cloud.store.read(
        lambda conn: conn.execute(sa.select(host.c.revision).where(host.c.id == number)).scalar_one()
    )


async def test_who_names_no_group_is_open_to_its_project_and_to_nobody_else(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    for made in (await run(cloud, alice), await run(cloud, alice, "default")):
        told = await filter_of(host, made.uuid)
        assert (told.project_open, told.groups) == (True, ())


async def test_who_names_a_group_is_open_by_its_rules_only(cloud: Cloud, host: Host, alice: Actor) -> None:
    await security_groups.create(cloud, alice, "web", (HTTP,))
    await security_groups.create(cloud, alice, "none")
    for groups, project_open, rules in (
        (("web",), False, ((LET_IN,),)),
        (("none",), False, ()),
        (("none", "web"), False, ((LET_IN,),)),
        (("default", "web"), True, ((LET_IN,),)),
    ):
        told = await filter_of(host, (await run(cloud, alice, *groups)).uuid)
        assert (told.project_open, told.groups) == (project_open, rules)


async def test_a_changed_group_is_told_to_the_hosts_of_its_members_and_to_no_other(
    cloud: Cloud, host: Host, alice: Actor, bob: Actor
) -> None:
    web = await security_groups.create(cloud, alice, "web")
    member = await run(cloud, alice, "web")
    other = Host(cloud, await hosts.register(cloud, report("two")))
    await hosts.disable(cloud, "one", "zun-compute", "full")
    await run(cloud, alice)
    await run(cloud, bob)
    before = [await revision(cloud, one.number) for one in (host, other)]
    generation = (await host.holds())[member.uuid].generation
    _, rule = await security_groups.add_rule(cloud, alice, "web", HTTP)
    assert [await revision(cloud, one.number) for one in (host, other)] == [before[0] + 1, before[1]]
    assert (await filter_of(host, member.uuid)).groups == ((LET_IN,),)
    assert (await host.holds())[member.uuid].generation == generation, "nothing is to be done to the container"
    await security_groups.rename(cloud, alice, "web", "front")
    assert (await filter_of(host, member.uuid)).groups == ((LET_IN,),)
    await security_groups.delete_rule(cloud, alice, web.uuid, rule.id)
    assert (await filter_of(host, member.uuid)).groups == ()
    assert await revision(cloud, host.number) == before[0] + 2
    assert await revision(cloud, other.number) == before[1]


async def test_a_rule_of_default_is_told_to_all_hosts_of_the_project(
    cloud: Cloud, host: Host, alice: Actor, bob: Actor
) -> None:
    mine, named, hers = await run(cloud, alice), await run(cloud, alice, "default"), await run(cloud, bob)
    before = await revision(cloud, host.number)
    await security_groups.add_rule(cloud, alice, "default", HTTP)
    assert await revision(cloud, host.number) == before + 1
    for made, rules in ((mine, ((LET_IN,),)), (named, ((LET_IN,),)), (hers, ())):
        told = await filter_of(host, made.uuid)
        assert (told.project_open, told.groups) == (True, rules)


async def test_a_rule_about_a_group_follows_who_is_in_it(cloud: Cloud, host: Host, alice: Actor, bob: Actor) -> None:
    await security_groups.create(cloud, alice, "web")
    rule = SecurityGroupRule(id="", protocol="tcp", port_range_min=80, port_range_max=80, remote_group_id="web")
    await security_groups.create(cloud, alice, "db", (rule,))
    database = await run(cloud, alice, "db")

    async def remotes() -> set[str | None]:
        return {one.remote for rules in (await filter_of(host, database.uuid)).groups for one in rules}

    def address(made: Container) -> str:
        ((only,),) = made.addresses.values()
        return f"{only['addr']}/32"

    assert await remotes() == set()
    first = await run(cloud, alice, "web")
    await run(cloud, alice)
    await run(cloud, bob)
    assert await remotes() == {address(first)}
    second = await run(cloud, alice)
    await containers.get(cloud, alice, second.uuid)
    await host.says(second.uuid, state="running")
    await containers.add_security_group(cloud, alice, second.uuid, "web")
    assert await remotes() == {address(first), address(second)}
    await create_network(cloud, alice, "lan")
    await host.says(first.uuid, state="running")
    await containers.network_attach(cloud, alice, first.uuid, NetRequest(network="lan"))
    assert len(await remotes()) == 3
    await containers.delete(cloud, alice, first.uuid, stop=True)
    await host.removed(first.uuid)
    assert await remotes() == {address(second)}
    default = SecurityGroupRule(id="", protocol="icmp", remote_group_id="default")
    await security_groups.add_rule(cloud, alice, "db", default)
    (told,) = (await filter_of(host, database.uuid)).groups
    mine = ipaddress.IPv4Network(address(second))
    by = {one.protocol for one in told if one.remote and mine.subnet_of(ipaddress.IPv4Network(one.remote))}
    assert by == {"tcp", "icmp"}, "it is in both"


async def test_neighbouring_members_are_told_as_one_block(cloud: Cloud, host: Host, alice: Actor) -> None:
    await security_groups.create(cloud, alice, "peers", (SecurityGroupRule(id="", remote_group_id="peers"),))
    made = [await run(cloud, alice, "peers") for _ in range(14)]
    told = await filter_of(host, made[0].uuid)
    assert len(told.groups[0]) < 6


async def test_what_named_default_before_it_had_a_uuid_is_in_it(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = await run(cloud, alice)
    await cloud.store.write(
        lambda conn: (
            conn.execute(
                sa.update(container).values(
                    spec=sa.func.replace(container.c.spec, '"security_groups":[]', '"security_groups":["default"]')
                )
            ).rowcount
        )
    )
    assert (await containers.get(cloud, alice, made.uuid)).spec.security_groups == ("default",)
    assert (await filter_of(host, made.uuid)).project_open
    await security_groups.add_rule(cloud, alice, "default", HTTP)
    told = await filter_of(host, made.uuid)
    assert (told.project_open, told.groups) == (True, ((LET_IN,),))


async def test_a_capsule_is_open_by_the_groups_of_its_containers(cloud: Cloud, host: Host, alice: Actor) -> None:
    await security_groups.create(cloud, alice, "web", (HTTP,))
    spec = ContainerSpec(image="busybox", memory=4, cpu=0.1, security_groups=("web",))
    made = await create_capsule(cloud, alice, CapsuleDraft(name="pod", containers=(spec, spec)))
    told = await filter_of(host, made.uuid)
    assert (told.project_open, told.groups) == (False, ((LET_IN,),))


async def test_an_administrator_adds_groups_of_the_containers_project(
    cloud: Cloud, host: Host, alice: Actor, admin: Actor
) -> None:
    made = await run(cloud, alice)
    await host.says(made.uuid, state="running")
    mine = await security_groups.create(cloud, alice, "web", (HTTP,))
    foreign = await security_groups.create(cloud, admin, "foreign")
    with pytest.raises(NotFound):
        await containers.add_security_group(cloud, admin, made.uuid, foreign.uuid)
    await containers.add_security_group(cloud, admin, made.uuid, "web")
    assert mine.uuid in (await containers.get(cloud, alice, made.uuid)).spec.security_groups
    assert (await filter_of(host, made.uuid)).groups == ((LET_IN,),)


async def test_of_a_delete_and_creates_at_once_no_container_is_left_with_a_group_that_is_gone(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    for number in range(4):
        name = f"web-{number}"
        await security_groups.create(cloud, alice, name)
        done = await asyncio.gather(
            run(cloud, alice, name),
            security_groups.delete(cloud, alice, name),
            run(cloud, alice, name),
            return_exceptions=True,
        )
        made = [one for one in done if isinstance(one, Container)]
        refused = [one for one in done if isinstance(one, Exception)]
        assert all(isinstance(one, Conflict | NotFound) for one in refused), refused
        try:
            await security_groups.get(cloud, alice, name)
        except NotFound:
            assert made == []
        else:
            assert len(made) == 2


async def test_of_many_rules_at_once_none_is_lost(cloud: Cloud, host: Host, alice: Actor) -> None:
    await security_groups.create(cloud, alice, "web")
    wanted = [SecurityGroupRule(id="", protocol=str(number)) for number in range(140, 150)]
    await asyncio.gather(*(security_groups.add_rule(cloud, alice, "web", rule) for rule in wanted))
    rules = (await security_groups.get(cloud, alice, "web")).rules
    assert sorted(rule.protocol or "" for rule in rules) == [rule.protocol for rule in wanted]
    same = await asyncio.gather(
        *(security_groups.add_rule(cloud, alice, "web", HTTP) for _ in range(3)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in same) == ["Conflict", "Conflict", "tuple"]
