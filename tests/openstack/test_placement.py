"""Hosts shared with Nova through a real Placement: what is offered, what is held, and what others leave."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from keystoneauth1 import session
from oslo_config import cfg

from higgins.model.shares import Amount, Offer
from higgins.openstack import tokens
from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.placement import Placement
from higgins.openstack.sessions import open_sessions
from tests.engines import wait_until
from tests.openstack import cloud, needs
from tests.openstack.cloud import password
from tests.openstack.conftest import HigginsInCloud, Login

pytestmark = needs("keystone", "placement")

OFFER = Offer(total=Amount(4, 8192, 100), cpu_ratio=16.0, memory_ratio=1.5, disk_ratio=1.0)
IDLE = ("busybox", "sh", "-c", "trap exit TERM; while sleep 0.1; do :; done")


def placement(method: str, path: str, json: Any = None) -> Any:
    """A request by the cloud's administrator; what Placement answers."""
    admin = session.Session(auth=password("admin", "admin"))
    answer = admin.request(
        f"http://127.0.0.1:8778{path}", method, headers={"OpenStack-API-Version": "placement 1.38"}, json=json
    )
    return answer.json() if answer.content else None


def provider(name: str) -> str | None:
    found = placement("GET", f"/resource_providers?name={name}")["resource_providers"]
    return found[0]["uuid"] if found else None


def usages(provider_uuid: str) -> dict[str, int]:
    found: dict[str, int] = placement("GET", f"/resource_providers/{provider_uuid}/usages")["usages"]
    return found


@pytest.fixture(scope="module")
def conf(higgins: HigginsInCloud) -> cfg.ConfigOpts:
    made = cfg.ConfigOpts()
    tokens.register(made)
    made(["--config-file", str(higgins.configuration)], default_config_files=[])
    return made


@pytest.fixture
def shares(conf: cfg.ConfigOpts) -> Placement:
    return Placement(open_sessions(conf))


class Host:
    """A host of the test's own."""

    def __init__(self, shares: Placement) -> None:
        self.name = f"host-{uuid.uuid4()}"
        self.uuid = str(uuid.uuid4())
        self._shares = shares

    async def hold(self, *amounts: Amount) -> Amount | None:
        return await self._shares.hold(name=self.name, uuid=self.uuid, offer=OFFER, amounts=list(amounts))

    async def let_go(self) -> None:
        await self._shares.let_go(name=self.name, uuid=self.uuid)


class Novas(Host):
    """One that Nova has: a provider of its own uuid, with four cores for each consumer of sixteen."""

    def __init__(self, shares: Placement) -> None:
        super().__init__(shares)
        self.provider = str(uuid.uuid4())
        placement("POST", "/resource_providers", {"name": self.name, "uuid": self.provider})
        inventories = {
            "VCPU": {"total": 4, "allocation_ratio": 4.0, "max_unit": 4},
            "MEMORY_MB": {"total": 8192, "reserved": 512, "max_unit": 8192},
            "DISK_GB": {"total": 100, "max_unit": 100},
        }
        self._put(0, inventories)
        self.inventories = self.inventory()["inventories"]

    def _put(self, generation: int, inventories: dict[str, Any]) -> None:
        body = {"resource_provider_generation": generation, "inventories": inventories}
        placement("PUT", f"/resource_providers/{self.provider}/inventories", body)

    def inventory(self) -> Any:
        return placement("GET", f"/resource_providers/{self.provider}/inventories")

    def server(self, **resources: int) -> None:
        """Nova starts a server there."""
        body = {
            "allocations": {self.provider: {"resources": resources}},
            "project_id": str(uuid.uuid4()),
            "user_id": str(uuid.uuid4()),
            "consumer_generation": None,
            "consumer_type": "INSTANCE",
        }
        placement("PUT", f"/allocations/{uuid.uuid4()}", body)


@pytest.fixture
async def host(shares: Placement) -> AsyncIterator[Host]:
    made = Host(shares)
    yield made
    await made.let_go()


