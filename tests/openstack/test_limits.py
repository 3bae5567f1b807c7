"""Quotas kept in Keystone (unified limits), of a control plane that runs in the test, with a host that runs nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from higgins.cli.authentication import keep_limits
from higgins.cli.options import CONTROL_PLANE, read
from higgins.control import creating, quotas
from higgins.control.cloud import Actor, Cloud
from higgins.control.creating import Draft
from higgins.control.quotas import RESOURCES
from higgins.model.container import ContainerSpec
from higgins.model.errors import NotImplementedHere, OverQuota
from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.limits import UnifiedLimits
from higgins.store.database import open_store
from tests.api.host import FakeHost
from tests.openstack import cloud as openstack_cloud
from tests.openstack import needs
from tests.openstack.cloud import identifier, keystone
from tests.openstack.conftest import register

pytestmark = [
    needs("keystone"),
    # openstacksdk warns of what it will change in itself
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

URL, REGION = "http://127.0.0.1:9517/v1", "RegionTwo"


@pytest.fixture(scope="module")
def settings() -> str:
    """What the registration printed; user, region and endpoints are this module's own."""
    keystone("POST", "/regions", {"region": {"id": REGION}})
    return register(URL, "--region", REGION, "--user", "higgins-limits", "--unified-limits").stdout


@pytest.fixture
async def control(settings: str, sqlite: Path, tmp_path: Path) -> AsyncIterator[Cloud]:
    """A control plane that goes by Keystone's limits, and knows none yet."""
    (tmp_path / "higgins.conf").write_text(settings)
    (tmp_path / "higgins.db").write_bytes(sqlite.read_bytes())
    conf = read(["--config-file", str(tmp_path / "higgins.conf"), "--data", str(tmp_path)], CONTROL_PLANE)
    store = open_store(f"sqlite:///{tmp_path}/higgins.db")
    made = Cloud(store, Fernet.generate_key())
    with keep_limits(conf, made):
        await FakeHost(made, "host-1").join()
        yield made
    await store.close()


def actor(project: str) -> Actor:
    return Actor(user_id="u", project_id=identifier("projects", project))


async def create(cloud: Cloud, who: Actor, memory: int = 16) -> None:
    spec = ContainerSpec(image="busybox", cpu=0.1, memory=memory)
    await creating.create(cloud, who, Draft(name=None, spec=spec), run=True)


def limit(project: str, resource: str, value: int) -> None:
    """Give a project a limit of its own, as ``openstack limit create`` does."""
    (service,) = keystone("GET", "/services?type=application-container")["services"]
    body = {
        "project_id": identifier("projects", project),
        "service_id": service["id"],
        "region_id": REGION,
        "resource_name": resource,
        "resource_limit": value,
    }
    keystone("POST", "/limits", {"limits": [body]})


async def test_exactly_as_many_as_keystone_allows_are_made_however_many_ask_at_once(control: Cloud) -> None:
    limit("demo", "containers", 3)
    who = actor("demo")
    done = await asyncio.gather(*(create(control, who) for _ in range(12)), return_exceptions=True)
    refused = [one for one in done if one is not None]
    assert len(refused) == 9
    assert all(isinstance(one, OverQuota) and "containers" in str(one) for one in refused)
    assert (await quotas.usages(control, who.project_id))["containers"] == (3, 3)


async def test_a_project_without_limits_of_its_own_has_the_registered_ones(control: Cloud) -> None:
    defaults = await quotas.defaults(control)
    assert defaults == await quotas.get(control, actor("alt").project_id)
    assert defaults == control.settings.quota
    with pytest.raises(OverQuota, match="memory"):
        await create(control, actor("alt"), memory=defaults["memory"] + 1)


async def test_limits_are_changed_in_keystone_only(control: Cloud) -> None:
    with pytest.raises(NotImplementedHere, match="openstack limit"):
        await quotas.update(control, "p", {"containers": 9})


async def test_while_keystone_is_away_what_is_known_holds_and_nothing_new_is_made(control: Cloud) -> None:
    await create(control, actor("alt"))
    alt, service = actor("alt"), actor("service")
    openstack_cloud.service("stop", "keystone")
    try:
        await create(control, alt)
        with pytest.raises(ServiceUnavailable, match="limits cannot be read"):
            await create(control, service)
    finally:
        openstack_cloud.service("start", "keystone")
    await create(control, service)


async def test_a_limit_that_was_raised_holds_once_the_old_one_is_forgotten(control: Cloud) -> None:
    control.limits = limits = UnifiedLimits(RESOURCES, kept=0.2)
    who = actor("admin")
    limit("admin", "containers", 0)
    with pytest.raises(OverQuota):
        await create(control, who)
    (own,) = keystone("GET", f"/limits?project_id={who.project_id}")["limits"]
    keystone("PATCH", f"/limits/{own['id']}", {"limit": {"resource_limit": 1}})
    async with asyncio.timeout(30):
        while True:
            try:
                await create(control, who)
            except OverQuota:
                await asyncio.sleep(0.05)
            else:
                break
    limits.close()
