"""Workloads that leave a host that is drained or lost; the hosts' part is said by the tests."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from msgspec import structs

from higgins.control import capsules, containers, evacuation, hosts, housekeeping, observing
from higgins.control.audit import audit
from higgins.control.capsules import CapsuleDraft
from higgins.control.cloud import Actor, Cloud
from higgins.control.link import Observation
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec, Goal, Mount, RestartPolicy, Status
from higgins.model.errors import InvalidState, NotFound
from higgins.model.resources import Container, HostInfo
from higgins.store.database import open_store
from higgins.store.schema import host as host_table
from higgins.store.schema import workload
from tests.control.conftest import Clock, Host, draft, report

ALWAYS: dict[str, Any] = {"restart_policy": RestartPolicy("always"), "memory": 64}
HEAL: dict[str, Any] = {"auto_heal": True, "memory": 64}


class Pair:
    """A host that workloads leave, and another that comes to be where they can go."""

    def __init__(self, cloud: Cloud, old: Host) -> None:
        self.cloud = cloud
        self.old = old
        self.new: Host | None = None

    async def another(self, name: str = "two", **values: object) -> Host:
        self.new = Host(self.cloud, await hosts.register(self.cloud, report(name, **values)))
        return self.new

    async def running(self, actor: Actor, **spec: object) -> Container:
        made = await containers.create(self.cloud, actor, draft(None, **spec), run=True)
        assert made.host == "one", made.status_reason
        await self.old.says(made.uuid, state="running")
        return await containers.get(self.cloud, actor, made.uuid)

    async def lose(self) -> None:
        """The old host is silent for longer than its lease; the other one is not."""
        self.cloud.now.forward(3600)  # type: ignore[attr-defined]
        if self.new is not None:
            await hosts.seen(self.cloud, self.new.number)
        await self.cloud.store.write(lambda conn: housekeeping.sweep(conn, self.cloud))

    async def consistent(self) -> None:
        assert await self.cloud.store.read(audit) == []


@pytest.fixture
def pair(cloud: Cloud, host: Host) -> Pair:
    return Pair(cloud, host)


# draining


async def test_a_drained_host_ends_a_workload_before_another_has_it(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    made = await pair.running(alice, **ALWAYS)
    before = (await pair.old.holds())[made.uuid]
    two = await pair.another()
    done = await evacuation.drain(cloud, "one")
    assert (done.moving, done.staying) == ([made.uuid], [])
    told = (await pair.old.holds())[made.uuid]
    assert told.deleting
    assert told.members[0].goal == Goal.STOPPED
    assert await two.holds() == {}
    await pair.consistent()
    shown = await containers.get(cloud, alice, made.uuid)
    assert (shown.status, shown.status_reason) == (Status.REBUILDING, "It moves to another host.")
    await pair.old.says(made.uuid, state="exited", ended=True, exit_code=137)
    assert (await containers.get(cloud, alice, made.uuid)).status == Status.REBUILDING
    await pair.old.removed(made.uuid)
    assert await pair.old.holds() == {}
    there = (await two.holds())[made.uuid]
    assert (there.deleting, there.members[0].goal, there.members[0].incarnation) == (False, Goal.RUNNING, 2)
    assert there.members[0].known.incarnation == 0
    assert [port.address for port in there.ports] == [port.address for port in before.ports]
    await pair.consistent()
    await two.says(made.uuid, state="running")
    shown = await containers.get(cloud, alice, made.uuid)
    assert (shown.status, shown.host, shown.addresses) == (Status.RUNNING, "two", made.addresses)


async def test_nothing_new_comes_to_a_drained_host_until_it_is_undrained(
    pair: Pair, cloud: Cloud, alice: Actor
) -> None:
    await evacuation.drain(cloud, "one")
    refused = await containers.create(cloud, alice, draft(), run=True)
    assert refused.status_reason == "There are not enough hosts available. one: it is being drained"
    await evacuation.undrain(cloud, "one")
    assert (await containers.create(cloud, alice, draft(), run=True)).host == "one"
    with pytest.raises(NotFound):
        await evacuation.drain(cloud, "nowhere")


async def test_what_does_not_leave_a_drained_host_is_told_with_the_reason(
    pair: Pair, cloud: Cloud, alice: Actor
) -> None:
    plain = await pair.running(alice, memory=64)
    data = await pair.running(alice, mounts=(Mount(destination="/d", source="things", size=1),), **ALWAYS)
    named = await pair.running(alice, requested_host="one", **ALWAYS)
    large = await pair.running(alice, **{**HEAL, "memory": 2048})
    await pair.another(memory=1024)
    done = await evacuation.drain(cloud, "one")
    assert done.moving == []
    assert {one.uuid: one.reason for one in done.staying} == {
        plain.uuid: "it has no restart policy and is not to be healed (auto_heal)",
        data.uuid: "its volume things lies on this host",
        named.uuid: "its owner asked for this host",
        large.uuid: "There are not enough hosts available. one: it is being drained; two: it has too little memory"
        " left",
    }
    await pair.another("three")
    assert (await evacuation.everywhere(cloud, lost=False)).moving == [large.uuid]
    await pair.consistent()


async def test_files_are_written_anew_where_a_workload_goes(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    mounts = (Mount(destination="/etc/motd", type="bind", source="aGk="),)
    made = await pair.running(alice, mounts=mounts, **ALWAYS)
    (before,) = (await pair.old.holds())[made.uuid].volumes.values()
    two = await pair.another()
    await evacuation.drain(cloud, "one")
    await pair.old.removed(made.uuid)
    (after,) = (await two.holds())[made.uuid].volumes.values()
    assert (after.content, after.uuid != before.uuid) == ("aGk=", True)
    told = await hosts.assignments(cloud, pair.old.number, -1, 1)
    assert told is not None
    assert told.dead_volumes == (before.uuid,)
    await pair.consistent()


async def test_whole_cores_are_claimed_where_it_goes_and_given_back_where_it_was(cloud: Cloud, alice: Actor) -> None:
    info = HostInfo(runtimes=("runc",), cores=((2, 3),), shared_cores=(0, 1))
    one = Host(cloud, await hosts.register(cloud, report(info=info)))
    pair = Pair(cloud, one)
    made = await pair.running(alice, cpu=2, cpu_policy="dedicated", **ALWAYS)
    two = await pair.another(info=structs.replace(info, cores=((0, 1),), shared_cores=(2, 3)))
    await evacuation.drain(cloud, "one")
    await pair.consistent()
    assert (await one.holds())[made.uuid].members[0].cpuset == (2, 3)
    await one.removed(made.uuid)
    assert (await two.holds())[made.uuid].members[0].cpuset == (0, 1)
    await pair.consistent()
    assert (await hosts.get(cloud, "one")).cores_used == 0


async def test_a_workload_that_is_deleted_on_its_way_leaves_nothing_on_either_host(
    pair: Pair, cloud: Cloud, alice: Actor
) -> None:
    made = await pair.running(alice, **ALWAYS)
    await pair.another()
    await evacuation.drain(cloud, "one")
    with pytest.raises(InvalidState):
        await containers.stop(cloud, alice, made.uuid)
    await containers.delete(cloud, alice, made.uuid, force=True)
    await pair.old.removed(made.uuid)
    with pytest.raises(NotFound):
        await containers.get(cloud, alice, made.uuid)
    await pair.consistent()
    assert {(await hosts.get(cloud, name)).containers for name in ("one", "two")} == {0}


async def test_what_had_ended_is_made_and_not_started_elsewhere(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    stopped = await pair.running(alice, **ALWAYS)
    await containers.stop(cloud, alice, stopped.uuid)
    await pair.old.says(stopped.uuid, state="exited", ended=True, exit_code=0)
    ordered = await pair.running(alice, **ALWAYS)
    await containers.reboot(cloud, alice, ordered.uuid)
    two = await pair.another()
    await evacuation.drain(cloud, "one")
    for uuid in (stopped.uuid, ordered.uuid):
        await pair.old.removed(uuid)
    there = await two.holds()
    assert there[stopped.uuid].members[0].goal == Goal.CREATED
    assert there[ordered.uuid].members[0].goal == Goal.RUNNING
    assert there[ordered.uuid].members[0].order is None
    await two.says(stopped.uuid, state="created")
    assert (await containers.get(cloud, alice, stopped.uuid)).status == Status.CREATED


async def test_a_capsule_moves_as_a_whole(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    spec = ContainerSpec(image="busybox", memory=64)
    made = await capsules.create(
        cloud, alice, CapsuleDraft(name="pod", init_containers=(spec,), containers=(spec, spec))
    )
    await pair.old.says(made.uuid, state="running")
    two = await pair.another()
    await evacuation.drain(cloud, "one")
    await pair.old.removed(made.uuid)
    assert [one.incarnation for one in (await two.holds())[made.uuid].members] == [2, 2, 2]
    await two.says(made.uuid, state="running")
    found = await capsules.get(cloud, alice, made.uuid)
    assert (found.host, found.status) == ("two", Status.RUNNING)
    await pair.consistent()


async def test_a_group_kept_together_moves_together(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    hints = {"group": "web", "policy": "affinity"}
    made = [await pair.running(alice, hints=hints, **ALWAYS) for _ in range(3)]
    await pair.another("two")
    await pair.another("three")
    done = await evacuation.drain(cloud, "one")
    assert sorted(done.moving) == sorted(one.uuid for one in made)
    for one in made:
        await pair.old.removed(one.uuid)
    assert len({(await containers.get(cloud, alice, one.uuid)).host for one in made}) == 1


# loss


async def test_what_may_is_placed_elsewhere_once_its_host_is_lost(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    heal = await pair.running(alice, **HEAL)
    always = await pair.running(alice, **ALWAYS)
    two = await pair.another()
    await pair.lose()
    done = await evacuation.everywhere(cloud, lost=True)
    assert done.moving == [heal.uuid]
    assert {one.uuid: one.reason for one in done.staying} == {always.uuid: "it is not to be healed (auto_heal)"}
    assert (await two.holds()).keys() == {heal.uuid}
    assert (await containers.get(cloud, alice, always.uuid)).status == Status.UNKNOWN
    await two.says(heal.uuid, state="running")
    found = await containers.get(cloud, alice, heal.uuid)
    assert (found.host, found.status, found.addresses) == ("two", Status.RUNNING, heal.addresses)
    await pair.consistent()
    cloud.settings = structs.replace(cloud.settings, evacuate="restart_policy")
    assert (await evacuation.everywhere(cloud, lost=True)).moving == []  # its host does not know that it is to end it
    await hosts.force_down(cloud, "one", hosts.BINARY, True)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [always.uuid]
    await pair.consistent()


async def test_a_host_that_comes_back_has_no_say_in_what_it_lost_and_is_told_not_to_hold_it(
    pair: Pair, cloud: Cloud, alice: Actor
) -> None:
    made = await pair.running(alice, **HEAL)
    told = await hosts.assignments(cloud, pair.old.number, -1, 1)
    assert told is not None
    two = await pair.another()
    await pair.lose()
    await evacuation.everywhere(cloud, lost=True)
    generation = (await two.holds())[made.uuid].generation
    back = await hosts.assignments(cloud, pair.old.number, told.revision, 1)
    assert back is not None
    assert back.workloads == ()
    for late in (
        Observation(workload=made.uuid, generation=generation, gone=True),
        Observation(workload=made.uuid, generation=generation, error="late"),
    ):
        await observing.observe(cloud, pair.old.number, [late])
    found = await containers.get(cloud, alice, made.uuid)
    assert (found.host, found.status) == ("two", Status.REBUILDING)
    await pair.consistent()


async def test_a_workload_with_a_volume_on_the_lost_host_waits_for_it(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    mounts = (Mount(destination="/d", size=1),)
    made = await pair.running(alice, mounts=mounts, **HEAL)
    await pair.another()
    await pair.lose()
    (staying,) = (await evacuation.everywhere(cloud, lost=True)).staying
    assert staying.reason.startswith("its volume ")
    await pair.old.says(made.uuid, state="running")
    found = await containers.get(cloud, alice, made.uuid)
    assert (found.host, found.status) == ("one", Status.RUNNING)


async def test_the_owner_is_told_while_no_other_host_can_take_it(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    made = await pair.running(alice, **HEAL)
    await pair.lose()
    await evacuation.everywhere(cloud, lost=True)
    found = await containers.get(cloud, alice, made.uuid)
    assert found.status == Status.UNKNOWN
    assert found.status_reason == ("Host one does not answer. There are not enough hosts available. one: it is down")
    await pair.another()
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]
    await pair.consistent()


@pytest.mark.parametrize("policy", ["never", "auto_heal"])
async def test_nothing_leaves_a_host_that_answers_or_where_the_operator_says_never(
    pair: Pair, cloud: Cloud, alice: Actor, policy: str
) -> None:
    cloud.settings = structs.replace(cloud.settings, evacuate=policy)
    await pair.running(alice, **HEAL)
    two = await pair.another()
    if policy == "never":
        await pair.lose()
    done = await evacuation.everywhere(cloud, lost=True)
    assert (done.moving, done.staying) == ([], [])
    assert await two.holds() == {}


async def test_a_host_that_an_operator_forces_down_is_lost_at_once(pair: Pair, cloud: Cloud, alice: Actor) -> None:
    made = await pair.running(alice, **HEAL)
    await pair.another()
    await hosts.force_down(cloud, "one", hosts.BINARY, True)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]


async def test_what_was_leaving_a_drained_host_goes_on_when_that_is_lost(
    pair: Pair, cloud: Cloud, alice: Actor
) -> None:
    heal, always = await pair.running(alice, **HEAL), await pair.running(alice, **ALWAYS)
    two = await pair.another()
    await evacuation.drain(cloud, "one")
    await pair.old.knows()
    await pair.lose()
    assert (await evacuation.everywhere(cloud, lost=False)).moving == []
    assert await two.holds() == {}
    done = await evacuation.everywhere(cloud, lost=True)
    assert (done.moving, done.staying) == ([heal.uuid, always.uuid], [])
    assert (await two.holds()).keys() == {heal.uuid, always.uuid}
    await pair.consistent()


async def test_replicas_that_evacuate_at_once_place_each_workload_once(
    database: str, clock: Clock, alice: Actor
) -> None:
    key = Fernet.generate_key()
    clouds = [Cloud(open_store(database, threads=4), key, Settings(), clock=clock) for _ in range(3)]
    pair = Pair(clouds[0], Host(clouds[0], await hosts.register(clouds[0], report())))
    made = [await pair.running(alice, **HEAL) for _ in range(6)]
    for name in ("two", "three"):
        two = await pair.another(name)
    await pair.lose()
    for name in ("two", "three"):
        await hosts.seen(clouds[0], (await hosts.get(clouds[0], name)).id)
    rounds = await asyncio.gather(
        *[evacuation.everywhere(cloud, lost=True) for cloud in clouds],
        hosts.seen(clouds[1], two.number),
        *[containers.create(clouds[2], alice, draft(memory=64), run=True) for _ in range(3)],
    )
    moved = [uuid for one in rounds if isinstance(one, evacuation.Round) for uuid in one.moving]
    assert sorted(moved) == sorted(one.uuid for one in made)
    rows = await clouds[0].store.read(
        lambda conn: conn.execute(sa.select(workload, host_table.c.name.label("there")).join(
            host_table, host_table.c.id == workload.c.host_id)).all()
    )  # fmt: skip
    assert {row.there for row in rows} == {"two", "three"}
    assert await clouds[0].store.read(audit) == []
    for cloud in clouds:
        await cloud.store.close()


async def test_a_lost_host_that_speaks_just_now_keeps_its_workloads_or_has_lost_them_for_good(
    database: str, clock: Clock, alice: Actor
) -> None:
    key = Fernet.generate_key()
    clouds = [Cloud(open_store(database, threads=4), key, Settings(), clock=clock) for _ in range(2)]
    pair = Pair(clouds[0], Host(clouds[0], await hosts.register(clouds[0], report())))
    made = await pair.running(alice, **HEAL)
    two = await pair.another()
    await pair.lose()
    await asyncio.gather(evacuation.everywhere(clouds[0], lost=True), hosts.seen(clouds[1], pair.old.number))
    holding = [one for one in (pair.old, two) if made.uuid in await one.holds()]
    assert len(holding) == 1
    assert await clouds[0].store.read(audit) == []
    for cloud in clouds:
        await cloud.store.close()


def test_a_host_is_lost_only_for_who_has_listened_for_as_long_as_it_may_be_silent() -> None:
    watch = housekeeping.Watch(0)
    assert [watch.long_enough(now, lease=60) for now in range(10, 90, 10)] == [False] * 6 + [True] * 2
    assert not watch.long_enough(200, lease=60)  # the database was away
    assert [watch.long_enough(now, lease=60) for now in (230, 260, 261)] == [False, False, True]
