"""Security groups from the database to the kernel: a rule is there, and packets pass; it goes, and they do not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from higgins.control import containers, hosts, security_groups
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.link import HostReport
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec
from higgins.model.resources import HostInfo, SecurityGroupRule
from higgins.networks.base import PortWire
from higgins.store.database import open_store
from higgins.store.migrate import migrate
from tests.networks.conftest import Site
from tests.networks.namespaces import Namespace, is_kept_from, listening, pings, reaches

BLUE = Actor(user_id="b", project_id="blue", request_id="req-1")
RED = Actor(user_id="r", project_id="red", request_id="req-2")


def tcp(port: int, **remote: str) -> SecurityGroupRule:
    return SecurityGroupRule(id="", protocol="tcp", port_range_min=port, port_range_max=port, **remote)


class Place:
    """A control plane, and its one host: namespaces for sandboxes, and the real filters."""

    def __init__(self, cloud: Cloud, number: int, site: Site) -> None:
        self.cloud, self.number, self.site = cloud, number, site

    async def run(self, actor: Actor, *groups: str) -> tuple[Namespace, PortWire]:
        """A container's sandbox, wired and filtered as the host is told."""
        spec = ContainerSpec(image="busybox", memory=4, cpu=0.1, security_groups=groups)
        made = await containers.create(self.cloud, actor, Draft(name=None, spec=spec), run=True)
        told = await hosts.assignments(self.cloud, self.number, -1, 1)
        assert told is not None
        (port,) = next(one.ports for one in told.workloads if one.uuid == made.uuid)
        sandbox = self.site.sandbox()
        await self.site.network.plug(sandbox.path, made.uuid, [port])
        await self.follow()
        return sandbox, port

    async def follow(self) -> None:
        """Filter as the host is told now."""
        told = await hosts.assignments(self.cloud, self.number, -1, 1)
        assert told is not None
        filters = [one for workload in told.workloads for one in workload.filters]
        await self.site.network.apply(filters, list(told.neighbours))


@pytest.fixture
async def place(site: Site, tmp_path: Path) -> AsyncIterator[Place]:
    store = open_store(f"sqlite:///{tmp_path / 'higgins.db'}")
    migrate(store.engine)
    cloud = Cloud(store, Fernet.generate_key(), Settings(network_pool="10.88.0.0/16", network_prefix=24))
    report = HostReport(name="one", zone="nova", cpus=64, memory=8192, disk=200, info=HostInfo(runtimes=("runc",)))
    yield Place(cloud, await hosts.register(cloud, report), site)
    await store.close()


async def test_a_rule_lets_strangers_in_from_when_it_is_added_to_when_it_is_deleted(
    place: Place, outside: Namespace
) -> None:
    await security_groups.create(place.cloud, BLUE, "web")
    server, port = await place.run(BLUE, "web")
    stranger, _ = await place.run(RED)
    friend, _ = await place.run(BLUE)
    everybody = (stranger, outside, friend)
    with listening(server, 80, 81):
        assert all(is_kept_from(one, port.address, 80) for one in everybody)
        _, rule = await security_groups.add_rule(place.cloud, BLUE, "web", tcp(80))
        await place.follow()
        assert all(reaches(one, port.address, 80) for one in everybody)
        assert all(is_kept_from(one, port.address, 81) for one in everybody)
        await security_groups.delete_rule(place.cloud, BLUE, "web", rule.id)
        await place.follow()
        assert all(is_kept_from(one, port.address, 80) for one in everybody)


async def test_default_lets_the_project_in_and_strangers_by_its_rules(place: Place, outside: Namespace) -> None:
    server, port = await place.run(BLUE)
    friend, _ = await place.run(BLUE)
    stranger, near = await place.run(RED)
    with listening(server, 80):
        assert reaches(friend, port.address, 80)
        assert is_kept_from(outside, port.address, 80)
        await security_groups.add_rule(place.cloud, BLUE, "default", tcp(80, remote_ip_prefix=f"{near.address}/32"))
        await place.follow()
        assert reaches(stranger, port.address, 80)
        assert is_kept_from(outside, port.address, 80), "the rule's remote is another"


async def test_a_rule_about_a_group_lets_in_who_is_in_it(place: Place, outside: Namespace) -> None:
    await security_groups.create(place.cloud, BLUE, "web")
    await security_groups.create(place.cloud, BLUE, "db", (tcp(80, remote_group_id="web"),))
    database, port = await place.run(BLUE, "db")
    member, _ = await place.run(BLUE, "web")
    friend, _ = await place.run(BLUE)
    stranger, _ = await place.run(RED)
    with listening(database, 80):
        assert reaches(member, port.address, 80)
        assert all(is_kept_from(one, port.address, 80) for one in (friend, stranger, outside))


async def test_a_rule_that_says_nothing_lets_everything_in(place: Place, outside: Namespace) -> None:
    await security_groups.create(place.cloud, BLUE, "open", (SecurityGroupRule(id=""),))
    await security_groups.create(place.cloud, BLUE, "web", (tcp(80),))
    both, port = await place.run(BLUE, "open", "web")
    one, closed = await place.run(BLUE, "web")
    with listening(both, 80, 81), listening(one, 80, 81):
        assert reaches(outside, port.address, 81)
        assert pings(outside, port.address, 30)
        assert reaches(outside, closed.address, 80)
        assert is_kept_from(outside, closed.address, 81)


async def test_ping_passes_by_a_rule_for_it(place: Place, outside: Namespace) -> None:
    _, port = await place.run(BLUE)
    assert not pings(outside, port.address, 1)
    echo = SecurityGroupRule(id="", protocol="icmp", port_range_min=8, port_range_max=0)
    await security_groups.add_rule(place.cloud, BLUE, "default", echo)
    await place.follow()
    assert pings(outside, port.address, 30)
