"""Ports made ahead: who gets one, who does not, and when they go. The network service is in memory here."""

import asyncio
import uuid

import pytest
import sqlalchemy as sa
from msgspec import structs

from higgins.control import containers, evacuation, hosts
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.port_keeping import PortKeeping
from higgins.control.port_pools import REST, PortPools
from higgins.control.query import ListQuery
from higgins.control.requests import NetRequest
from higgins.model.resources import Container
from higgins.openstack.errors import ServiceRefused
from higgins.store.schema import cloud_port, port_pool
from tests.control.conftest import Clock, Host, draft, report
from tests.control.networking import NET, Service

SIZE = 3
#: Seconds after which a pool is looked at though nobody takes from it.
CHECK = 61


class Pools:
    """The keepers of ports, of ports made ahead, and of pools."""

    def __init__(self, cloud: Cloud, clock: Clock, service: Service, host: Host) -> None:
        keeping = PortKeeping(cloud, service, check_every=60)
        self._clock = clock
        self._cloud = cloud
        self._host = host
        self.ports, self.ahead = keeping.keeper(), keeping.keeper(ahead=True)
        self.pools = PortPools(cloud, check_every=60).keeper()

    async def settle(self, seconds: float = 1, *, silent: bool = False) -> None:
        """After a while, in which the host was heard, all keepers have done what they had to do."""
        self._clock.forward(seconds)
        if not silent:
            await hosts.seen(self._cloud, self._host.number)
        for keeper in (self.ports, self.pools, self.ahead, self.ports):
            await keeper.round()

    async def spare(self) -> list[str]:
        """The ports that nobody has taken, the oldest first: so they are taken."""
        query = sa.select(cloud_port.c.port).where(cloud_port.c.state == "spare").order_by(cloud_port.c.id)
        return await self._cloud.store.read(lambda conn: list(conn.execute(query).scalars()))

    async def rows(self) -> int:
        """How many pools there are, and ports in them."""
        counts = [sa.select(sa.func.count()).select_from(port_pool)]
        counts.append(sa.select(sa.func.count()).where(cloud_port.c.pool_id.is_not(None)))
        return await self._cloud.store.read(lambda conn: sum(conn.execute(one).scalar_one() for one in counts))


@pytest.fixture
def service(cloud: Cloud) -> Service:
    made = Service()
    cloud.networking = made
    cloud.settings = structs.replace(cloud.settings, port_pool=SIZE)
    return made


@pytest.fixture
def pools(cloud: Cloud, clock: Clock, service: Service, host: Host) -> Pools:
    return Pools(cloud, clock, service, host)


@pytest.fixture
async def first(cloud: Cloud, host: Host, alice: Actor, pools: Pools) -> Container:
    """A container after which ports were made ahead."""
    made = await containers.create(cloud, alice, draft(), run=True)
    await pools.settle()
    assert len(await pools.spare()) == SIZE
    return made


async def port_of(cloud: Cloud, actor: Actor, made: Container) -> str | None:
    """The port that a container has now."""
    shown = (await containers.get(cloud, actor, made.uuid)).addresses
    return str(shown[NET.id][0]["port"]) if shown else None


def with_net(**net: str) -> Draft:
    return Draft(name=None, spec=draft().spec, nets=(NetRequest(**net),))


