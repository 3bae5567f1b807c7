"""What one can do to a container, on a real store; the host's part is said by the test."""

import asyncio
import ipaddress

import pytest
import sqlalchemy as sa
from msgspec import structs

from higgins.control import containers, hosts, quotas
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import NetRequest
from higgins.control.query import ListQuery
from higgins.model.container import ALLOWED, Goal, Mount, Status
from higgins.model.errors import Conflict, Forbidden, Invalid, InvalidState, NotFound, OverQuota
from higgins.model.resources import Container
from higgins.store.schema import host as host_table
from tests.control.conftest import Host, draft, report


async def running(cloud: Cloud, actor: Actor, host: Host, **spec: object) -> Container:
    made = await containers.create(cloud, actor, draft(None, **spec), run=True)
    await host.says(made.uuid, state="running")
    return await containers.get(cloud, actor, made.uuid)


async def test_a_container_is_assigned_to_its_host_with_a_port_of_its_projects_network(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    made = await containers.create(cloud, alice, draft("web", hostname="www"), run=True)
    assert (made.status, made.host) == (Status.CREATING, "one")
    assignment = (await host.holds())[made.uuid]
    (port,) = assignment.ports
    assert assignment.hostname == "www"
    assert assignment.members[0].goal == Goal.RUNNING
    assert [entry["addr"] for entry in made.addresses[port.network]] == [port.address]
    assert assignment.names[port.address] == ("web",)


async def test_a_report_makes_it_running_and_finishes_the_action(cloud: Cloud, host: Host, alice: Actor) -> None:
    from higgins.control import actions

    found = await running(cloud, alice, host)
    assert (found.status, found.task_state) == (Status.RUNNING, None)
    (action,) = await actions.find(cloud, alice, found.uuid)
    assert (action.action, action.result, action.request_id) == ("create", "Success", "req-1")
    assert action.finish_time is not None


async def test_a_report_of_an_older_generation_changes_nothing(cloud: Cloud, host: Host, alice: Actor) -> None:
    found = await running(cloud, alice, host)
    await containers.stop(cloud, alice, found.uuid)
    await host.says(found.uuid, generation=1, state="error", reason="late")
    assert (await containers.get(cloud, alice, found.uuid)).status == Status.RUNNING
    await host.says(found.uuid, state="exited", exit_code=0)
    assert (await containers.get(cloud, alice, found.uuid)).status == Status.STOPPED


async def test_a_report_of_a_host_that_does_not_hold_it_changes_nothing(cloud: Cloud, host: Host, alice: Actor) -> None:
    found = await running(cloud, alice, host)
    other = Host(cloud, await hosts.register(cloud, report("two")))
    from higgins.control import observing
    from higgins.control.link import Observation

    await observing.observe(cloud, other.number, [Observation(workload=found.uuid, generation=1, gone=True)])
    assert (await containers.get(cloud, alice, found.uuid)).status == Status.RUNNING


async def test_what_a_host_says_twice_of_a_workload_counts_once(cloud: Cloud, host: Host, alice: Actor) -> None:
    from higgins.control import observing
    from higgins.control.link import Observation

    await running(cloud, alice, host)
    gone = await running(cloud, alice, host)
    await containers.delete(cloud, alice, gone.uuid, stop=True)
    generation = (await host.holds())[gone.uuid].generation
    said = Observation(workload=gone.uuid, generation=generation, gone=True)
    await observing.observe(cloud, host.number, [said, said])
    assert (await quotas.usages(cloud, "red"))["containers"][1] == 1
    assert (await hosts.get(cloud, "one")).containers == 1


@pytest.mark.parametrize("verb", ["start", "stop", "reboot", "pause", "unpause", "kill", "rebuild"])
@pytest.mark.parametrize(
    ("state", "status"),
    [("running", Status.RUNNING), ("exited", Status.STOPPED), ("paused", Status.PAUSED), ("created", Status.CREATED)],
)
async def test_a_verb_is_refused_in_exactly_the_states_of_the_table(
    cloud: Cloud, host: Host, alice: Actor, verb: str, state: str, status: Status
) -> None:
    made = await containers.create(cloud, alice, draft(), run=state != "created")
    await host.says(made.uuid, state=state, ended=True)
    act = getattr(containers, verb)
    if status in ALLOWED[verb]:
        await act(cloud, alice, made.uuid)
        assert (await host.holds())[made.uuid].generation == 2
    else:
        with pytest.raises(InvalidState, match=f"Cannot {verb} container {made.uuid} while it is {status}"):
            await act(cloud, alice, made.uuid)
        assert (await host.holds())[made.uuid].generation == 1


async def test_a_start_after_the_end_is_an_order_that_the_host_does_once(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    found = await running(cloud, alice, host)
    await host.says(found.uuid, state="exited", ended=True, exit_code=1)
    await containers.start(cloud, alice, found.uuid)
    (member,) = (await host.holds())[found.uuid].members
    assert member.order is not None
    assert (member.order.verb, member.goal) == ("restart", Goal.RUNNING)
    await host.says(found.uuid, state="running", order_done=member.order.seq)
    (member,) = (await host.holds())[found.uuid].members
    assert member.order is None


async def test_after_a_start_it_is_stopped_as_gently_as_before(cloud: Cloud, host: Host, alice: Actor) -> None:
    found = await running(cloud, alice, host)
    await host.says(found.uuid, state="exited", ended=True, exit_code=1)
    await containers.start(cloud, alice, found.uuid)  # an order that stops nothing, and has no time for it
    await containers.delete(cloud, alice, found.uuid, stop=True)
    (member,) = (await host.holds())[found.uuid].members
    assert (member.goal, member.stop_timeout) == (Goal.STOPPED, 10)


async def test_deleting_gives_back_everything(cloud: Cloud, host: Host, alice: Actor) -> None:
    found = await running(cloud, alice, host, mounts=(Mount(destination="/data", size=1),), disk=5)
    with pytest.raises(InvalidState):
        await containers.delete(cloud, alice, found.uuid)
    await containers.delete(cloud, alice, found.uuid, stop=True)
    assert (await containers.get(cloud, alice, found.uuid)).status == Status.DELETING
    await containers.delete(cloud, alice, found.uuid)  # twice is once
    await host.removed(found.uuid)
    with pytest.raises(NotFound):
        await containers.get(cloud, alice, found.uuid)
    assert all(used == 0 for _, used in (await quotas.usages(cloud, "red")).values())
    there = await hosts.get(cloud, "one")
    # The volume's data is still there.
    assert (there.cpu_used, there.memory_used, there.disk_used, there.containers) == (0, 0, 1, 0)
    told = await hosts.assignments(cloud, host.number, -1, 1)
    assert told is not None
    assert (told.workloads, len(told.dead_volumes)) == ((), 1)
    await hosts.volumes_deleted(cloud, host.number, list(told.dead_volumes))
    told = await hosts.assignments(cloud, host.number, -1, 1)
    assert told is not None
    assert told.dead_volumes == ()
    assert (await hosts.get(cloud, "one")).disk_used == 0


async def test_auto_remove_deletes_what_ended(cloud: Cloud, host: Host, alice: Actor) -> None:
    found = await running(cloud, alice, host, auto_remove=True)
    await host.says(found.uuid, state="exited", ended=True, exit_code=0)
    assert (await host.holds())[found.uuid].deleting


async def test_one_project_neither_sees_nor_touches_anothers(
    cloud: Cloud, host: Host, alice: Actor, bob: Actor, admin: Actor
) -> None:
    made = await containers.create(cloud, alice, draft("secret"), run=True)
    for ident in (made.uuid, "secret"):
        with pytest.raises(NotFound):
            await containers.get(cloud, bob, ident)
        for verb in (containers.stop, containers.delete, containers.rebuild):
            with pytest.raises(NotFound):
                await verb(cloud, bob, ident)
    assert await containers.find(cloud, bob, ListQuery(all_projects=True)) == []
    assert await containers.find(cloud, bob, ListQuery(filters={"project_id": "red"})) == []
    assert (await containers.get(cloud, admin, made.uuid)).name == "secret"
    assert len(await containers.find(cloud, admin, ListQuery(all_projects=True))) == 1
    with pytest.raises(NotFound):
        await containers.find(cloud, bob, ListQuery(marker="nobody"))


async def test_a_name_that_two_bear_is_a_conflict(cloud: Cloud, host: Host, alice: Actor) -> None:
    for _ in range(2):
        await containers.create(cloud, alice, draft("twin"), run=False)
    with pytest.raises(Conflict, match="Several containers have the name twin"):
        await containers.get(cloud, alice, "twin")


async def test_of_a_hundred_creates_at_once_exactly_the_quota_passes(cloud: Cloud, host: Host, alice: Actor) -> None:
    await quotas.update(cloud, "red", {"containers": 10})
    results = await asyncio.gather(
        *[containers.create(cloud, alice, draft(cpu=0.1, memory=4), run=True) for _ in range(100)],
        return_exceptions=True,
    )
    assert sum(isinstance(one, Container) for one in results) == 10
    assert sum(isinstance(one, OverQuota) for one in results) == 90
    assert len(await host.holds()) == 10


async def test_a_quota_counts_defaults_and_resizes_too(cloud: Cloud, host: Host, alice: Actor) -> None:
    await quotas.update(cloud, "red", {"cpu": 2})
    made = [await containers.create(cloud, alice, draft(), run=False) for _ in range(2)]
    with pytest.raises(OverQuota, match="cpu"):
        await containers.create(cloud, alice, draft(), run=False)
    await host.says(made[0].uuid, state="created")
    with pytest.raises(OverQuota, match="cpu"):
        await containers.update(cloud, alice, made[0].uuid, cpu=1.5)
    assert (await containers.get(cloud, alice, made[0].uuid)).spec.cpu == 1.0


async def test_without_room_the_container_is_in_error_and_says_why_and_can_be_deleted(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    made = await containers.create(cloud, alice, draft(runtime="kata"), run=True)
    assert made.status == Status.ERROR
    assert made.status_reason == "There are not enough hosts available. one: it has no runtime kata"
    await containers.delete(cloud, alice, made.uuid)
    with pytest.raises(NotFound):
        await containers.get(cloud, alice, made.uuid)
    assert all(used == 0 for _, used in (await quotas.usages(cloud, "red")).values())


async def test_a_container_that_found_no_host_is_placed_by_a_later_start(cloud: Cloud, alice: Actor) -> None:
    made = await containers.create(cloud, alice, draft(), run=True)
    assert made.status == Status.ERROR
    with pytest.raises(Conflict):
        await containers.start(cloud, alice, made.uuid)
    host = Host(cloud, await hosts.register(cloud, report()))
    await containers.start(cloud, alice, made.uuid)
    assert made.uuid in await host.holds()
    await host.says(made.uuid, state="running")
    assert (await containers.get(cloud, alice, made.uuid)).status == Status.RUNNING


async def test_an_unknown_network_volume_registry_or_group_is_not_found_and_makes_nothing(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    for bad in (
        draft(mounts=(Mount(destination="/d", source="nothing"),)),
        draft(registry_id="nothing"),
        draft(security_groups=("nothing",)),
    ):
        with pytest.raises(NotFound):
            await containers.create(cloud, alice, bad, run=True)
    with pytest.raises(NotFound):
        await containers.create(
            cloud,
            alice,
            containers.Draft(name=None, spec=draft().spec, nets=(NetRequest(network="nothing"),)),
            run=True,
        )
    assert await containers.find(cloud, alice, ListQuery()) == []
    assert all(used == 0 for _, used in (await quotas.usages(cloud, "red")).values())


async def test_a_named_volume_is_made_once_kept_and_binds_the_next_container_to_its_host(
    cloud: Cloud, host: Host, alice: Actor, bob: Actor
) -> None:
    mount = (Mount(destination="/data", source="things", size=2),)
    first = await running(cloud, alice, host, mounts=mount)
    await hosts.register(cloud, report("empty", cpus=64, memory=65536))
    second = await containers.create(cloud, alice, draft(mounts=(Mount(destination="/d", source="things"),)), run=True)
    assert second.host == first.host
    assert second.spec.mounts[0].volume == first.spec.mounts[0].volume
    with pytest.raises(NotFound):
        await containers.create(cloud, bob, draft(mounts=(Mount(destination="/d", source="things"),)), run=True)


async def test_an_injected_file_is_kept_encrypted_and_given_to_the_host_in_clear(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    import sqlalchemy as sa

    from higgins.store.schema import container, volume

    bind = (Mount(destination="/etc/motd", type="bind", source="aGVsbG8="),)
    made = await containers.create(cloud, alice, draft(mounts=bind), run=True)
    (wire,) = (await host.holds())[made.uuid].volumes.values()
    assert wire.content == "aGVsbG8="

    def rows(conn: sa.Connection) -> str:
        return str(conn.execute(sa.select(volume)).all()) + str(conn.execute(sa.select(container)).all())

    assert "aGVsbG8=" not in await cloud.store.read(rows)
    await host.says(made.uuid, state="running")
    (wire,) = (await host.holds())[made.uuid].volumes.values()
    assert wire.content is None  # the host has it: it is not sent with every change of anything
    await containers.rebuild(cloud, alice, made.uuid)
    (wire,) = (await host.holds())[made.uuid].volumes.values()
    assert wire.content == "aGVsbG8="


async def test_networks_attach_and_detach_even_the_last_one(cloud: Cloud, host: Host, alice: Actor) -> None:
    from higgins.control import networks

    net = await networks.create(cloud, alice, "back")
    found = await running(cloud, alice, host)
    await containers.network_attach(cloud, alice, found.uuid, NetRequest(network="back"))
    assert len((await host.holds())[found.uuid].ports) == 2
    with pytest.raises(Conflict):
        await containers.network_attach(cloud, alice, found.uuid, NetRequest(network="back"))
    with pytest.raises(Conflict, match="in use"):
        await networks.delete(cloud, alice, "back")
    await containers.network_detach(cloud, alice, found.uuid, network="back")
    (port,) = await containers.network_list(cloud, alice, found.uuid)
    assert port["net_id"] != net.uuid
    with pytest.raises(Conflict, match="in use"):
        await networks.delete(cloud, alice, "back")
    await host.says(found.uuid, state="running")
    await networks.delete(cloud, alice, "back")
    # Who replaces the only network takes it off first, as Heat does.
    await containers.network_detach(cloud, alice, found.uuid, port=port["port_id"])
    assert await containers.network_list(cloud, alice, found.uuid) == []
    assert (await containers.get(cloud, alice, found.uuid)).addresses == {}
    await containers.network_attach(cloud, alice, found.uuid, NetRequest(network="default"))
    (wire,) = (await host.holds())[found.uuid].ports
    assert wire.default_route


async def test_a_fixed_address_is_given_once(cloud: Cloud, host: Host, alice: Actor) -> None:
    from higgins.control import networks

    (net,) = await networks.find(cloud, alice)
    wanted = net.cidr.replace("0/20", "77")
    nets = (NetRequest(network="default", v4_fixed_ip=wanted),)
    made = await containers.create(cloud, alice, containers.Draft(name=None, spec=draft().spec, nets=nets), run=True)
    assert made.addresses[net.uuid][0]["addr"] == wanted
    with pytest.raises(Conflict, match="in use"):
        await containers.create(cloud, alice, containers.Draft(name=None, spec=draft().spec, nets=nets), run=True)
    for bad in ("8.8.8.8", net.cidr.replace("0/20", "1")):
        other = (NetRequest(network="default", v4_fixed_ip=bad),)
        with pytest.raises(Invalid, match="is not one that network"):
            await containers.create(cloud, alice, containers.Draft(name=None, spec=draft().spec, nets=other), run=True)


async def test_pages_cover_the_list_once_whatever_it_is_sorted_by(cloud: Cloud, host: Host, alice: Actor) -> None:
    for name in ("b", "a", "c", "a", "b"):
        await containers.create(cloud, alice, draft(name, memory=64), run=False)
    for key in ("id", "name", "created_at", "updated_at", "task_state", "host"):
        for direction in ("asc", "desc"):
            seen: list[str] = []
            marker = None
            while True:
                query = ListQuery(limit=2, marker=marker, sort_key=key, sort_dir=direction)
                page = await containers.find(cloud, alice, query)
                seen += [one.uuid for one in page]
                if len(page) < 2:
                    break
                marker = page[-1].uuid
            assert len(seen) == len(set(seen)) == 5, (key, direction)


async def test_a_repeated_create_with_the_same_key_is_the_same_container(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    async def create(body: str) -> Container:
        return await containers.create(cloud, alice, draft(), run=True, idempotency_key="k", body_hash=body)

    assert (await create("x")).uuid == (await create("x")).uuid
    with pytest.raises(Conflict, match="another body"):
        await create("y")
    assert len(await host.holds()) == 1


@pytest.mark.parametrize(("text", "name"), [("SIGTERM", "SIGTERM"), ("term", "SIGTERM"), ("9", "SIGKILL")])
def test_signals_are_known_by_name_and_number(text: str, name: str) -> None:
    assert containers.signal_name(text) == name


@pytest.mark.parametrize("text", ["SIGNOPE", "0", "999", "", "\uff19"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="signal"):
        containers.signal_name(text)


async def test_a_terminal_token_opens_once_and_not_for_another(cloud: Cloud, host: Host, alice: Actor) -> None:
    from higgins.control import consoles

    token = await consoles._issue(cloud, "c" * 36, "attach", None, ())
    with pytest.raises(Forbidden):
        async with consoles.redeem(cloud, token, "d" * 36, None):
            pass
    with pytest.raises(Forbidden):  # even a wrong use uses it up
        async with consoles.redeem(cloud, token, "c" * 36, None):
            pass


async def test_containers_of_a_silent_host_are_unknown_until_it_speaks_again(
    cloud: Cloud, host: Host, alice: Actor, clock: object
) -> None:
    from higgins.control import housekeeping

    found = await running(cloud, alice, host)
    cloud.now.forward(3600)  # type: ignore[attr-defined]
    await cloud.store.write(lambda conn: housekeeping.sweep(conn, cloud))
    assert (await containers.get(cloud, alice, found.uuid)).status == Status.UNKNOWN
    assert not (await hosts.get(cloud, "one")).up
    await host.says(found.uuid, state="running")
    assert (await containers.get(cloud, alice, found.uuid)).status == Status.RUNNING
    assert (await hosts.get(cloud, "one")).up


async def test_a_container_that_is_placed_later_is_on_the_networks_that_were_asked_for(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    from higgins.control import networks

    net = await networks.create(cloud, alice, "private")
    address = str(ipaddress.ip_network(net.cidr)[77])
    big = await containers.create(cloud, alice, draft("big", memory=8000), run=True)
    asked = draft("later", memory=8000)
    asked = structs.replace(
        asked, nets=(NetRequest(network="private", v4_fixed_ip=address), NetRequest(network="default"))
    )
    made = await containers.create(cloud, alice, asked, run=True)
    assert (made.host, made.status) == (None, Status.ERROR)
    await containers.delete(cloud, alice, big.uuid, stop=True)
    await host.removed(big.uuid)
    await containers.start(cloud, alice, made.uuid)
    found = await containers.get(cloud, alice, made.uuid)
    assert found.host == "one"
    assert [entry["addr"] for entry in found.addresses[net.uuid]] == [address]
    assert len(found.addresses) == 2


async def test_the_first_network_that_is_left_has_the_default_route(cloud: Cloud, host: Host, alice: Actor) -> None:
    from higgins.control import networks

    net = await networks.create(cloud, alice, "private")
    found = await running(cloud, alice, host, memory=64)
    await containers.network_attach(cloud, alice, found.uuid, NetRequest(network="private"))
    before = (await host.holds())[found.uuid].ports
    assert [one.default_route for one in before] == [True, False]
    await containers.network_detach(cloud, alice, found.uuid, network="default")
    (port,) = (await host.holds())[found.uuid].ports
    assert (port.network, port.default_route, port.name) == (net.uuid, True, before[1].name)
    assert port.uuid != before[1].uuid  # so that its host plugs it anew, with the route
    assert (port.address, port.mac) == (before[1].address, before[1].mac)
    await containers.network_attach(cloud, alice, found.uuid, NetRequest(network="default"))
    await containers.network_detach(cloud, alice, found.uuid, network="default")
    assert (await host.holds())[found.uuid].ports == (port,)


async def test_neighbours_on_every_host_know_a_container_by_its_new_name(
    cloud: Cloud, host: Host, alice: Actor
) -> None:
    found = await running(cloud, alice, host, memory=8000)
    two = Host(cloud, await hosts.register(cloud, report("two")))
    other = await containers.create(cloud, alice, draft("other", memory=8000), run=True)
    assert other.host == "two"
    (address,) = [one.address for one in (await host.holds())[found.uuid].ports]
    for number, name in enumerate(("first", "second")):
        told = await hosts.assignments(cloud, two.number, -1, 1)
        assert told is not None
        if number:
            await containers.rename(cloud, alice, found.uuid, name)
        else:
            await containers.update(cloud, alice, found.uuid, name=name)
        newer = await hosts.assignments(cloud, two.number, told.revision, 1)
        assert newer is not None
        assert newer.workloads[0].names[address] == (name,)


async def test_a_marker_of_another_project_is_not_found(
    cloud: Cloud, host: Host, alice: Actor, bob: Actor, admin: Actor
) -> None:
    theirs = await containers.create(cloud, bob, draft("mmm", memory=64), run=True)
    mine = [await containers.create(cloud, alice, draft(name, memory=64), run=True) for name in ("aaa", "zzz")]
    with pytest.raises(NotFound):
        await containers.find(cloud, alice, ListQuery(sort_key="name", marker=theirs.uuid))
    page = await containers.find(cloud, admin, ListQuery(sort_key="name", marker=theirs.uuid, all_projects=True))
    assert [one.uuid for one in page] == [mine[1].uuid]


async def test_a_volume_that_goes_with_a_container_is_not_for_another(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = await containers.create(
        cloud, alice, draft("aa", memory=64, mounts=(Mount(destination="/d", size=1),)), run=True
    )
    own = (await host.holds())[made.uuid].members[0].spec.mounts[0].volume
    with pytest.raises(NotFound):
        await containers.create(
            cloud, alice, draft("bb", memory=64, mounts=(Mount(destination="/d", source=own),)), run=True
        )


async def test_a_host_hears_of_a_lower_revision_too(cloud: Cloud, host: Host, alice: Actor) -> None:
    await running(cloud, alice, host, memory=64)
    told = await hosts.assignments(cloud, host.number, -1, 1)
    assert told is not None
    older = sa.update(host_table).values(revision=host_table.c.revision - 1)  # as in a database that was restored
    await cloud.store.write(lambda conn: conn.execute(older).rowcount)
    assert await hosts.assignments(cloud, host.number, told.revision, 1) is not None


async def test_a_step_that_is_not_known_here_is_none(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = await containers.create(cloud, alice, draft(memory=64), run=True)
    await host.says(made.uuid, state="running", step="container_warming", settled=False)
    await host.says(made.uuid, state="running", step="container_warming")
    (found,) = await containers.find(cloud, alice, ListQuery())
    assert (found.status, found.task_state) == (Status.RUNNING, None)


async def test_a_reason_with_what_no_database_keeps_is_kept_without_it(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = await containers.create(cloud, alice, draft(memory=64), run=True)
    await host.says(made.uuid, state="error", reason="a\0b\ud800c")
    assert (await containers.get(cloud, alice, made.uuid)).status_reason == "ab?c"
