"""Volumes count: against the quota of their project, and against the disk of their host."""

import pytest

from higgins.control import containers, hosts, quotas, volumes
from higgins.control.audit import audit
from higgins.control.cloud import Actor, Cloud
from higgins.control.query import ListQuery
from higgins.model.container import Mount, Status
from higgins.model.errors import Conflict, NotFound, OverQuota
from higgins.model.resources import Container
from tests.control.conftest import Host, draft, report


async def create(cloud: Cloud, actor: Actor, *mounts: Mount, disk: int = 0) -> Container:
    return await containers.create(cloud, actor, draft(memory=64, cpu=0.1, mounts=mounts, disk=disk), run=True)


async def used(cloud: Cloud, actor: Actor) -> tuple[float, int]:
    """GiB of the project, and of the first host."""
    assert await cloud.store.read(audit) == []
    return (await quotas.usages(cloud, actor.project_id))["disk"][1], (await hosts.get(cloud, "one")).disk_used


async def remove(cloud: Cloud, host: Host, actor: Actor, made: Container) -> None:
    await containers.delete(cloud, actor, made.uuid, stop=True)
    await host.removed(made.uuid)


async def dead(cloud: Cloud, host: Host) -> list[str]:
    told = await hosts.assignments(cloud, host.number, -1, 1)
    assert told is not None
    return list(told.dead_volumes)


async def test_a_volume_of_its_own_counts_until_its_data_is_gone(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = await create(cloud, alice, Mount(destination="/d", size=20), disk=3)
    assert await used(cloud, alice) == (23, 23)
    await remove(cloud, host, alice, made)
    assert await used(cloud, alice) == (0, 20)
    gone = await dead(cloud, host)
    for _ in range(2):
        await hosts.volumes_deleted(cloud, host.number, gone)
        assert await used(cloud, alice) == (0, 0)


async def test_a_kept_volume_counts_once_however_many_use_it(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = [await create(cloud, alice, Mount(destination="/d", source="data", size=20)) for _ in range(2)]
    assert await used(cloud, alice) == (20, 20)
    for one in made:
        await remove(cloud, host, alice, one)
    assert await used(cloud, alice) == (20, 20)


async def test_volumes_are_held_to_the_quota(cloud: Cloud, host: Host, alice: Actor) -> None:
    await quotas.update(cloud, alice.project_id, {"disk": 30})
    await create(cloud, alice, Mount(destination="/d", source="data", size=20))
    with pytest.raises(OverQuota):
        await create(cloud, alice, Mount(destination="/d", source="more", size=20))
    assert len(await containers.find(cloud, alice, ListQuery())) == 1
    assert await used(cloud, alice) == (20, 20)


async def test_volumes_that_no_host_has_room_for_are_placed_with_their_container(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    await quotas.update(cloud, alice.project_id, {"disk": -1})
    made = await create(cloud, alice, Mount(destination="/d", source="data", size=300))
    assert (made.status, made.host) == (Status.ERROR, None)
    assert await used(cloud, alice) == (300, 0)
    await hosts.register(cloud, report(disk=400))
    await containers.start(cloud, alice, made.uuid)
    assert (await containers.get(cloud, alice, made.uuid)).host == "one"
    assert await used(cloud, alice) == (300, 300)


async def test_a_kept_volume_is_given_up_by_name_or_uuid(
    cloud: Cloud, host: Host, alice: Actor, bob: Actor, admin: Actor
) -> None:
    made = await create(cloud, alice, Mount(destination="/d", source="data", size=20), Mount(destination="/o", size=5))
    (kept,) = await volumes.find(cloud, alice, ListQuery())
    assert (kept.name, kept.size) == ("data", 20)
    assert await volumes.find(cloud, bob, ListQuery(all_projects=True)) == []
    assert await volumes.find(cloud, admin, ListQuery(all_projects=True)) == [kept]
    with pytest.raises(Conflict):
        await volumes.delete(cloud, alice, "data")
    await remove(cloud, host, alice, made)
    for ident in ("data", kept.uuid):
        with pytest.raises(NotFound):
            await volumes.delete(cloud, bob, ident)
    await volumes.delete(cloud, alice, "data")
    assert await used(cloud, alice) == (0, 25)
    again = await create(cloud, alice, Mount(destination="/d", source="data", size=2))
    assert again.host == "one"
    gone = await dead(cloud, host)
    assert kept.uuid in gone
    await hosts.volumes_deleted(cloud, host.number, gone)
    assert await used(cloud, alice) == (2, 2)
    await remove(cloud, host, alice, again)
    (other,) = await volumes.find(cloud, alice, ListQuery())
    await volumes.delete(cloud, admin, other.uuid)
    assert await used(cloud, alice) == (0, 2)


async def test_a_volume_that_lies_nowhere_is_given_up_at_once(cloud: Cloud, host: Host, alice: Actor) -> None:
    await quotas.update(cloud, alice.project_id, {"disk": -1})
    made = await create(cloud, alice, Mount(destination="/d", source="data", size=300))
    await containers.delete(cloud, alice, made.uuid)
    await volumes.delete(cloud, alice, "data")
    assert await used(cloud, alice) == (0, 0)
