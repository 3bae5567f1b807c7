"""Volumes of Cinder between the database and the service: wanted, attached, moved, and given back, whatever fails."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import attaching, capsules, containers, evacuation, hosts, housekeeping, quotas
from higgins.control.audit import audit
from higgins.control.capsules import CapsuleDraft
from higgins.control.cloud import Actor, Cloud
from higgins.control.keeper import LEASE, Keeper, Later, Written
from higgins.control.link import Waits
from higgins.model.container import ContainerSpec, Mount, RestartPolicy, Status
from higgins.model.errors import Conflict, NotFound, OverQuota
from higgins.model.resources import Container, HostInfo
from higgins.openstack.errors import ServiceRefused, ServiceUnavailable
from higgins.store.schema import attachment, volume
from higgins.volumes.base import VolumeWire
from tests.control.conftest import Clock, Host, Stop, draft, report
from tests.control.storage import FakeStorage

AWAY = ServiceUnavailable("Cinder", "the volume cannot be attached")
Work = Callable[[], Awaitable[None]]


@pytest.fixture
def storage(cloud: Cloud) -> FakeStorage:
    made = FakeStorage()
    cloud.storage = made
    return made


@pytest.fixture
async def one(cloud: Cloud, storage: FakeStorage) -> Host:
    return await join(cloud, "one")


@pytest.fixture
def work(cloud: Cloud, clock: Clock, storage: FakeStorage) -> Work:
    """Have the keeper do all that can be done now."""
    keeper = attaching.keeper(cloud, storage)

    async def rounds() -> None:
        for _ in range(30):
            if not await keeper.round():
                return
        raise AssertionError("the keeper finds no end")

    return rounds


async def join(cloud: Cloud, name: str) -> Host:
    info = HostInfo(runtimes=("runc",), connector={"host": name})
    return Host(cloud, await hosts.register(cloud, report(name, info=info)))


async def create(cloud: Cloud, actor: Actor, *mounts: Mount, **spec: object) -> Container:
    asked = draft(None, memory=64, cpu=0.1, mounts=mounts, **spec)
    return await containers.create(cloud, actor, asked, run=True)


def named(source: str, **more: object) -> Mount:
    return Mount(destination="/data", source=source, **more)  # type: ignore[arg-type]


async def wire(host: Host, made: Container) -> VolumeWire:
    (found,) = (await host.holds())[made.workload].volumes.values()
    return found


async def waits(host: Host, made: Container) -> Waits | None:
    return (await host.holds())[made.workload].waits


async def removed(cloud: Cloud, host: Host, actor: Actor, made: Container) -> None:
    await containers.delete(cloud, actor, made.uuid, stop=True)
    await host.removed(made.uuid)


async def let_go(cloud: Cloud, host: Host) -> None:
    """The host has disconnected what it was told to."""
    told = await hosts.assignments(cloud, host.number, -1, 1)
    assert told is not None
    await hosts.volumes_deleted(cloud, host.number, list(told.dead_volumes))


async def rows(cloud: Cloud) -> int:
    query = sa.select(sa.func.count()).select_from(attachment)
    assert await cloud.store.read(audit) == []
    return int(await cloud.store.read(lambda conn: conn.execute(query).scalar_one()))


async def test_a_host_is_told_of_a_volume_once_it_is_attached_and_the_secrets_are_kept_as_such(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    ident = storage.add("mine")
    made = await create(cloud, alice, named("mine"))
    assert (await wire(one, made)).awaited and await waits(one, made) == Waits()
    await work()
    found = await wire(one, made)
    assert found.connection is not None and found.connection["device_path"] == f"/dev/{ident}"
    assert await waits(one, made) is None
    assert storage.status(ident) == "in-use"
    kept = await cloud.store.read(lambda conn: conn.execute(sa.select(attachment.c.connection)).scalar_one())
    assert "topsecret" not in kept
    assert (await quotas.usages(cloud, alice.project_id))["disk"][1] == 0


@pytest.mark.parametrize("own", [True, False])
async def test_after_its_container_a_volume_leaves_and_nothing_is_left(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work, own: bool
) -> None:
    kept = storage.add("mine")
    made = await create(cloud, alice, Mount(destination="/data", size=2) if own else named("mine"))
    await work()
    (ident,) = set(storage.volumes) - {kept} or {kept}
    await removed(cloud, one, alice, made)
    await work()
    assert storage.attached[ident], "its host may still write to it"
    await let_go(cloud, one)
    await work()
    assert set(storage.volumes) == {kept} and storage.empty
    assert await rows(cloud) == 0


async def test_a_volume_that_a_name_and_a_size_are_given_for_is_made_and_kept(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, named("data", size=3))
    await work()
    await removed(cloud, one, alice, made)
    await let_go(cloud, one)
    await work()
    (found,) = storage.volumes.values()
    assert (found.name, found.size) == ("data", 3) and storage.empty
    await create(cloud, alice, named("data", size=3))
    await work()
    assert list(storage.volumes) == [found.id]


async def test_a_volume_in_use_is_refused_and_one_that_is_let_go_of_is_awaited(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    ident = storage.add("mine")
    first = await create(cloud, alice, named("mine"), hostname="first")
    await work()
    for name in ("mine", ident):
        with pytest.raises(Conflict, match=f"in use by container {first.name}"):
            await create(cloud, alice, named(name))
    assert len(storage.trusts) == 1
    await removed(cloud, one, alice, first)
    second = await create(cloud, alice, named("mine"))
    await work()
    waiting = await waits(one, second)
    assert waiting is not None and "still attached to host one" in waiting.reason
    await let_go(cloud, one)
    await work()
    assert await waits(one, second) is None and len(storage.attached[ident]) == 1


@pytest.mark.parametrize("status", ["in-use", "error", "detaching", "reserved", "deleting"])
async def test_what_cannot_be_attached_is_refused_in_the_words_of_cinder(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, status: str
) -> None:
    storage.add("mine", status=status)
    with pytest.raises(Conflict, match=f"is {status} in Cinder"):
        await create(cloud, alice, named("mine"))
    with pytest.raises(NotFound, match="Volume other could not be found"):
        await create(cloud, alice, named("other"))
    assert storage.empty and await rows(cloud) == 0


async def test_a_multiattach_volume_is_shared_on_one_host_until_the_last_leaves(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    ident = storage.add("mine", multiattach=True)
    first = await create(cloud, alice, named("mine"))
    await join(cloud, "two")
    second = await create(cloud, alice, named(ident))
    assert second.host == first.host == "one"
    await work()
    assert (await wire(one, first)) == (await wire(one, second))
    for made, users in ((first, 1), (second, 0)):
        await removed(cloud, one, alice, made)
        await let_go(cloud, one)
        await work()
        assert len(storage.attached[ident]) == users
    assert storage.empty and await rows(cloud) == 0


async def test_members_of_a_capsule_share_what_they_name(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    ident = storage.add("mine")
    shared = Mount(destination="/own", size=1, volume="template:own")
    members = tuple(
        ContainerSpec(image="busybox", memory=64, cpu=0.1, mounts=(named(name), shared)) for name in ("mine", ident)
    )
    made = await capsules.create(cloud, alice, CapsuleDraft(name="both", containers=members))
    await work()
    told = (await one.holds())[made.uuid]
    assert len(told.volumes) == 2 and told.waits is None
    assert [len(storage.attached[name]) for name in storage.volumes] == [1, 1]
    await capsules.delete(cloud, alice, made.uuid)
    await one.removed(made.uuid)
    await let_go(cloud, one)
    await work()
    assert list(storage.volumes) == [ident] and storage.empty and await rows(cloud) == 0


async def test_a_create_that_is_refused_leaves_no_trust(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor
) -> None:
    storage.add("mine")
    await quotas.update(cloud, alice.project_id, {"containers": 0})
    with pytest.raises(OverQuota):
        await create(cloud, alice, named("mine"))
    await containers.dry_run(cloud, alice, draft(mounts=(named("mine"),)))
    assert storage.empty and await rows(cloud) == 0


async def test_while_cinder_is_away_the_owner_reads_why_and_afterwards_all_goes_on(
    cloud: Cloud, clock: Clock, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1))
    storage.fails = AWAY
    for _ in range(20):
        await work()
        clock.forward(80)
        await hosts.seen(cloud, one.number)
    waiting = await waits(one, made)
    assert waiting is not None and not waiting.refused and "Cinder does not answer now" in waiting.reason
    storage.fails = None
    await work()
    assert await waits(one, made) is None
    await removed(cloud, one, alice, made)
    storage.fails = AWAY
    await let_go(cloud, one)
    await work()
    clock.forward(80)
    storage.fails = None
    await work()
    assert storage.volumes == {} and storage.empty and await rows(cloud) == 0


async def test_a_refusal_is_told_and_tried_again_when_the_owner_does(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1))
    storage.fails = ServiceRefused("Cinder", "the volume cannot be made", "the quota is used up (413)")
    await work()
    refused = await waits(one, made)
    assert refused == Waits(reason=str(storage.fails), refused=True)
    await one.says(made.uuid, state="error", reason=refused.reason)
    assert (await containers.get(cloud, alice, made.uuid)).status == Status.ERROR
    storage.fails = None
    await containers.start(cloud, alice, made.uuid)
    await work()
    assert await waits(one, made) is None


async def test_a_refusal_that_may_pass_ends_as_an_error_when_it_does_not(
    cloud: Cloud, clock: Clock, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1))
    storage.fails = ServiceRefused("Cinder", "the volume cannot be attached", "its status is detaching", final=False)
    await work()
    waiting = await waits(one, made)
    assert waiting is not None and not waiting.refused and "detaching" in waiting.reason
    for _ in range(10):
        clock.forward(80)
        await work()
    waiting = await waits(one, made)
    assert waiting is not None and waiting.refused


async def test_what_was_done_though_no_answer_came_is_not_done_twice(
    cloud: Cloud, clock: Clock, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1))
    for _ in range(2):  # after making, and after attaching it
        storage.loses = AWAY
        await work()
        clock.forward(2)
    await work()
    assert len(storage.volumes) == 1 and await waits(one, made) is None
    await removed(cloud, one, alice, made)
    await let_go(cloud, one)
    for _ in range(2):  # after detaching, and after deleting it
        storage.loses = AWAY
        await work()
        clock.forward(2)
    await work()
    assert storage.volumes == {} and storage.empty and await rows(cloud) == 0


@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("at", ["before", "attach"])
async def test_a_keeper_that_was_stopped_for_longer_than_its_lease_leaves_nothing_of_its_own(
    cloud: Cloud, clock: Clock, storage: FakeStorage, one: Host, alice: Actor, work: Work, at: str, deleted: bool
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1))
    stop = Stop()
    storage.stopped = stop if at == "attach" else None

    async def later(rows: Sequence[Row[Any]]) -> Sequence[Written | Later]:
        if at == "before":
            await stop.here()
        return await attaching.Attaching(cloud, storage).work(rows)

    stopped = asyncio.create_task(Keeper(cloud, attachment, later).round())
    async with asyncio.timeout(30):
        await stop.reached.wait()
    clock.forward(LEASE + 1)
    await work()
    assert await waits(one, made) is None
    if deleted:
        await removed(cloud, one, alice, made)
        await let_go(cloud, one)
        await work()
    stop.goes_on.set()
    await stopped
    assert len(storage.volumes) == len(storage.trusts) == (0 if deleted else 1)
    assert [len(hosts) for hosts in storage.attached.values()] == ([] if deleted else [1])
    assert await rows(cloud) == (0 if deleted else 1)


@pytest.mark.parametrize("answered", [True, False])
async def test_a_container_that_is_deleted_before_its_volume_came_leaves_none(
    cloud: Cloud, clock: Clock, storage: FakeStorage, one: Host, alice: Actor, work: Work, answered: bool
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1))
    if answered:
        storage.loses = AWAY
        await work()
    await removed(cloud, one, alice, made)
    await work()
    assert storage.volumes == {} and storage.empty and await rows(cloud) == 0


async def test_a_container_without_a_host_has_nothing_made_until_it_gets_one(
    cloud: Cloud, storage: FakeStorage, host: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1))
    assert (made.host, made.status) == (None, Status.ERROR)
    assert "volumes of Cinder cannot be attached to it" in (made.status_reason or "")
    await work()
    assert storage.volumes == {}
    one = await join(cloud, "one")
    await containers.start(cloud, alice, made.uuid)
    await work()
    assert await waits(one, made) is None and len(storage.volumes) == 1
    assert len(storage.trusts) == 1
    lost = await create(cloud, alice, Mount(destination="/data", size=1), runtime="kata")
    await containers.delete(cloud, alice, lost.uuid)
    await work()
    assert len(storage.volumes) == len(storage.trusts) == 1


async def test_a_volume_moves_with_its_container_once_the_old_host_has_let_go_of_it(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1), restart_policy=RestartPolicy("always"))
    await work()
    await one.says(made.uuid, state="running")
    (ident,) = storage.volumes
    two = await join(cloud, "two")
    assert (await evacuation.drain(cloud, "one")).moving == [made.uuid]
    await one.removed(made.uuid)
    await work()
    waiting = await waits(two, made)
    assert waiting is not None and "still attached to host one" in waiting.reason
    await let_go(cloud, one)
    await work()
    assert await waits(two, made) is None
    assert not (await wire(two, made)).fresh, "there may be data on it"
    assert list(storage.volumes) == [ident] and set(storage.attached[ident].values()) == {"two"}
    await removed(cloud, two, alice, made)
    await let_go(cloud, two)
    await work()
    assert storage.volumes == {} and storage.empty and await rows(cloud) == 0


async def test_a_volume_leaves_a_silent_host_only_when_that_is_forced_down(
    cloud: Cloud, clock: Clock, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1), auto_heal=True)
    await work()
    await one.says(made.uuid, state="running")
    (ident,) = storage.volumes
    two = await join(cloud, "two")
    clock.forward(3600)
    await hosts.seen(cloud, two.number)
    (stays,) = (await evacuation.everywhere(cloud, lost=True)).staying
    assert "not forced down" in stays.reason
    await work()
    assert set(storage.attached[ident].values()) == {"one"}
    await cloud.store.write(lambda conn: housekeeping.sweep(conn, cloud))
    for _ in range(2):
        await evacuation.everywhere(cloud, lost=True)
        found = await containers.get(cloud, alice, made.uuid)
        assert (found.status, found.status_reason) == (
            "Unknown", "Host one does not answer. Its volume stays there until the operator says that it is off.",
        )  # fmt: skip
    await hosts.force_down(cloud, "one", hosts.BINARY, True)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]
    await work()
    assert set(storage.attached[ident].values()) == {"two"} and await waits(two, made) is None
    assert made.uuid not in await one.holds()


@pytest.mark.parametrize("fenced", [True, False])
async def test_two_that_share_a_volume_leave_their_host_for_one_host(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work, fenced: bool
) -> None:
    ident = storage.add("mine", multiattach=True)
    made = [await create(cloud, alice, named("mine"), auto_heal=True) for _ in range(2)]
    await work()
    for each in made:
        await one.says(each.uuid, state="running")
    two, three = [await join(cloud, name) for name in ("two", "three")]
    if fenced:
        await hosts.force_down(cloud, "one", hosts.BINARY, True)
        assert len((await evacuation.everywhere(cloud, lost=True)).moving) == 2
    else:
        assert len((await evacuation.drain(cloud, "one")).moving) == 2
        for each in made:
            await one.removed(each.uuid)
        await let_go(cloud, one)
    await work()
    (place,) = {(await containers.get(cloud, alice, each.uuid)).host for each in made}
    there = {"two": two, "three": three}[place or ""]
    assert (await wire(there, made[0])) == (await wire(there, made[1])) and await waits(there, made[1]) is None
    assert set(storage.attached[ident].values()) == {place}
    for each in made:
        await removed(cloud, there, alice, each)
    await let_go(cloud, there)
    await work()
    assert storage.empty and await rows(cloud) == 0


async def test_what_shares_a_volume_with_one_that_stays_stays_with_it(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    storage.add("mine", multiattach=True)
    first = await create(cloud, alice, named("mine"), auto_heal=True)
    await create(cloud, alice, named("mine"))
    await work()
    await join(cloud, "two")
    done = await evacuation.drain(cloud, "one")
    assert not done.moving
    (reason,) = [one.reason for one in done.staying if one.uuid == first.uuid]
    assert "shares a volume with" in reason and "is not to be healed" in reason


async def test_a_volume_that_was_leaving_a_host_that_died_is_free_when_that_is_fenced(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    made = await create(cloud, alice, Mount(destination="/data", size=1))
    await work()
    await removed(cloud, one, alice, made)
    await hosts.force_down(cloud, "one", hosts.BINARY, True)
    await cloud.store.write(lambda conn: housekeeping.sweep(conn, cloud))
    await work()
    assert storage.volumes == {} and storage.empty and await rows(cloud) == 0
    await hosts.delete(cloud, "one", hosts.BINARY)


async def test_volumes_of_the_hosts_own_disks_go_on_beside_those_of_cinder(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, work: Work
) -> None:
    cloud.storage = None
    first = await create(cloud, alice, named("data", size=1))
    cloud.storage = storage
    second = await create(cloud, alice, named("data"))
    assert (await wire(one, first)) == (await wire(one, second)) and storage.empty
    other = await create(cloud, alice, Mount(destination="/d", type="bind", source="YQ=="))
    assert (await wire(one, other)).content == "YQ==" and storage.empty
    kinds = await cloud.store.read(lambda conn: set(conn.execute(sa.select(volume.c.driver)).scalars()))
    assert kinds == {"local"}


class _Undone(Exception):
    pass


async def test_a_trust_that_only_an_undone_run_used_is_given_back(
    cloud: Cloud, storage: FakeStorage, one: Host, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.add("mine")
    write = cloud.store.write
    asked = draft(None, memory=64, cpu=0.1, mounts=(named("mine"),))

    async def repeat() -> Container:
        return await containers.create(cloud, alice, asked, run=True, idempotency_key="key", body_hash="hash")

    async def outrun(work: Callable[[Connection], Container]) -> Container:
        """As where another request with the same key is quicker: the second run finds what that made."""

        def undone(conn: Connection) -> None:
            work(conn)
            raise _Undone

        monkeypatch.undo()
        with pytest.raises(_Undone):
            await write(undone)
        await repeat()
        return await write(work)

    monkeypatch.setattr(cloud.store, "write", outrun)
    await repeat()
    assert len(storage.trusts) == 1
