"""Containers of hosts that do not answer any more: they can be deleted, and what was on its way arrives."""

import pytest
from msgspec import structs

from higgins.control import containers, evacuation, hosts, housekeeping, quotas
from higgins.control.audit import audit
from higgins.control.cloud import Actor, Cloud
from higgins.control.fencing import lost_after
from higgins.control.link import Observation
from higgins.control.observing import observe
from higgins.control.requests import NetRequest
from higgins.model.container import RestartPolicy, Status
from higgins.model.errors import Conflict, NotFound
from tests.control.conftest import Clock, Host, draft, report


async def running(cloud: Cloud, host: Host, actor: Actor) -> str:
    made = await containers.create(cloud, actor, draft(memory=64, restart_policy=RestartPolicy("always")), run=True)
    await host.says(made.uuid, state="running")
    return made.uuid


async def lose(cloud: Cloud, clock: Clock) -> None:
    clock.forward(3600)
    await cloud.store.write(lambda conn: housekeeping.sweep(conn, cloud))


async def gone(cloud: Cloud, actor: Actor, uuid: str) -> None:
    """Nothing of it is there, nor charged."""
    with pytest.raises(NotFound):
        await containers.get(cloud, actor, uuid)
    assert {used for _, used in (await quotas.usages(cloud, actor.project_id)).values()} == {0}
    assert await cloud.store.read(audit) == []


async def test_what_a_cut_off_host_never_heard_to_be_deleted_keeps_its_address_until_that_is_back(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, admin: Actor
) -> None:
    uuid = await running(cloud, host, alice)
    await host.knows()
    (addresses,) = (await containers.get(cloud, alice, uuid)).addresses.values()
    there = NetRequest(network="default", v4_fixed_ip=addresses[0]["addr"])
    same = structs.replace(draft(memory=64), nets=(there,))
    two = await hosts.register(cloud, report("two"))
    await containers.delete(cloud, alice, uuid, stop=True)
    await lose(cloud, clock)
    await hosts.seen(cloud, two)
    await containers.delete(cloud, admin, uuid, force=True)
    assert await evacuation.forget(cloud, lost=True) == 0
    with pytest.raises(Conflict, match="is in use"):
        await containers.create(cloud, alice, same, run=True)
    await host.knows()
    clock.forward(lost_after(cloud.settings) + 1)  # cut off again, it removes what it heard of
    await hosts.seen(cloud, two)
    assert await evacuation.forget(cloud, lost=True) == 1
    await gone(cloud, alice, uuid)
    await containers.create(cloud, alice, same, run=True)


@pytest.mark.parametrize("forced", [False, True])
async def test_what_is_being_deleted_on_a_lost_host_goes_without_it(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, forced: bool
) -> None:
    uuid = await running(cloud, host, alice)
    await containers.delete(cloud, alice, uuid, stop=True)
    await evacuation.everywhere(cloud, lost=True)
    assert (await containers.get(cloud, alice, uuid)).status == Status.DELETING
    if forced:
        await hosts.force_down(cloud, "one", hosts.BINARY, True)
    else:
        await host.knows()
        await lose(cloud, clock)
        await evacuation.everywhere(cloud, lost=False)
        assert (await containers.get(cloud, alice, uuid)).status == Status.DELETING
    await evacuation.everywhere(cloud, lost=not forced)
    await gone(cloud, alice, uuid)
    await observe(cloud, host.number, [Observation(workload=uuid, generation=9, gone=True)])
    await hosts.delete(cloud, "one", hosts.BINARY)


async def test_what_is_moving_arrives_when_its_old_host_dies_though_it_is_not_to_be_healed(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    uuid = await running(cloud, host, alice)
    two = Host(cloud, await hosts.register(cloud, report("two")))
    assert (await evacuation.drain(cloud, "one")).moving == [uuid]
    await host.knows()
    await lose(cloud, clock)
    await hosts.seen(cloud, two.number)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [uuid]
    await two.says(uuid, state="running")
    found = await containers.get(cloud, alice, uuid)
    assert (found.host, found.status) == ("two", Status.RUNNING)
    assert await cloud.store.read(audit) == []


async def test_what_is_being_deleted_keeps_its_address_until_its_silent_host_had_the_time_to_end_it(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    uuid = await running(cloud, host, alice)
    await containers.delete(cloud, alice, uuid, stop=True)
    await host.knows()
    clock.forward(lost_after(cloud.settings) - 1)
    await evacuation.everywhere(cloud, lost=True)
    assert (await containers.get(cloud, alice, uuid)).status == Status.DELETING
    clock.forward(2)
    await evacuation.everywhere(cloud, lost=True)
    await gone(cloud, alice, uuid)
