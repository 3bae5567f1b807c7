"""Ports of a network service: what is asked of it, told to hosts, shown to tenants. The service is in memory here."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Row

from higgins.control import containers, evacuation, hosts
from higgins.control.cloud import Actor, Cloud
from higgins.control.keeper import LEASE, Keeper, Later, Written
from higgins.control.port_keeping import PortKeeping, name_of
from higgins.control.requests import NetRequest
from higgins.model.errors import Conflict, Forbidden, NotFound
from higgins.model.networking import Described
from higgins.openstack.errors import ServiceRefused, ServiceUnavailable
from higgins.store.schema import cloud_port
from tests.control.conftest import Clock, Host, Stop, draft, report
from tests.control.networking import NET, Service


@pytest.fixture
def service(cloud: Cloud) -> Service:
    made = Service()
    cloud.networking = made
    return made


@pytest.fixture
def keeper(cloud: Cloud, service: Service) -> Keeper:
    return PortKeeping(cloud, service, check_every=60).keeper()


async def test_a_host_is_told_of_a_port_once_it_is_there(
    cloud: Cloud, host: Host, alice: Actor, service: Service, keeper: Keeper
) -> None:
    made = await containers.create(cloud, alice, draft(security_groups=("web",)), run=True)
    before = (await host.holds())[made.uuid]
    assert before.ports == () and before.waits is not None and before.waits.holds
    await keeper.round()
    after = (await host.holds())[made.uuid]
    (port,) = service.there.values()
    assert (port.device, port.host, port.groups) == (made.uuid, "one", ("id-of-web",))
    (wire,) = after.ports
    assert after.waits is None
    assert (wire.port, wire.address, wire.gateway, wire.mtu) == (port.id, "10.0.0.10", "10.0.0.1", 1442)
    assert wire.dns == ("192.0.2.1",) and wire.default_route
    shown = (await containers.get(cloud, alice, made.uuid)).addresses
    assert [one["port"] for one in shown[NET.id]] == [port.id]


async def test_a_container_goes_when_its_port_is_gone(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, service: Service, keeper: Keeper
) -> None:
    made = await containers.create(cloud, alice, draft(), run=True)
    await keeper.round()
    await containers.delete(cloud, alice, made.uuid, force=True)
    await host.removed(made.uuid)
    service.trouble = ServiceUnavailable("Neutron", "a port cannot be deleted")
    await keeper.round()
    left = await containers.get(cloud, alice, made.uuid)
    assert left.status == "Deleting" and "Neutron" in (left.status_reason or "")
    service.trouble = None
    clock.forward(10)
    await keeper.round()
    assert not service.there
    with pytest.raises(NotFound):
        await containers.get(cloud, alice, made.uuid)


@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("at", ["before", "making"])
async def test_a_keeper_that_was_stopped_for_longer_than_its_lease_leaves_no_second_port(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, service: Service, keeper: Keeper, at: str, deleted: bool
) -> None:
    made = await containers.create(cloud, alice, draft(), run=True)
    stop = Stop()
    service.stopped = stop if at == "making" else None

    async def later(rows: Sequence[Row[Any]]) -> Sequence[Written | Later]:
        if at == "before":
            await stop.here()
        return await PortKeeping(cloud, service, check_every=60).work(rows)

    stopped = asyncio.create_task(Keeper(cloud, cloud_port, later).round())
    async with asyncio.timeout(30):
        await stop.reached.wait()
    clock.forward(LEASE + 1)
    await keeper.round()
    assert (await host.holds())[made.uuid].waits is None
    if deleted:
        await containers.delete(cloud, alice, made.uuid, force=True)
        await host.removed(made.uuid)
        await keeper.round()
    stop.goes_on.set()
    await stopped
    kept = await cloud.store.read(lambda conn: list(conn.execute(sa.select(cloud_port.c.port)).scalars()))
    assert list(service.there) == kept and len(kept) == (0 if deleted else 1)


async def test_a_port_that_is_being_made_is_waited_for_though_its_network_cannot_be_looked_at(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await containers.create(cloud, alice, draft(), run=True)
    stop = service.stopped = Stop()
    over = asyncio.Event()

    async def refused(_networks: list[str]) -> Described:
        await stop.reached.wait()
        raise ServiceUnavailable("Neutron", "networks cannot be looked up")

    async def work(rows: Sequence[Row[Any]]) -> Sequence[Written | Later]:
        try:
            return await PortKeeping(cloud, service, check_every=60).work(rows)
        finally:
            over.set()

    keeper = Keeper(cloud, cloud_port, work)
    with monkeypatch.context() as patch:
        patch.setattr(service, "describe", refused)
        working = asyncio.create_task(keeper.round())
        async with asyncio.timeout(30):
            await stop.reached.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not over.is_set(), "another would make a second port"
        stop.goes_on.set()
        await working
    clock.forward(2)
    await keeper.round()
    assert (await host.holds())[made.uuid].waits is None and service.asked == [1]


async def test_a_refusal_ends_it_and_a_start_asks_again(
    cloud: Cloud, host: Host, alice: Actor, service: Service, keeper: Keeper
) -> None:
    service.trouble = ServiceRefused("Neutron", "no port can be made", "Quota exceeded")
    made = await containers.create(cloud, alice, draft(), run=True)
    await keeper.round()
    waits = (await host.holds())[made.uuid].waits
    assert waits is not None and waits.refused and "Quota exceeded" in waits.reason
    await host.says(made.uuid, state="error", reason=waits.reason)
    service.trouble = None
    await containers.start(cloud, alice, made.uuid)
    await keeper.round()
    assert (await host.holds())[made.uuid].waits is None


async def test_a_port_follows_its_container_to_another_host(
    cloud: Cloud, host: Host, alice: Actor, service: Service, keeper: Keeper
) -> None:
    made = await containers.create(cloud, alice, draft(auto_heal=True), run=True)
    await keeper.round()
    (before,) = service.there.values()
    other = Host(cloud, await hosts.register(cloud, report("two")))
    await evacuation.drain(cloud, "one")
    await host.removed(made.uuid)
    assert (await other.holds())[made.uuid].ports == (), "not before it is bound there"
    await keeper.round()
    (after,) = service.there.values()
    assert (after.id, after.fixed, after.host) == (before.id, before.fixed, "two")
    assert [one.port for one in (await other.holds())[made.uuid].ports] == [before.id]


async def test_a_given_port_is_used_by_one_and_kept(
    cloud: Cloud, host: Host, alice: Actor, service: Service, keeper: Keeper
) -> None:
    given = service.add("mine")
    wanted = draft()
    asked = type(wanted)(name=None, spec=wanted.spec, nets=(NetRequest(port=given.id),))
    made = await containers.create(cloud, alice, asked, run=True)
    with pytest.raises(Conflict, match="in use"):
        await containers.create(cloud, alice, asked, run=True)
    await keeper.round()
    assert service.there[given.id].device == made.uuid
    await containers.delete(cloud, alice, made.uuid, force=True)
    await host.removed(made.uuid)
    await keeper.round()
    assert service.there[given.id].device == ""


async def test_a_lost_port_is_made_anew_and_plugged_in_its_stead(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, service: Service, keeper: Keeper
) -> None:
    made = await containers.create(cloud, alice, draft(), run=True)
    await keeper.round()
    (before,) = (await host.holds())[made.uuid].ports
    service.there.clear()
    clock.forward(61)
    await keeper.round()
    assert (await host.holds())[made.uuid].ports == ()
    await keeper.round()
    (after,) = (await host.holds())[made.uuid].ports
    assert after.uuid != before.uuid and after.port in service.there


async def test_groups_of_another_project_are_never_those_of_a_container(
    cloud: Cloud, host: Host, alice: Actor, admin: Actor, service: Service, keeper: Keeper
) -> None:
    made = await containers.create(cloud, alice, draft(security_groups=("web",)), run=True)
    await host.says(made.uuid, state="running")
    for change in (containers.add_security_group, containers.remove_security_group):
        with pytest.raises(Forbidden, match="own project"):
            await change(cloud, admin, made.uuid, "web")


async def test_a_port_of_another_project_is_never_taken_for_one_that_was_made(
    cloud: Cloud, host: Host, alice: Actor, service: Service, keeper: Keeper
) -> None:
    made = await containers.create(cloud, alice, draft(), run=True)
    row = await cloud.store.read(lambda conn: conn.execute(sa.select(cloud_port)).one())
    theirs = service.add(name_of(row), made.uuid, project_id="blue")
    await keeper.round()
    (wire,) = (await host.holds())[made.uuid].ports
    assert wire.port != theirs.id


async def test_a_given_port_that_is_lost_is_told_and_holds_nothing_up(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, service: Service, keeper: Keeper
) -> None:
    given = service.add("mine")
    wanted = draft()
    asked = type(wanted)(name=None, spec=wanted.spec, nets=(NetRequest(port=given.id),))
    made = await containers.create(cloud, alice, asked, run=True)
    await keeper.round()
    service.there.clear()
    clock.forward(61)
    await keeper.round()
    waits = (await host.holds())[made.uuid].waits
    assert waits is not None and waits.refused and not waits.holds and given.id in waits.reason