async def test_a_host_that_nobody_offers_is_offered_and_goes_without_a_trace(host: Host) -> None:
    assert await host.hold(Amount(2, 512, 10)) == Amount(2, 512, 10)
    assert provider(host.name) == host.uuid
    offered = placement("GET", f"/resource_providers/{host.uuid}/inventories")["inventories"]
    assert (offered["VCPU"]["total"], offered["VCPU"]["allocation_ratio"]) == (4, 16.0)
    assert offered["MEMORY_MB"]["total"] == 8192
    for amount in (Amount(40, 8192, 20), Amount(2, 0, 10), Amount(2, 0, 10), Amount()):
        assert await host.hold(amount) == amount
        there = usages(host.uuid)
        assert (there["VCPU"], there["MEMORY_MB"], there["DISK_GB"]) == (amount.cpu, amount.memory, amount.disk)
    await host.hold(Amount(1, 1, 1))
    for _ in range(2):
        await host.let_go()
        assert provider(host.name) is None


async def test_on_a_host_of_novas_only_what_is_held_is_told(shares: Placement) -> None:
    nova = Novas(shares)
    assert await nova.hold(Amount(10, 4096, 10)) == Amount(10, 4096, 10)
    assert usages(nova.provider)["VCPU"] == 10, "more than one consumer may have"
    kinds = placement("GET", f"/resource_providers/{nova.provider}/allocations")["allocations"]
    assert len(kinds) == 3
    assert nova.inventory()["inventories"] == nova.inventories
    await nova.hold(Amount(3, 1024, 10))
    assert len(placement("GET", f"/resource_providers/{nova.provider}/allocations")["allocations"]) == 1
    await nova.let_go()
    assert provider(nova.name) == nova.provider and not any(usages(nova.provider).values())


async def test_what_nova_has_is_not_held_twice(shares: Placement) -> None:
    nova = Novas(shares)
    await nova.hold(Amount(4, 1024, 10))
    nova.server(VCPU=3, MEMORY_MB=6000)
    assert await nova.hold(Amount(8, 4096, 10), Amount(5, 1500, 10)) == Amount(5, 1500, 10)
    assert await nova.hold(Amount(5, 4096, 10)) is None
    there = usages(nova.provider)
    assert (there["VCPU"], there["MEMORY_MB"]) == (8, 7500)


async def test_others_who_write_at_the_same_time_are_no_hindrance(shares: Placement) -> None:
    nova = Novas(shares)

    def servers() -> None:
        for _ in range(10):
            nova.server(VCPU=1, MEMORY_MB=64)

    async def holds() -> None:
        for cpu in range(1, 6):
            assert await nova.hold(Amount(cpu, 64 * cpu, cpu)) is not None

    await asyncio.gather(asyncio.to_thread(servers), holds())
    there = usages(nova.provider)
    assert (there["VCPU"], there["DISK_GB"]) == (15, 5)


async def test_a_placement_that_is_away_is_named(host: Host) -> None:
    await host.hold(Amount(1, 1, 1))
    cloud.service("stop", "placement")
    try:
        with pytest.raises(ServiceUnavailable, match="Placement does not answer now"):
            await host.hold(Amount(2, 2, 2))
    finally:
        cloud.service("start", "placement")
    assert await host.hold(Amount(2, 2, 2)) is not None


def test_what_containers_use_is_in_what_placement_tells_of_their_host(login: Login) -> None:
    demo = login("demo")
    made = ["shared-1", "shared-2", "shared-3"]
    for one in made:
        demo("run", "--name", one, "--cpu", "2", "--memory", "300", *IDLE)
    for one in made:
        demo.wait(one, "Running")
    (name,) = (one["hostname"] for one in login("admin").json("host", "list"))
    found = provider(name)
    assert found is not None
    assert usages(found)["VCPU"] >= 6 and usages(found)["MEMORY_MB"] >= 900
    demo("delete", "--stop", *made)
    for one in made:
        demo.wait(one, None)
    wait_until(lambda: usages(found)["VCPU"] < 6, "it is held for ever")
