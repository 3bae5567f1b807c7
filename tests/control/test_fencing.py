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
    await host.knows()
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


async def silent_with(cloud: Cloud, clock: Clock) -> Host:
    """Another host, which is heard of when the first one has been silent for long enough."""
    two = Host(cloud, await hosts.register(cloud, report("two")))
    clock.forward(lost_after(cloud.settings) + 1)
    await hosts.seen(cloud, two.number)
    return two


async def test_what_is_to_be_healed_since_a_host_is_cut_off_stays_until_that_is_forced_down(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    made = await containers.create(cloud, alice, draft(memory=64), run=True)
    await host.says(made.uuid, state="running")
    await host.knows()
    await containers.update(cloud, alice, made.uuid, auto_heal=True)
    await host.holds()  # answered, but whether that has arrived nobody knows
    await silent_with(cloud, clock)
    done = await evacuation.everywhere(cloud, lost=True)
    assert (done.moving, [one.uuid for one in done.staying]) == ([], [made.uuid])
    assert "never heard" in done.staying[0].reason
    await hosts.force_down(cloud, "one", hosts.BINARY, True)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]


async def test_what_a_host_knows_to_be_healed_leaves_it(cloud: Cloud, clock: Clock, host: Host, alice: Actor) -> None:
    made = await containers.create(cloud, alice, draft(memory=64), run=True)
    await host.says(made.uuid, state="running")
    await containers.update(cloud, alice, made.uuid, auto_heal=True)
    await host.knows()
    two = await silent_with(cloud, clock)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]
    await two.says(made.uuid, state="running")


async def test_a_drain_that_a_host_never_heard_of_moves_nothing_once_it_is_silent(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    plain = await containers.create(cloud, alice, draft(memory=64, restart_policy=ALWAYS), run=True)
    heals = await containers.create(cloud, alice, draft(memory=64, auto_heal=True), run=True)
    await host.knows()
    await hosts.register(cloud, report("two"))
    assert set((await evacuation.drain(cloud, "one")).moving) == {plain.uuid, heals.uuid}
    await silent_with(cloud, clock)
    done = await evacuation.everywhere(cloud, lost=True)
    assert (done.moving, [one.uuid for one in done.staying]) == ([heals.uuid], [plain.uuid])


async def test_a_changed_lease_reaches_a_host_by_its_next_question_and_counts_once_it_has_heard_it(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    made = await containers.create(cloud, alice, draft(memory=64, auto_heal=True), run=True)
    await host.knows()
    told = await hosts.assignments(cloud, host.number, -1, 0)
    assert told is not None and told.lease == 60
    assert await hosts.assignments(cloud, host.number, told.revision, 0) is None
    cloud.settings = structs.replace(cloud.settings, host_lease=6)
    await silent_with(cloud, clock)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == []  # it may run there for a minute yet
    again = await hosts.assignments(cloud, host.number, told.revision, 0)
    assert again is not None and again.lease == 6
    await silent_with(cloud, clock)
    done = await evacuation.everywhere(cloud, lost=True)
    assert "never heard" in done.staying[0].reason  # was it answered?
    assert await hosts.assignments(cloud, host.number, again.revision, 0) is None
    await silent_with(cloud, clock)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]


async def test_what_comes_to_leave_by_another_rule_leaves_a_host_that_has_heard_it(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    made = await containers.create(cloud, alice, draft(memory=64, restart_policy=ALWAYS), run=True)
    await host.knows()
    cloud.settings = structs.replace(cloud.settings, evacuate="restart_policy")
    await silent_with(cloud, clock)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == []
    assert (await host.holds())[made.uuid].leaves
    await host.knows()
    await silent_with(cloud, clock)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]


async def test_a_longer_lease_does_not_keep_what_a_silent_host_has_ended(
    cloud: Cloud, clock: Clock, host: Host, alice: Actor
) -> None:
    made = await containers.create(cloud, alice, draft(memory=64, auto_heal=True), run=True)
    await host.knows()
    cloud.settings = structs.replace(cloud.settings, host_lease=90)
    await silent_with(cloud, clock)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]