async def test_after_a_first_container_the_next_have_a_port_at_once(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    ahead = await pools.spare()
    assert service.asked == [1, SIZE], "those ahead are made with one request"
    assert {(service.there[one].host, service.there[one].project_id) for one in ahead} == {("one", "red")}
    made = await containers.create(cloud, alice, draft(), run=True)
    (shown,) = made.addresses[NET.id]
    assert shown["port"] == ahead[0]
    told = (await host.holds())[made.uuid]
    assert told.waits is None and [(one.port, one.name) for one in told.ports] == [(ahead[0], "eth0")]
    await pools.settle()
    assert service.there[ahead[0]].device == made.uuid, "the service knows by then whose it is"
    assert (await host.holds())[made.uuid].ports == told.ports
    assert service.asked == [1, SIZE, 1] and len(await pools.spare()) == SIZE, "the pool is full again"


async def test_no_port_is_given_twice(
    cloud: Cloud, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    ahead = set(await pools.spare())
    made = await asyncio.gather(*(containers.create(cloud, alice, draft(cpu=0.1), run=True) for _ in range(20)))
    await pools.settle()
    given = [await port_of(cloud, alice, one) for one in made]
    assert len(set(given)) == 20 and None not in given and ahead <= set(given)
    assert [service.there[str(port)].device for port in given] == [one.uuid for one in made]


@pytest.mark.parametrize(
    "asked",
    [
        with_net(network="blue", v4_fixed_ip="10.0.0.77"),
        draft(security_groups=("web",)),
        draft(exposed_ports=("80/tcp",)),
    ],
    ids=["an address", "groups", "exposed"],
)
async def test_who_wants_another_one_gets_none(
    cloud: Cloud, alice: Actor, pools: Pools, first: Container, asked: Draft
) -> None:
    ahead = await pools.spare()
    made = await containers.create(cloud, alice, asked, run=True)
    assert not made.addresses and await pools.spare() == ahead


async def test_no_other_project_gets_one(cloud: Cloud, bob: Actor, service: Service, first: Container) -> None:
    service.nets = [structs.replace(NET, shared=True)]
    assert not (await containers.create(cloud, bob, draft(), run=True)).addresses


async def test_on_another_host_there_is_none(cloud: Cloud, alice: Actor, pools: Pools, first: Container) -> None:
    await hosts.register(cloud, report("two"))
    await hosts.disable(cloud, "one", hosts.BINARY, None)
    made = await containers.create(cloud, alice, draft(), run=True)
    assert made.host == "two" and not made.addresses


async def test_a_network_with_another_subnet_wants_other_ports(
    cloud: Cloud, alice: Actor, service: Service, first: Container
) -> None:
    service.nets = [structs.replace(NET, subnets=("s", "six"))]
    assert not (await containers.create(cloud, alice, draft(), run=True)).addresses


async def test_a_network_that_is_attached_gets_one_too(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    service.nets.append(structs.replace(NET, id=str(uuid.uuid4()), name="green"))
    made = await containers.create(cloud, alice, with_net(network="green"), run=True)
    await pools.settle()
    await host.says(made.uuid, state="running")
    (ahead, *_) = await pools.spare()
    await containers.network_attach(cloud, alice, made.uuid, NetRequest(network="blue"))
    assert [one.port for one in (await host.holds())[made.uuid].ports][1:] == [ahead]
    assert await port_of(cloud, alice, made) == ahead


async def test_one_that_was_deleted_or_changed_meanwhile_is_given_to_nobody(
    cloud: Cloud, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    gone, opened, kept = await pools.spare()
    del service.there[gone]
    service.change(opened, groups=("open",))
    await pools.settle(CHECK)
    assert opened not in service.there, "nobody wants it any more"
    await pools.settle(CHECK)
    ahead = await pools.spare()
    assert len(ahead) == SIZE and kept in ahead and not {gone, opened} & set(ahead)


async def test_one_that_is_lost_as_it_is_taken_is_made_anew_and_plugged_in_its_stead(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    for one in await pools.spare():
        del service.there[one]
    made = await containers.create(cloud, alice, draft(), run=True)
    (before,) = (await host.holds())[made.uuid].ports
    await pools.settle()
    (after,) = (await host.holds())[made.uuid].ports
    assert after.uuid != before.uuid and service.there[after.port].device == made.uuid
    assert await port_of(cloud, alice, made) == after.port


async def test_those_that_nobody_wants_go_after_a_time(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    await pools.settle(cloud.settings.port_pool_time - CHECK)
    assert len(await pools.spare()) == SIZE
    await pools.settle(CHECK + 1)
    assert await pools.rows() == 0 and list(service.there) == [await port_of(cloud, alice, first)]


@pytest.mark.parametrize("how", ["disabled", "drained", "silent", "off"])
async def test_where_none_are_wanted_there_are_none(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container, how: str
) -> None:
    if how == "disabled":
        await hosts.disable(cloud, "one", hosts.BINARY, None)
    elif how == "drained":
        await evacuation.drain(cloud, "one")
    elif how == "off":
        cloud.settings = structs.replace(cloud.settings, port_pool=0)
    await pools.settle(CHECK, silent=how == "silent")
    assert await pools.rows() == 0 and list(service.there) == [await port_of(cloud, alice, first)]


async def test_fewer_are_kept_where_fewer_are_wanted(cloud: Cloud, host: Host, pools: Pools, first: Container) -> None:
    cloud.settings = structs.replace(cloud.settings, port_pool=1)
    await pools.settle(CHECK)
    assert len(await pools.spare()) == 1


async def test_the_last_on_a_network_goes_after_what_was_made_ahead_there(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    second = await containers.create(cloud, alice, draft(), run=True)
    await pools.settle()
    for one in (first, second):
        await containers.delete(cloud, alice, one.uuid, force=True)
    await host.removed(first.uuid)
    await pools.settle()
    assert len(await pools.spare()) == SIZE, "another one is on the network"
    await host.removed(second.uuid)
    assert await pools.rows() == 0
    await pools.settle()
    assert not service.there
    assert await containers.find(cloud, alice, ListQuery()) == []


async def test_a_deleted_containers_port_is_given_to_nobody(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    second = await containers.create(cloud, alice, draft(), run=True)
    port = await port_of(cloud, alice, second)
    await pools.settle()
    await containers.delete(cloud, alice, second.uuid, force=True)
    await host.removed(second.uuid)
    await pools.settle()
    assert port not in service.there and port not in await pools.spare()


async def test_a_project_gets_back_what_its_quota_is_wanted_for(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    service.quota = len(service.there)
    made = await containers.create(cloud, alice, draft(security_groups=("web",)), run=True)
    await pools.settle()
    assert (await host.holds())[made.uuid].waits is not None and not await pools.spare()
    await pools.settle()
    assert (await host.holds())[made.uuid].waits is None
    await pools.settle(CHECK)
    assert not await pools.spare(), "for a while none are made ahead"
    service.quota = 1000
    await pools.settle(REST.total_seconds())
    await containers.create(cloud, alice, draft(), run=True)
    await pools.settle()
    assert len(await pools.spare()) == SIZE, "then they are again"


async def test_who_waits_for_a_port_that_cannot_be_removed_is_refused_in_the_end(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def refused(port: str) -> None:
        raise ServiceRefused("Neutron", f"port {port} cannot be deleted", "It is a subport of a trunk")

    monkeypatch.setattr(service, "delete", refused)
    service.quota = len(service.there)
    made = await containers.create(cloud, alice, draft(security_groups=("web",)), run=True)
    for _ in range(10):
        await pools.settle(100)
    waits = (await host.holds())[made.uuid].waits
    assert waits is not None and waits.refused and "Quota exceeded" in waits.reason


async def test_where_a_project_can_have_no_more_none_are_made_ahead(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools
) -> None:
    service.quota = 1
    made = await containers.create(cloud, alice, draft(), run=True)
    await pools.settle()
    await pools.settle()
    assert (await host.holds())[made.uuid].waits is None and not await pools.spare()
    asked = len(service.asked)
    await pools.settle(CHECK)
    assert len(service.asked) == asked, "it is not asked for again at once"
    refused = await containers.create(cloud, alice, draft(), run=True)
    await pools.settle()
    waits = (await host.holds())[refused.uuid].waits
    assert waits is not None and waits.refused and "Quota exceeded" in waits.reason


async def test_a_host_that_is_deleted_leaves_none(
    cloud: Cloud, host: Host, alice: Actor, service: Service, pools: Pools, first: Container
) -> None:
    await hosts.register(cloud, report("two"))
    await hosts.disable(cloud, "one", hosts.BINARY, None)
    second = await containers.create(cloud, alice, draft(), run=True)
    await containers.delete(cloud, alice, first.uuid, force=True)
    await host.removed(first.uuid)
    await pools.ports.round()
    await hosts.delete(cloud, "one", hosts.BINARY)
    await pools.ports.round()
    assert list(service.there) == [await port_of(cloud, alice, second)] and not await pools.spare()
