"""What a host is told to end when nobody hears it is what is placed elsewhere then, and no sooner."""

import pytest
from msgspec import structs

from higgins.control import containers, evacuation, hosts
from higgins.control.cloud import Actor, Cloud
from higgins.control.fencing import lost_after
from higgins.model.container import Mount, RestartPolicy
from tests.control.conftest import Clock, Host, draft, report

ALWAYS = RestartPolicy("always")


@pytest.mark.parametrize(
    ("policy", "leave"), [("auto_heal", {"heal"}), ("restart_policy", {"heal", "always"}), ("never", set())]
)
async def test_a_host_knows_what_leaves_it_when_it_is_lost_and_that_is_what_does(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor, policy: str, leave: set[str]
) -> None:
    cloud.settings = structs.replace(cloud.settings, evacuate=policy)
    drafts = [
        draft("heal", memory=64, auto_heal=True),
        draft("always", memory=64, restart_policy=ALWAYS),
        draft("plain", memory=64),
        draft("data", memory=64, auto_heal=True, mounts=(Mount(destination="/d", size=1),)),
        draft("here", memory=64, auto_heal=True, requested_host="one"),
    ]
    names = {(await containers.create(cloud, alice, one, run=True)).uuid: one.name for one in drafts}
    told = await hosts.assignments(cloud, host.number, -1, 0)
    assert told is not None
    assert {names[one.uuid] for one in told.workloads if one.leaves} == leave
    assert told.lease == (None if policy == "never" else cloud.settings.host_lease)
    two = await hosts.register(cloud, report("two"))
    clock.forward(lost_after(cloud.settings) + 1)
    await hosts.seen(cloud, two)
    assert {names[uuid] for uuid in (await evacuation.everywhere(cloud, lost=True)).moving} == leave


async def test_what_is_leaving_already_is_ended_as_it_is(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = await containers.create(cloud, alice, draft(memory=64, auto_heal=True), run=True)
    await hosts.register(cloud, report("two"))
    await evacuation.drain(cloud, "one")
    assert not (await host.holds())[made.uuid].leaves


async def test_nothing_leaves_a_silent_host_before_that_had_the_time_to_end_it(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    made = await containers.create(cloud, alice, draft(memory=64, auto_heal=True), run=True)
    two = await hosts.register(cloud, report("two"))
    clock.forward(lost_after(cloud.settings) - 1)
    await hosts.seen(cloud, two)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == []
    clock.forward(2)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]
