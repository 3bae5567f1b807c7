"""Claims on every kind of database: what holds however many schedulers decide at once."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy.engine import Connection

from higgins.control import capsules, containers, hosts
from higgins.control.audit import audit
from higgins.control.capsules import CapsuleDraft
from higgins.control.cloud import Actor, Cloud
from higgins.control.link import Observation
from higgins.control.observing import observe
from higgins.control.placement.fleet import FleetCache
from higgins.model.container import ContainerSpec, Mount, Status
from higgins.model.errors import Conflict, Invalid, NotFound
from higgins.model.resources import Container, HostInfo
from higgins.store.database import open_store
from higgins.store.schema import container, core, host, image, workload
from tests.control.conftest import Clock, Host, draft, report
from tests.control.replicas import EXACT
from tests.control.test_replicas import together

#: A host with four cores for whole ones and two for the others.
PINNED = HostInfo(runtimes=("runc",), cpu_pinning=True, cores=((2, 3), (4, 5)), shared_cores=(0, 1))


async def consistent(cloud: Cloud) -> None:
    """Claims, quotas, cores, ports and volumes add up, and no host holds more than it has."""
    assert await cloud.store.read(audit) == []

    def over(conn: Connection) -> list[Any]:
        t = host.c
        ratio = cloud.settings
        full = sa.or_(
            t.memory_used > t.memory * ratio.memory_allocation_ratio,
            t.disk_used > t.disk * ratio.disk_allocation_ratio,
            t.cpu_used - t.cores_used > (t.cpus - t.cores) * ratio.cpu_allocation_ratio + 1e-4,
            t.cores_used > t.cores,
        )
        return list(conn.execute(sa.select(host).where(full)).all())

    assert await cloud.store.read(over) == []


async def place_of(cloud: Cloud, uuid: str) -> str | None:
    row = await cloud.store.read(
        lambda conn: conn.execute(sa.select(container.c.host).where(container.c.uuid == uuid)).one()
    )
    name: str | None = row.host
    return name


async def gone(cloud: Cloud, uuid: str) -> None:
    """It is deleted, and its host says that nothing is left of it."""
    admin = Actor(user_id="root", project_id="admin", is_admin=True)
    await containers.delete(cloud, admin, uuid, force=True)
    row = await cloud.store.read(
        lambda conn: conn.execute(sa.select(workload).where(workload.c.uuid == uuid)).one_or_none()
    )
    if row is not None:
        await observe(cloud, row.host_id, [Observation(workload=uuid, generation=row.generation, gone=True)])


@pytest.fixture
async def replicas(database: str, clock: Clock) -> AsyncIterator[list[Cloud]]:
    key = Fernet.generate_key()
    clouds = [Cloud(open_store(database, threads=4), key, EXACT, clock=clock) for _ in range(3)]
    yield clouds
    for cloud in clouds:
        await cloud.store.close()


def under(replicas: list[Cloud], **settings: Any) -> list[Cloud]:
    for cloud in replicas:
        cloud.settings = structs.replace(EXACT, **settings)
    return replicas


# company


async def test_members_of_a_group_that_come_at_once_are_on_a_host_of_their_own_each(
    replicas: list[Cloud], alice: Actor
) -> None:
    for n in range(3):
        await hosts.register(replicas[0], report(f"h{n}"))
    hints = {"group": "web", "policy": "anti-affinity"}
    made = await together(
        *[containers.create(replicas[n % 3], alice, draft(memory=4, hints=hints), run=True) for n in range(5)]
    )
    placed = [one for one in made if isinstance(one, Container)]
    assert Counter(one.host for one in placed) == {"h0": 1, "h1": 1, "h2": 1, None: 2}
    reason = next(one.status_reason for one in placed if one.host is None)
    assert reason is not None
    assert "h1: it has a member of group web already" in reason
    await consistent(replicas[0])


async def test_a_group_is_its_projects_own(cloud: Cloud, host: Host, alice: Actor, bob: Actor) -> None:
    hints = {"group": "web", "policy": "anti-affinity"}
    made = [await containers.create(cloud, one, draft(hints=hints), run=True) for one in (alice, bob)]
    assert [one.host for one in made] == ["one", "one"]


async def test_a_group_kept_together_follows_its_first_member(cloud: Cloud, alice: Actor) -> None:
    for n in range(3):
        await hosts.register(cloud, report(f"h{n}"))
    hints = {"group": "web", "policy": "affinity"}
    made = [await containers.create(cloud, alice, draft(hints=hints), run=True) for _ in range(3)]
    assert len({one.host for one in made}) == 1


async def test_same_and_different_host_are_told_by_uuid(cloud: Cloud, alice: Actor, bob: Actor) -> None:
    for n in range(2):
        await hosts.register(cloud, report(f"h{n}"))
    first = await containers.create(cloud, alice, draft(), run=True)
    pod = await capsules.create(cloud, alice, CapsuleDraft(name=None, containers=(ContainerSpec(image="busybox"),)))
    beside = await containers.create(cloud, alice, draft(hints={"same_host": first.uuid}), run=True)
    away = await containers.create(cloud, alice, draft(hints={"different_host": first.uuid}), run=True)
    assert (beside.host, away.host) == (first.host, pod.host)
    nowhere = await containers.create(
        cloud, alice, draft(hints={"different_host": f"{first.uuid},{pod.uuid}"}), run=True
    )
    assert nowhere.status == Status.ERROR
    torn = await containers.create(cloud, alice, draft(hints={"same_host": f"{first.uuid},{pod.uuid}"}), run=True)
    assert torn.status == Status.ERROR
    with pytest.raises(NotFound):  # another project's is as good as none
        await containers.create(cloud, bob, draft(hints={"same_host": first.uuid}), run=True)
    with pytest.raises(Invalid, match="policy"):
        await containers.create(cloud, alice, draft(hints={"group": "g", "policy": "near"}), run=True)


async def test_a_host_that_has_the_image_comes_first(cloud: Cloud, alice: Actor, clock: Clock) -> None:
    for n in range(2):
        await hosts.register(cloud, report(f"h{n}"))
    values = {
        "uuid": "u", "project_id": "admin", "tag": "latest", "reference": "busybox:latest", "created_at": clock(),
    }  # fmt: skip
    await cloud.store.write(
        lambda conn: conn.execute(sa.insert(image).values(repo="busybox", host="h1", **values)).rowcount
    )
    assert (await containers.create(cloud, alice, draft(memory=4), run=True)).host == "h1"


async def test_a_dry_run_tells_each_hosts_reason_and_changes_nothing(cloud: Cloud, alice: Actor) -> None:
    for name, size in (("small", 256), ("large", 8192), ("off", 8192)):
        await hosts.register(cloud, report(name, memory=size))
    await hosts.disable(cloud, "off", hosts.BINARY, None)
    told = await containers.dry_run(cloud, alice, draft(memory=1024))
    assert (told["host"], told["candidates"]) == ("large", ["large"])
    assert told["refused"] == {"small": "it has too little memory left", "off": "it is disabled"}
    await consistent(cloud)
    assert not (await hosts.get(cloud, "large")).containers


# tenants


async def test_projects_that_share_no_hosts_take_empty_ones_and_leave_them_free_again(
    replicas: list[Cloud], alice: Actor, bob: Actor
) -> None:
    clouds = under(replicas, tenant_isolation=("all",))
    await hosts.register(clouds[0], report("h0"))
    first, second = [await containers.create(clouds[n], alice, draft(memory=4), run=True) for n in range(2)]
    other = await containers.create(clouds[1], bob, draft(memory=4), run=True)
    assert (other.host, other.status_reason) == (
        None,
        "There are not enough hosts available. h0: it holds containers of another project, which may not be shared"
        " with",
    )
    await gone(clouds[2], first.uuid)
    assert (await containers.create(clouds[1], bob, draft(memory=4), run=True)).host is None
    await gone(clouds[2], second.uuid)
    assert (await containers.create(clouds[1], bob, draft(memory=4), run=True)).host == "h0"
    await consistent(clouds[0])


async def test_many_projects_at_once_never_meet_on_a_host(replicas: list[Cloud]) -> None:
    clouds = under(replicas, tenant_isolation=("all",))
    for n in range(4):
        await hosts.register(clouds[0], report(f"h{n}"))
    actors = [Actor(user_id="u", project_id=f"p{n}") for n in range(6)]
    await together(*[containers.create(clouds[n % 3], actors[n % 6], draft(memory=4), run=True) for n in range(18)])
    rows = await clouds[0].store.read(
        lambda conn: conn.execute(
            sa.select(workload.c.host_id, workload.c.project_id).where(workload.c.host_id.is_not(None)).distinct()
        ).all()
    )
    assert len(rows) == len({row.host_id for row in rows}) == 4
    await consistent(clouds[0])


async def test_one_project_that_wants_to_be_alone_is_and_the_others_share(
    replicas: list[Cloud], alice: Actor, bob: Actor
) -> None:
    clouds = under(replicas, tenant_isolation=("red",))
    for n in range(2):
        await hosts.register(clouds[0], report(f"h{n}"))
    carol = Actor(user_id="carol", project_id="green")
    red = await containers.create(clouds[0], alice, draft(memory=4), run=True)
    others = [await containers.create(clouds[1], one, draft(memory=4), run=True) for one in (bob, carol, bob)]
    assert {one.host for one in others} == {"h0", "h1"} - {red.host}
    assert (await containers.create(clouds[2], alice, draft(memory=4), run=True)).host == red.host
    await consistent(clouds[0])


# whole cores


async def test_dedicated_cores_are_given_once_and_reach_the_host(replicas: list[Cloud], alice: Actor) -> None:
    one = Host(replicas[0], await hosts.register(replicas[0], report(cpus=6, info=PINNED)))
    made = await together(
        *[
            containers.create(replicas[n % 3], alice, draft(cpu=2, cpu_policy="dedicated", memory=4), run=True)
            for n in range(4)
        ]
    )
    placed = [each for each in made if isinstance(each, Container) and each.host]
    assert len(placed) == 2
    told = await one.holds()
    assert sorted(told[each.uuid].members[0].cpuset for each in placed) == [(2, 3), (4, 5)]
    shared = await containers.create(replicas[0], alice, draft(memory=4), run=True)
    assert (await one.holds())[shared.uuid].members[0].cpuset == (0, 1)
    await consistent(replicas[0])
    await gone(replicas[1], placed[0].uuid)
    await consistent(replicas[0])
    again = await containers.create(replicas[2], alice, draft(cpu=1, cpu_policy="dedicated", memory=4), run=True)
    assert again.host == "one"
    await one.says(again.uuid, state="running")
    with pytest.raises(Conflict, match="cannot be changed"):
        await containers.update(replicas[0], alice, again.uuid, cpu=2)


async def test_a_host_without_dedicated_cores_keeps_nobody_to_some(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = await containers.create(cloud, alice, draft(), run=True)
    assert (await host.holds())[made.uuid].members[0].cpuset == ()
    refused = await containers.create(cloud, alice, draft(cpu=1, cpu_policy="dedicated"), run=True)
    assert refused.status_reason == "There are not enough hosts available. one: it gives no dedicated CPUs"
    with pytest.raises(Invalid, match="whole"):
        await containers.create(cloud, alice, draft(cpu=1.5, cpu_policy="dedicated"), run=True)


async def test_a_capsule_shares_out_its_cores(cloud: Cloud, alice: Actor) -> None:
    one = Host(cloud, await hosts.register(cloud, report(cpus=6, info=PINNED)))
    spec = ContainerSpec(image="busybox", cpu=1, memory=4, cpu_policy="dedicated")
    made = await capsules.create(
        cloud,
        alice,
        CapsuleDraft(
            name=None,
            init_containers=(structs.replace(spec, cpu=2),),
            containers=(spec, spec, structs.replace(spec, cpu_policy="shared")),
        ),
    )
    told = (await one.holds())[made.uuid].members
    assert [each.cpuset for each in told] == [(2, 3), (2,), (3,), (0, 1)]
    await consistent(cloud)


# many at once


async def test_schedulers_in_processes_of_their_own_neither_overcommit_nor_break_a_rule(
    database: str, replicas: list[Cloud]
) -> None:
    clouds = under(replicas, tenant_isolation=("all",), cpu_allocation_ratio=1.0)
    clouds[0].now.forward(10**9)  # type: ignore[attr-defined]  # the processes have the real time
    for n in range(3):
        await hosts.register(clouds[0], report(f"h{n}", cpus=6, memory=2048, info=PINNED))
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.control.placement_process", database, f"p{n}", "6",
            stdout=asyncio.subprocess.PIPE,
        )
        for n in range(2)
    ]  # fmt: skip
    outputs = [(await one.communicate())[0].decode().split() for one in processes]
    assert all(len(output) == 6 for output in outputs)
    await consistent(clouds[0])
    rows = await clouds[0].store.read(
        lambda conn: conn.execute(
            sa.select(workload.c.host_id, workload.c.project_id).where(workload.c.host_id.is_not(None)).distinct()
        ).all()
    )
    assert len(rows) == len({row.host_id for row in rows}) == 3
    given = await clouds[0].store.read(lambda conn: len(conn.execute(sa.select(core)).all()))
    assert 0 < given <= 12


#: What is asked at once: replica, project, memory in 256 MiB, whole cores or a group or neither, create or delete.
ASKED = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(1, 4),
        st.sampled_from(["plain", "cores", "apart", "file"]),
        st.sampled_from(["create", "create", "delete"]),
    ),
    min_size=4,
    max_size=14,
)


@hypothesis_settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(isolation=st.sampled_from([(), ("all",), ("p0",)]), age=st.sampled_from([0.0, 60.0]), asked=ASKED)
async def test_whatever_is_asked_at_once_every_claim_adds_up_and_no_rule_is_broken(
    replicas: list[Cloud], isolation: tuple[str, ...], age: float, asked: list[tuple[int, int, int, str, str]]
) -> None:
    clouds = under(replicas, tenant_isolation=isolation, placement_age=age, cpu_allocation_ratio=1.0)
    actors = [Actor(user_id="u", project_id=f"p{n}", request_id="r") for n in range(3)]
    for n in range(3):
        await hosts.register(clouds[0], report(f"h{n}", cpus=6, memory=1024, info=PINNED))
    before = [await containers.create(clouds[n], actors[n], draft(memory=256), run=True) for n in range(3)]

    async def ask(replica: int, number: int, amount: int, kind: str, verb: str) -> None:
        if verb == "delete":
            await gone(clouds[replica], before[number].uuid)
            return
        kinds: dict[str, dict[str, Any]] = {
            "plain": {},
            "cores": {"cpu": 2.0, "cpu_policy": "dedicated"},
            "apart": {"hints": {"group": "g", "policy": "anti-affinity"}},
            "file": {"mounts": (Mount(destination="/etc/motd", type="bind", source="aGk="),)},
        }
        await containers.create(clouds[replica], actors[number], draft(memory=256 * amount, **kinds[kind]), run=True)

    await together(*[ask(*one) for one in asked])
    await consistent(clouds[0])
    rows = await clouds[0].store.read(
        lambda conn: conn.execute(sa.select(workload).where(workload.c.host_id.is_not(None))).all()
    )
    groups = [(row.host_id, row.project_id) for row in rows if row.group_name]
    assert len(groups) == len(set(groups))
    for number in {row.host_id for row in rows}:
        there = {row.project_id for row in rows if row.host_id == number}
        assert len(there) == 1 or not (isolation == ("all",) or there & set(isolation))
    everything = await clouds[0].store.read(lambda conn: list(conn.execute(sa.select(workload.c.uuid)).scalars()))
    for uuid in everything:
        await gone(clouds[1], uuid)
    await consistent(clouds[0])
    rows = await clouds[0].store.read(lambda conn: conn.execute(sa.select(host)).all())
    assert {(row.containers, row.tenant, row.cores_used, row.memory_used) for row in rows} == {(0, None, 0, 0)}


# what a process keeps of the hosts


@pytest.mark.parametrize("many", [True, False])
async def test_a_process_reads_again_all_of_few_hosts_and_of_many_those_that_changed(
    cloud: Cloud, alice: Actor, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    if many:
        monkeypatch.setattr("higgins.control.placement.fleet._FEWEST", 0)
    for n in range(3):
        await hosts.register(cloud, report(f"h{n}"))
    cache = FleetCache()
    before = await cloud.store.read(cache.get)
    assert ((await cloud.store.read(cache.get)).cpu_used is before.cpu_used) == many
    await containers.create(cloud, alice, draft(cpu=1), run=True)
    after = await cloud.store.read(cache.get)
    assert after.facts is before.facts
    assert after.cpu_used.tolist() == [1, 0, 0]
    await hosts.disable(cloud, "h1", hosts.BINARY, None)
    assert (await cloud.store.read(cache.get)).disabled.tolist() == [False, True, False]
    await hosts.register(cloud, report("h2", zone="south"))
    await hosts.register(cloud, report("h3"))
    assert (await cloud.store.read(cache.get)).facts.zones == ("nova", "nova", "south", "nova")
    fresh = await cloud.store.read(FleetCache().get)
    kept = await cloud.store.read(cache.get)
    assert {name: list(getattr(kept, name)) for name in ("memory", "containers", "seen")} == {
        name: list(getattr(fresh, name)) for name in ("memory", "containers", "seen")
    }


async def test_what_is_known_of_hosts_may_be_old_and_nobody_is_turned_away_for_it(
    replicas: list[Cloud], alice: Actor
) -> None:
    clouds = under(replicas, placement_age=3600.0)
    await hosts.register(clouds[0], report("h0", memory=1024))
    assert (await containers.create(clouds[0], alice, draft(memory=1024), run=True)).host == "h0"
    await hosts.register(clouds[1], report("h1", memory=1024))
    named = await containers.create(clouds[0], alice, draft(memory=4, requested_host="h1"), run=True)
    assert named.host == "h1"
    await hosts.disable(clouds[1], "h1", hosts.BINARY, None)
    late = await containers.create(clouds[0], alice, draft(memory=4), run=True)
    assert late.status_reason is not None
    assert "h1: it is disabled" in late.status_reason
    with pytest.raises(NotFound):
        await containers.create(clouds[0], alice, draft(memory=4, requested_host="h2"), run=True)
    await consistent(clouds[0])
