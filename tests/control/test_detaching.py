"""Ports that were detached: nobody else gets their addresses before their host is without them."""

import asyncio
import uuid

import pytest
import sqlalchemy as sa
from msgspec import structs

from higgins.control import containers, evacuation, hosts, networks
from higgins.control.audit import audit
from higgins.control.cloud import Actor, Cloud
from higgins.control.fencing import lost_after
from higgins.control.port_keeping import PortKeeping
from higgins.control.requests import NetRequest
from higgins.model.errors import Conflict
from higgins.model.resources import Container
from higgins.openstack.errors import ServiceUnavailable
from higgins.store.schema import workload
from tests.control.conftest import Clock, Host, Stop, draft, report
from tests.control.networking import NET, Service


class Detached:
    """A container on its default network whose port on another one was detached; its host has not heard of it."""

    def __init__(self, cloud: Cloud, actor: Actor, uuid: str, there: NetRequest) -> None:
        self.cloud = cloud
        self.actor = actor
        self.uuid = uuid
        self.there = there
        self._same = structs.replace(draft(memory=64), nets=(there,))

    async def kept(self) -> bool:
        """Whether its address is in use yet."""
        try:
            await containers.create(self.cloud, self.actor, self._same, run=True)
        except Conflict as error:
            assert "is in use" in str(error)
            return True
        return False


async def detached(cloud: Cloud, host: Host, actor: Actor, *, auto_heal: bool = False) -> Detached:
    net = await networks.create(cloud, actor, "back")
    there = NetRequest(network="back", v4_fixed_ip=net.cidr.replace("0/20", "77"))
    made = await containers.create(cloud, actor, draft(memory=64, auto_heal=auto_heal), run=True)
    await host.says(made.uuid, state="running")
    await containers.network_attach(cloud, actor, made.uuid, there)
    await host.says(made.uuid, state="running")
    await host.knows()
    await containers.network_detach(cloud, actor, made.uuid, network="back")
    return Detached(cloud, actor, made.uuid, there)


async def silent(cloud: Cloud, clock: Clock) -> None:
    """The host is not heard for long enough to be lost; there is another one."""
    two = await hosts.register(cloud, report("two"))
    clock.forward(lost_after(cloud.settings) + 1)
    await hosts.seen(cloud, two)


