"""The agent's loop over an engine, a network, volumes and a control plane in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from higgins.agent import worker
from higgins.agent.agent import Agent
from higgins.control.link import Assignment, Known
from higgins.model.container import Goal, Healthcheck, Mount, RestartPolicy
from higgins.model.errors import EngineError
from higgins.networks.base import Plugged, PortFilter
from higgins.runtimes.base import EngineContainer, SandboxSpec
from higgins.volumes.base import VolumeWire
from tests.unit.fakes import (
    WORKLOAD,
    FakeControl,
    FakeNetwork,
    FakeRuntime,
    FakeVolumes,
    assignment,
    member,
    order,
    port,
    report,
)

OTHER = "22222222-2222-2222-2222-222222222222"


async def until(claim: Callable[[], bool]) -> None:
    """Wait until ``claim`` holds; generous, since the machine may be busy."""
    async with asyncio.timeout(30):
        while not claim():  # noqa: ASYNC110 - what is waited for is in a fake, which knows no events
            await asyncio.sleep(0.002)


class Host:
    """An agent and all around it; the agent may be started, stopped and killed."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.control = FakeControl()
        self.runtime = FakeRuntime()
        self.network = FakeNetwork()
        self.volumes = FakeVolumes()
        self.agent: Agent | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self, **settings: Any) -> None:
        fakes: Any = (self.control, self.runtime, self.network, self.volumes)
        self.agent = Agent(*fakes, data=self.data, report=report(), dns=("10.0.0.53",), **settings)
        self.task = asyncio.ensure_future(self.agent.run())

    async def stop(self) -> None:
        if self.agent is not None and self.task is not None:
            await self.agent.stop()
            await self.task
        self.agent = self.task = None

    async def crash(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        self.agent = self.task = None

    def change(self, change: Callable[[Assignment], Assignment], uuid: str = WORKLOAD) -> None:
        """Change what is assigned, as a verb of the API does: with a new generation."""
        changed = change(self.control.assigned[uuid])
        self.control.put(replace(changed, generation=changed.generation + 1))

    def change_member(self, **changes: Any) -> None:
        self.change(lambda one: replace(one, members=(replace(one.members[0], **changes),)))

    async def settled(self, uuid: str = WORKLOAD) -> None:
        def claim() -> bool:
            last, assigned = self.control.last.get(uuid), self.control.assigned.get(uuid)
            return bool(last and assigned and last.settled and last.generation == assigned.generation)

        await until(claim)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    yield host
    await host.stop()


async def test_a_container_is_made_wired_started_and_told_in_one_observation(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    assert host.runtime.state(WORKLOAD) == "running"
    assert host.network.wired == {(WORKLOAD, "port-1"): host.runtime.newest(WORKLOAD).netns}
    assert host.control.known(WORKLOAD).state == "running"
    assert len(host.control.batches) == 1


async def test_the_engine_is_not_asked_about_a_workload_that_it_cannot_hold_yet(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    host.runtime.calls.clear()
    new = replace(assignment(replace(member(), uuid=OTHER)), uuid=OTHER)
    host.control.put(new)
    await host.settled(OTHER)
    assert host.runtime.calls[0] != "list" and "list" in host.runtime.calls[1:]


async def test_what_was_reported_before_is_looked_at_before_anything_is_done(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    host.runtime.calls.clear()
    reported = replace(member(), uuid=OTHER, known=Known(incarnation=1, state="running"))
    host.control.put(replace(assignment(reported), uuid=OTHER))
    await host.settled(OTHER)
    assert host.runtime.calls[0] == "list"


async def test_a_new_neighbour_is_named_without_asking_the_engine_about_those_it_joins(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    hosts = host.data / "sandboxes" / WORKLOAD / "hosts"
    for number in range(20):  # the first comparisons may still be under way, and ask
        host.runtime.calls.clear()
        names = {"10.0.0.77": (f"neighbour-{number}",)}
        host.control.put(replace(host.control.assigned[WORKLOAD], names=names))
        await until(lambda number=number: f"10.0.0.77\tneighbour-{number}" in hosts.read_text())  # type: ignore[misc]
        await asyncio.sleep(0.01)
        if not host.runtime.calls:
            return
    raise AssertionError("the engine is asked at each new neighbour")


async def test_what_happens_during_a_look_is_looked_at_again(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    look = host.runtime.list
    ended = False

    async def ends_meanwhile(sandbox: str | None = None) -> Any:
        nonlocal ended
        found = await look(sandbox)
        if not ended:
            ended = True
            host.runtime.end(WORKLOAD, 3)
            await asyncio.sleep(0.01)  # its event comes before the look is over
        return found

    host.runtime.list = ends_meanwhile  # type: ignore[method-assign]
    host.change(lambda one: one)
    await until(lambda: host.control.known(WORKLOAD).state == "exited")


async def test_stop_start_and_delete_leave_nothing(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    host.change_member(goal=Goal.STOPPED)
    await host.settled()
    assert host.runtime.state(WORKLOAD) == "exited"
    host.change_member(goal=Goal.RUNNING)
    await host.settled()
    assert host.runtime.state(WORKLOAD) == "running"
    host.change(lambda one: replace(one, deleting=True))
    await until(lambda: not host.control.assigned)
    assert not (host.runtime.boxes or host.runtime.held or host.network.wired)
    assert not list((host.data / "sandboxes").iterdir())
    assert host.control.last[WORKLOAD].gone


async def test_a_container_that_shall_only_be_created_does_not_run(host: Host) -> None:
    host.control.put(assignment(member(goal=Goal.CREATED)))
    host.start()
    await host.settled()
    assert host.control.known(WORKLOAD).state == "created"


async def test_a_clean_stop_leaves_containers_running_and_a_new_agent_leaves_them_alone(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    await host.stop()
    assert host.runtime.state(WORKLOAD) == "running"
    host.runtime.calls.clear()
    host.control.last.clear()
    host.start()
    await host.settled()
    assert not [call for call in host.runtime.calls if call.split()[0] in ("start", "stop", "create", "remove")]


async def _make_orphan(host: Host) -> None:
    await host.runtime.create_sandbox(SandboxSpec(uuid=OTHER, project_id="demo"))
    await host.runtime.create(EngineContainer(uuid=OTHER, incarnation=1, sandbox=OTHER, image="busybox"))
    await host.runtime.start(OTHER)
    await host.network.plug("/ns/1", OTHER, [port("port-9")])
    host.volumes.in_use.add("volume-9")
    host.volumes.data.add("volume-9")


async def test_nothing_is_told_of_a_workload_before_its_wires_are_known(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    await host.crash()
    read, plugged = asyncio.Event(), host.network.plugged

    async def slow() -> list[Plugged]:
        await read.wait()
        return await plugged()

    monkeypatch.setattr(host.network, "plugged", slow)
    host.change(lambda one: replace(one, ports=()))
    host.start()
    for _ in range(5):  # whatever else the host is told meanwhile
        await asyncio.sleep(0.05)
        host.control.touch()
    generation = host.control.assigned[WORKLOAD].generation
    assert host.control.last[WORKLOAD].generation < generation and host.network.wired
    read.set()
    await host.settled()
    assert not host.network.wired


async def test_what_is_not_assigned_here_is_removed_but_its_volumes_keep_their_data(host: Host) -> None:
    await _make_orphan(host)
    host.control.put(assignment())
    host.start()
    await host.settled()
    await until(lambda: OTHER not in host.runtime.boxes and not host.volumes.in_use)
    assert set(host.network.wired) == {(WORKLOAD, "port-1")}
    assert host.volumes.data == {"volume-9"}


async def test_nothing_is_removed_before_the_control_plane_said_what_is_assigned(host: Host) -> None:
    await _make_orphan(host)
    host.control.revision = -1  # so that the first answer does not come
    host.start(compare_every=0.01)
    await until(lambda: "events" in host.runtime.calls)
    await asyncio.sleep(0.05)
    assert host.runtime.state(OTHER) == "running"
    host.control.touch()
    await until(lambda: not host.runtime.boxes)


async def test_a_workload_that_moved_away_is_removed(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    host.control.drop(WORKLOAD)
    await until(lambda: not host.runtime.boxes and not host.network.wired)


async def test_an_engine_outage_turns_nothing_into_an_error_and_ends_by_itself(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "OUTAGE", 0.05)
    host.control.put(assignment())
    host.start()
    await host.settled()
    host.runtime.fall_down()
    host.control.put(assignment(uuid=OTHER, ports=()), assignment(member(memory=64), generation=2))
    await asyncio.sleep(0.1)
    assert host.control.known(WORKLOAD).state == "running"
    host.runtime.down = False
    await host.settled()
    await until(lambda: host.runtime.newest(WORKLOAD).memory == 64 * 2**20)
    assert all(known.state != "error" for batch in host.control.batches for o in batch for known in o.members.values())


async def test_observations_that_were_not_heard_are_sent_again_together(host: Host) -> None:
    host.control.deaf = True
    uuids = [f"{number:08d}-0000-0000-0000-000000000000" for number in range(20)]
    host.control.put(*(assignment(member(uuid), uuid=uuid, ports=()) for uuid in uuids))
    host.start()
    await until(lambda: all(host.runtime.state(uuid) == "running" for uuid in uuids))
    host.control.deaf = False
    await until(lambda: all(host.control.known(uuid).state == "running" for uuid in uuids))
    assert len(host.control.batches) < len(uuids)


async def test_a_container_that_ends_is_seen_at_once_and_stays_ended(host: Host) -> None:
    host.control.put(assignment())
    host.start()
    await host.settled()
    host.runtime.end(WORKLOAD, 3)
    await until(lambda: host.control.known(WORKLOAD).ended)
    assert host.control.known(WORKLOAD).exit_code == 3
    host.change_member(order=order(1))
    await until(lambda: host.control.known(WORKLOAD).order_done == 1)
    assert host.runtime.state(WORKLOAD) == "running"
    assert not host.control.known(WORKLOAD).ended


async def test_a_restart_policy_starts_it_again_and_counts(host: Host) -> None:
    host.control.put(assignment(member(restart_policy=RestartPolicy("always"))))
    host.start()
    await host.settled()
    host.runtime.end(WORKLOAD, 3)
    await until(lambda: host.control.known(WORKLOAD).restarts == 1 and host.runtime.state(WORKLOAD) == "running")


async def test_a_delete_during_a_pull_ends_the_pull_and_leaves_nothing(host: Host) -> None:
    host.runtime.pull_gate = asyncio.Event()
    host.control.put(assignment())
    host.start()
    await until(lambda: "pull busybox" in host.runtime.calls)
    host.change(lambda one: replace(one, deleting=True))
    await until(lambda: not host.control.assigned)
    assert not host.runtime.boxes and not host.network.wired
    assert f"create {WORKLOAD}" not in host.runtime.calls


async def test_the_owner_sees_that_an_image_is_being_pulled_when_it_takes_long(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ANNOUNCE", 0.01)
    host.runtime.pull_gate = asyncio.Event()
    host.control.put(assignment())
    host.start()
    await until(lambda: host.control.known(WORKLOAD).step == "image_pulling")
    host.runtime.pull_gate.set()
    await host.settled()
    assert host.control.known(WORKLOAD).step == ""


async def test_the_owner_is_told_of_a_pull_that_does_not_end_until_it_does(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SLOW", 0.01)
    host.runtime.pull_gate = asyncio.Event()
    host.control.put(assignment())
    host.start()
    await until(lambda: "busybox is still being pulled" in host.control.known(WORKLOAD).reason)
    host.runtime.pull_gate.set()
    await host.settled()
    assert host.control.known(WORKLOAD).reason == ""


async def test_pulls_that_take_long_do_not_keep_others_waiting(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ANNOUNCE", 0.01)
    host.runtime.pull_gate = asyncio.Event()
    host.runtime.gated = "slow"
    host.start(slots=1)
    uuids = [f"{number:08d}-0000-0000-0000-000000000000" for number in range(3)]
    host.control.put(*(assignment(member(uuid, image="slow"), uuid=uuid, ports=()) for uuid in uuids))
    await until(lambda: host.runtime.calls.count("pull slow") == 3)
    host.control.put(assignment())
    await host.settled()
    assert host.runtime.state(WORKLOAD) == "running"
    host.runtime.pull_gate.set()
    for uuid in uuids:
        await host.settled(uuid)


async def test_an_order_comes_through_while_a_container_takes_its_time_to_stop(host: Host) -> None:
    host.runtime.ignores_sigterm = True
    host.control.put(assignment(member(stop_timeout=3600)))
    host.start()
    await host.settled()
    host.change_member(goal=Goal.STOPPED)
    await until(lambda: f"stop {WORKLOAD}" in host.runtime.calls)
    host.change_member(order=order(1, "kill", signal="SIGKILL"))
    await until(lambda: host.control.known(WORKLOAD).state == "exited")
    assert host.control.known(WORKLOAD).exit_code == 137


async def test_a_kill_that_ends_it_is_stronger_than_its_restart_policy(host: Host) -> None:
    host.control.put(assignment(member(restart_policy=RestartPolicy("always"))))
    host.start()
    await host.settled()
    host.change_member(order=order(1, "kill", signal="SIGHUP"))
    await until(lambda: host.control.known(WORKLOAD).ended)
    assert host.runtime.state(WORKLOAD) == "exited"


async def test_the_filters_are_in_force_before_a_container_runs(host: Host) -> None:
    filters = (PortFilter(uuid="port-1", address="10.88.0.5", network="net-1", project_id="demo"),)
    host.control.put(assignment(filters=filters))
    host.start()
    await host.settled()
    assert host.network.filters == list(filters)
    open_to_none = (replace(filters[0], project_open=False),)
    host.change(lambda one: replace(one, filters=open_to_none))
    await until(lambda: host.network.filters == list(open_to_none))


async def test_a_volume_is_deleted_only_when_nobody_keeps_it(host: Host) -> None:
    volumes = {"volume-1": VolumeWire(uuid="volume-1", size=1)}
    mounted = member(mounts=(Mount(destination="/data", volume="volume-1"),))
    host.control.put(assignment(mounted, volumes=volumes))
    host.start()
    await host.settled()
    binds = host.runtime.newest(WORKLOAD).spec.binds
    assert [bind.source for bind in binds if bind.destination == "/data"] == ["/volumes/volume-1"]
    host.control.dead = ["volume-1"]
    host.control.touch()
    host.change_member(goal=Goal.STOPPED)
    await host.settled()
    assert host.volumes.data == {"volume-1"}
    host.change(lambda one: replace(one, deleting=True))
    await until(lambda: host.control.deleted == ["volume-1"])
    assert not host.volumes.data


async def test_names_of_neighbours_are_rewritten_in_place(host: Host) -> None:
    host.control.put(assignment(names={"10.88.0.6": ("db",)}))
    host.start()
    await host.settled()
    hosts = host.data / "sandboxes" / WORKLOAD / "hosts"
    inode = hosts.stat().st_ino
    assert "10.88.0.6\tdb" in hosts.read_text()
    assert "10.88.0.5\tweb" in hosts.read_text()
    host.change(lambda one: replace(one, names={"10.88.0.7": ("cache", "redis")}))
    await until(lambda: "10.88.0.7\tcache redis" in hosts.read_text())
    assert hosts.stat().st_ino == inode
    assert (hosts.parent / "resolv.conf").read_text() == "nameserver 10.0.0.53\n"


async def test_an_unhealthy_container_is_healed(host: Host) -> None:
    check = Healthcheck(test="true", interval=0.1, retries=1)
    host.control.put(assignment(member(healthcheck=check, auto_heal=True)))
    host.start()
    await until(lambda: host.control.assigned != {} and host.control.known(WORKLOAD).health == "healthy")
    host.runtime.unwell.add(WORKLOAD)
    await until(lambda: host.control.known(WORKLOAD).restarts >= 1)
    host.runtime.unwell.clear()
    await until(lambda: host.control.known(WORKLOAD).health == "healthy")


async def test_a_command_that_cannot_be_started_is_an_error_until_the_owner_changes_something(host: Host) -> None:
    host.runtime.refused.add("busybox")
    host.control.put(assignment())
    host.start()
    await host.settled()
    known = host.control.known(WORKLOAD)
    assert (known.state, known.reason) == ("error", "exec: no such file")
    host.runtime.refused.clear()
    host.change_member(order=order(1))
    await until(lambda: host.control.known(WORKLOAD).state == "running")
    assert host.control.known(WORKLOAD).reason == ""


async def test_a_crash_of_the_agent_at_any_moment_is_made_good(host: Host) -> None:
    host.control.put(assignment(volumes={"volume-1": VolumeWire(uuid="volume-1")}))
    for steps in range(12):
        host.start()
        for _ in range(steps * 3):
            await asyncio.sleep(0)
        await host.crash()
    host.start()
    await host.settled()
    assert len(host.runtime.running(WORKLOAD)) == 1
    assert host.control.known(WORKLOAD) == Known(
        incarnation=1, state="running", started_at=host.runtime.newest(WORKLOAD).started_at
    )


async def test_what_a_reboot_left_connected_and_nobody_needs_is_let_go_of(host: Host) -> None:
    needed = VolumeWire(uuid="44444444-4444-4444-4444-444444444444", size=1)
    host.volumes.data = {OTHER, needed.uuid}
    host.control.put(assignment(volumes={needed.uuid: needed}))
    host.start()
    await until(lambda: host.volumes.detached == {OTHER} and host.volumes.in_use == {needed.uuid})


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_removal_that_is_stuck_keeps_only_the_volumes_that_it_may_use(
    host: Host, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    async def stuck(uuid: str, incarnation: int | None = None) -> None:
        raise EngineError("The device is busy.")

    host.control.put(assignment(volumes={"volume-1": VolumeWire(uuid="volume-1")}))
    host.start()
    await host.settled()
    with monkeypatch.context() as patched:
        patched.setattr(host.runtime, "remove", stuck)
        if restarted:  # and so nothing is known of the workload's volumes
            await host.crash()
        host.control.dead = ["volume-1", "volume-2"]
        host.control.drop(WORKLOAD)
        if restarted:
            host.start()
        await until(lambda: host.control.deleted == ["volume-2"])
        assert "volume-1" in host.volumes.in_use
    await host.crash()
    host.start()
    await until(lambda: host.control.deleted == ["volume-2", "volume-1"])