async def test_a_detached_port_is_gone_at_once_for_its_owner_and_its_host(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    one = await detached(cloud, host, alice)
    assert len((await containers.get(cloud, alice, one.uuid)).addresses) == 1
    assert len(await containers.network_list(cloud, alice, one.uuid)) == 1
    assert len((await host.holds())[one.uuid].ports) == 1
    assert await cloud.store.read(audit) == []


async def test_its_address_is_free_once_its_host_has_done_what_it_was_told(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    one = await detached(cloud, host, alice)
    assert await one.kept()
    await host.says(one.uuid, state="running", settled=False)
    generation = (await host.holds())[one.uuid].generation
    await host.says(one.uuid, state="running", generation=generation - 1)
    assert await one.kept()
    with pytest.raises(Conflict, match="in use"):
        await networks.delete(cloud, alice, "back")
    await host.says(one.uuid, state="running")
    assert not await one.kept()


async def test_the_container_itself_may_have_it_back_at_once(cloud: Cloud, host: Host, alice: Actor) -> None:
    one = await detached(cloud, host, alice)
    (before,) = (await host.holds())[one.uuid].ports
    await containers.network_attach(cloud, alice, one.uuid, one.there)
    ports = (await host.holds())[one.uuid].ports
    assert [port.address for port in ports] == [before.address, one.there.v4_fixed_ip]
    await host.says(one.uuid, state="running")
    assert await one.kept()


async def test_a_cut_off_host_that_never_heard_of_it_keeps_it_until_it_is_back(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    one = await detached(cloud, host, alice)
    await silent(cloud, clock)
    await evacuation.everywhere(cloud, lost=True)
    assert await one.kept()
    await host.knows()
    await host.says(one.uuid, state="running")
    assert not await one.kept()


async def test_a_cut_off_host_that_has_heard_of_it_is_without_it_when_it_is_lost(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    one = await detached(cloud, host, alice)
    await host.knows()
    await evacuation.everywhere(cloud, lost=True)
    assert await one.kept()
    await silent(cloud, clock)
    await evacuation.everywhere(cloud, lost=False)
    assert await one.kept()
    await evacuation.everywhere(cloud, lost=True)
    assert not await one.kept()


async def test_nothing_is_on_a_host_that_is_forced_down(cloud: Cloud, host: Host, alice: Actor) -> None:
    one = await detached(cloud, host, alice)
    await hosts.register(cloud, report("two"))
    await hosts.force_down(cloud, "one", hosts.BINARY, True)
    await evacuation.everywhere(cloud, lost=False)
    assert not await one.kept()


@pytest.mark.parametrize("lost", [True, False])
async def test_what_runs_elsewhere_by_now_has_left_it_behind(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, lost: bool
) -> None:
    one = await detached(cloud, host, alice, auto_heal=True)
    await silent(cloud, clock) if lost else await hosts.register(cloud, report("two"))
    if not lost:
        await evacuation.drain(cloud, "one")
        assert await one.kept()
        await host.removed(one.uuid)
    else:
        assert (await evacuation.everywhere(cloud, lost=True)).moving == [one.uuid]
    assert (await containers.get(cloud, alice, one.uuid)).host == "two"
    assert not await one.kept()


async def test_it_goes_with_its_container(cloud: Cloud, host: Host, alice: Actor) -> None:
    one = await detached(cloud, host, alice)
    await containers.delete(cloud, alice, one.uuid, force=True)
    assert await one.kept()
    await host.removed(one.uuid)
    assert not await one.kept()


async def test_what_an_older_version_was_told_is_seen_later(cloud: Cloud, host: Host, alice: Actor) -> None:
    one = await detached(cloud, host, alice)
    older = sa.update(workload).where(workload.c.uuid == one.uuid).values(observed=workload.c.generation)
    await cloud.store.write(lambda conn: conn.execute(older).rowcount)
    assert await one.kept()
    await evacuation.everywhere(cloud, lost=False)
    assert not await one.kept()


async def test_a_port_of_the_network_service_is_let_go_once_its_host_is_without_it(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    cloud.networking = service = Service()
    keeper = PortKeeping(cloud, service, check_every=60).keeper()
    given = service.add("mine")
    made = await containers.create(cloud, alice, draft(), run=True)
    await keeper.round()
    await host.says(made.uuid, state="running")
    await containers.network_attach(cloud, alice, made.uuid, NetRequest(port=given.id))
    await keeper.round()
    await host.says(made.uuid, state="running")
    await containers.network_detach(cloud, alice, made.uuid, port=given.id)
    assert len((await host.holds())[made.uuid].ports) == len(await shown(cloud, alice, made)) == 1
    await keeper.round()
    assert service.there[given.id].device == made.uuid
    await host.says(made.uuid, state="running")
    await keeper.round()
    assert service.there[given.id].device == ""


@pytest.mark.parametrize("fails", [False, True])
async def test_a_port_that_is_detached_while_it_is_being_made_goes_too(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, fails: bool
) -> None:
    cloud.networking = service = Service()
    service.nets.append(structs.replace(NET, id=str(uuid.uuid4()), name="back"))
    keeper = PortKeeping(cloud, service, check_every=3600).keeper()
    wanted = structs.replace(draft(), nets=(NetRequest(network=NET.name),))
    made = await containers.create(cloud, alice, wanted, run=True)
    await keeper.round()
    await host.says(made.uuid, state="running")
    stop = service.stopped = Stop()
    await containers.network_attach(cloud, alice, made.uuid, NetRequest(network="back"))
    working = asyncio.create_task(keeper.round())
    async with asyncio.timeout(30):
        await stop.reached.wait()
    service.trouble = ServiceUnavailable("Neutron", "no port can be made") if fails else None
    await containers.network_detach(cloud, alice, made.uuid, network="back")
    stop.goes_on.set()
    await working
    service.trouble = None
    clock.forward(60)
    assert await keeper.round() == 0, "before its host is without it there is nothing to do"
    assert len((await host.holds())[made.uuid].ports) == 1
    await host.says(made.uuid, state="running")
    await keeper.round()
    assert [one.network for one in service.there.values()] == [NET.id]


async def shown(cloud: Cloud, actor: Actor, made: Container) -> list[object]:
    found = await containers.get(cloud, actor, made.uuid)
    return [address for some in found.addresses.values() for address in some]
