"""What the agent plans, by example: each of the rules of a container's life."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from higgins.agent.memory import Memory
from higgins.agent.plan import plan
from higgins.agent.seen import Seen
from higgins.agent.steps import STEPS
from higgins.control.link import Assignment, Waits
from higgins.model.container import Goal, Healthcheck, Mount, RestartPolicy
from higgins.model.errors import EngineError
from higgins.volumes.base import VolumeWire
from tests.unit.fakes import WORKLOAD, Clock, assignment, member, order, port
from tests.unit.rig import Rig

INIT, MAIN, SIDE = "init", "main", "side"


async def made(data: Path, *members: Any, **changes: Any) -> Rig:
    """A workload that is what it should be."""
    rig = Rig(data, assignment(*members, **changes))
    await rig.settle()
    rig.steps_done()
    return rig


def test_a_new_container_needs_three_stages() -> None:
    wanted = assignment(volumes={"v": VolumeWire(uuid="v")})
    todo = plan(WORKLOAD, wanted, Seen(), Memory(), Clock()())
    assert [{type(step).__name__ for step in stage} for stage in todo.stages] == [
        {"PullImage", "MakeSandbox", "WriteFiles", "AttachVolume"},
        {"CreateContainer", "Plug"},
        {"StartContainer"},
    ]


async def test_what_is_as_it_should_be_needs_nothing(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    todo = await rig.consider()
    assert todo.settled and not todo.stages and todo.wake_at is None


@pytest.mark.parametrize(
    ("goal", "state"),
    [(Goal.CREATED, "created"), (Goal.RUNNING, "running"), (Goal.PAUSED, "paused"), (Goal.STOPPED, "created")],
)
async def test_a_new_container_reaches_its_goal(tmp_path: Path, goal: Goal, state: str) -> None:
    rig = await made(tmp_path, member(goal=goal))
    assert rig.known().state == state


@pytest.mark.parametrize("first", [Goal.RUNNING, Goal.PAUSED, Goal.STOPPED])
@pytest.mark.parametrize(
    ("second", "state"), [(Goal.RUNNING, "running"), (Goal.PAUSED, "paused"), (Goal.STOPPED, "exited")]
)
async def test_any_goal_follows_any_other(tmp_path: Path, first: Goal, second: Goal, state: str) -> None:
    rig = await made(tmp_path)
    rig.change_member(goal=first)
    await rig.settle()
    rig.change_member(goal=second)
    await rig.settle()
    assert rig.known().state == state


async def test_a_port_in_place_of_another_is_plugged_when_that_is_gone(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change(ports=(port("port-2"),))
    await rig.settle()
    assert rig.steps_done() == ["Unplug", "Plug"]


async def test_nothing_is_settled_while_a_port_that_was_taken_away_cannot_be_unplugged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(workload: str, ports: list[str]) -> None:
        raise EngineError("The device is busy.")

    rig = await made(tmp_path)
    rig.change(ports=())
    with monkeypatch.context() as patched:
        patched.setattr(rig.network, "unplug", stuck)
        assert not await rig.carry_out(await rig.consider())
        todo = await rig.consider()
        assert not todo.settled and todo.wake_at is not None
    await rig.settle()
    assert not rig.network.wired


async def test_deleting_removes_containers_then_wires_then_the_sandbox_then_lets_go_of_volumes(tmp_path: Path) -> None:
    rig = await made(tmp_path, volumes={"v": VolumeWire(uuid="v")})
    rig.change(deleting=True)
    todo = await rig.settle()
    assert rig.steps_done() == ["RemoveContainer", "Unplug", "RemoveSandbox", "DetachVolume"]
    assert todo.gone and rig.volumes.data == {"v"}


async def test_deleting_a_container_whose_goal_is_to_stop_stops_it_first(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change_member(goal=Goal.STOPPED)
    rig.change(deleting=True)
    await rig.settle()
    assert rig.steps_done()[:2] == ["StopContainer", "RemoveContainer"]


async def test_a_volume_that_another_workload_needs_is_not_detached(tmp_path: Path) -> None:
    rig = await made(tmp_path, volumes={"v": VolumeWire(uuid="v")})
    rig.change(deleting=True)
    seen = replace(await rig.look(), shared=frozenset({"v"}))
    names = [type(step).__name__ for step in plan(WORKLOAD, rig.wanted, seen, rig.memory, rig.clock()).steps]
    assert names == ["RemoveContainer", "Unplug", "RemoveSandbox"]


# orders


async def test_a_restart_is_done_once(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change_member(order=order(1))
    await rig.settle()
    assert rig.steps_done() == ["StopContainer", "StartContainer"]
    assert (rig.known().order_done, rig.known().step, rig.known().restarts) == (1, "", 0)
    await rig.settle()
    assert rig.steps_done() == []


async def test_a_restart_starts_what_does_not_run(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.runtime.end(WORKLOAD)
    await rig.settle()
    assert rig.known().ended
    rig.change_member(order=order(1))
    await rig.settle()
    assert rig.steps_done() == ["StartContainer"]
    assert rig.known().state == "running"


async def test_a_kill_is_sent_once_and_what_it_ended_is_not_stopped_again(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(restart_policy=RestartPolicy("always")))
    rig.change_member(goal=Goal.STOPPED, order=order(1, "kill", signal="SIGKILL"))
    await rig.settle()
    assert rig.steps_done() == ["KillContainer"]
    assert (rig.known().state, rig.known().exit_code) == ("exited", 137)


async def test_a_signal_that_should_end_it_gets_the_time_of_a_stop(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change_member(goal=Goal.STOPPED, order=order(1, "kill", signal="SIGWINCH"))
    await rig.carry_out(await rig.consider())
    todo = await rig.consider()
    assert not todo.stages and todo.wake_at is not None
    assert (todo.wake_at - rig.clock()).total_seconds() == rig.member.stop_timeout
    await rig.settle()
    assert rig.known().state == "exited"


async def test_a_signal_that_ended_it_outweighs_its_restart_policy(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(restart_policy=RestartPolicy("always")))
    rig.change_member(order=order(1, "kill", signal="SIGHUP"))
    await rig.settle()
    assert rig.known().ended
    rig.crash()
    await rig.settle()
    assert rig.runtime.state(WORKLOAD) == "exited"


async def test_a_signal_that_is_refused_is_not_sent_again_and_its_reason_is_told(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.runtime.no_signal.add("SIGNONE")
    rig.change_member(order=order(1, "kill", signal="SIGNONE"))
    todo = await rig.settle()
    assert todo.settled and rig.steps_done() == ["KillContainer"]
    assert (rig.known().state, rig.known().order_done) == ("running", 1)
    assert rig.known().reason == "There is no signal SIGNONE."


async def test_an_order_that_has_nothing_to_act_on_is_done(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.runtime.end(WORKLOAD)
    await rig.settle()
    rig.change_member(order=order(1, "kill", signal="SIGHUP"))
    await rig.settle()
    assert rig.known().order_done == 1
    assert rig.steps_done() == []


# restart policies


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("no", 1, False),
        ("always", 0, True),
        ("always", 1, True),
        ("unless-stopped", 0, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
    ],
)
async def test_a_restart_policy_decides_by_how_it_ended(tmp_path: Path, policy: str, code: int, again: bool) -> None:
    rig = await made(tmp_path, member(restart_policy=RestartPolicy(policy)))
    rig.runtime.end(WORKLOAD, code)
    await rig.settle()
    assert (rig.runtime.state(WORKLOAD) == "running") is again
    assert rig.known().ended is not again
    assert rig.known().restarts == int(again)


async def test_restarts_wait_longer_each_time_and_never_more_than_a_minute(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(restart_policy=RestartPolicy("always")))
    waits = []
    for _ in range(12):
        rig.runtime.end(WORKLOAD, 1)
        todo = await rig.consider()
        assert todo.wake_at is not None and not todo.stages
        assert (rig.known().state, rig.known().ended) == ("exited", False)
        waits.append((todo.wake_at - rig.clock()).total_seconds())
        await rig.settle()
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(waits) == 60
    rig.clock.forward(11)
    rig.runtime.end(WORKLOAD, 1)
    todo = await rig.consider()
    assert todo.wake_at is not None
    assert (todo.wake_at - rig.clock()).total_seconds() == 0.1


async def test_on_failure_gives_up_after_its_retries(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(restart_policy=RestartPolicy("on-failure", 2)))
    for _ in range(3):
        rig.runtime.end(WORKLOAD, 1)
        await rig.settle()
    assert rig.known().ended and rig.known().restarts == 2


async def test_an_agent_that_was_away_carries_out_the_restart_policy(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(restart_policy=RestartPolicy("always")))
    rig.runtime.end(WORKLOAD, 1)
    await rig.consider()
    rig.crash()
    await rig.settle()
    assert rig.runtime.state(WORKLOAD) == "running"


async def test_what_was_stopped_does_not_come_back_by_its_policy(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(restart_policy=RestartPolicy("always")))
    rig.change_member(goal=Goal.STOPPED)
    await rig.settle()
    rig.clock.forward(100)
    rig.crash()
    await rig.settle()
    assert rig.runtime.state(WORKLOAD) == "exited"


# rebuild


async def test_a_rebuild_has_the_new_image_before_it_touches_the_old_container(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change_member(incarnation=2, spec=replace(rig.member.spec, image="nginx"))
    await rig.settle()
    names = rig.steps_done()
    assert names == ["PullImage", "StopContainer", "RemoveContainer", "CreateContainer", "StartContainer"]
    assert rig.runtime.newest(WORKLOAD).spec.image == "nginx"
    assert (rig.known().incarnation, rig.known().state) == (2, "running")


async def test_a_rebuild_whose_image_is_missing_leaves_the_old_container_running(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.runtime.missing.add("nginx")
    rig.change_member(incarnation=2, spec=replace(rig.member.spec, image="nginx"))
    todo = await rig.settle()
    assert todo.settled
    assert rig.runtime.newest(WORKLOAD).spec.image == "busybox"
    assert rig.runtime.state(WORKLOAD) == "running"
    assert (rig.known().state, rig.known().reason) == ("error", "The image nginx was not found.")


async def test_an_older_incarnation_beside_the_newest_is_removed(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(incarnation=2))
    await rig.runtime.create(replace(rig.runtime.newest(WORKLOAD).spec, incarnation=1))
    await rig.settle()
    assert rig.steps_done() == ["RemoveContainer"]
    assert list(rig.runtime.held) == [(WORKLOAD, 2)]


# what vanished


async def test_a_container_that_vanished_is_told_as_gone_until_it_is_rebuilt(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.runtime.held.clear()
    await rig.settle()
    assert rig.known().state == "gone" and "rebuild" in rig.known().reason
    assert rig.steps_done() == []
    rig.change_member(incarnation=2)
    await rig.settle()
    assert (rig.known().state, rig.known().reason) == ("running", "")


async def test_a_container_that_vanished_is_made_again_where_it_shall_heal(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(auto_heal=True))
    rig.runtime.held.clear()
    await rig.settle()
    assert rig.known().state == "running"


@pytest.mark.parametrize(("code", "later", "state"), [(137, 1, "running"), (137, 60, "created"), (0, 1, "created")])
async def test_a_removal_by_force_that_is_seen_in_two_steps_is_healed_like_one(
    tmp_path: Path, code: int, later: int, state: str
) -> None:
    rig = await made(tmp_path, member(auto_heal=True))
    rig.runtime.end(WORKLOAD, code)
    await rig.settle()
    assert rig.known().ended
    rig.clock.forward(later)
    rig.runtime.held.clear()
    await rig.settle()
    assert rig.known().state == state


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize("ended", [True, False])
async def test_after_the_loss_of_its_sandbox_a_container_runs_in_the_new_one(
    tmp_path: Path, gone: bool, forgets: bool, ended: bool
) -> None:
    rig = await made(tmp_path)
    rig.runtime.forgets_members = forgets
    if ended:  # as at a reboot
        rig.runtime.end(WORKLOAD, 255)
    rig.runtime.lose_sandbox(WORKLOAD, gone=gone)
    await rig.settle()
    held, box = rig.runtime.newest(WORKLOAD), rig.runtime.boxes[WORKLOAD]
    if not (ended and gone):
        assert held.state == "running" and held.netns == box.netns
    assert rig.network.wired == {(WORKLOAD, "port-1"): box.netns}
    assert rig.known().step == ""


async def test_a_sandbox_that_vanishes_while_it_is_brought_back_costs_no_more_than_another_container(
    tmp_path: Path,
) -> None:
    rig = await made(tmp_path)
    rig.runtime.lose_sandbox(WORKLOAD, gone=False)
    todo = await rig.consider()
    rig.runtime.lose_sandbox(WORKLOAD, gone=True)  # after the agent looked, and before it acts
    assert not await rig.carry_out(todo)
    await rig.settle()
    held = rig.runtime.newest(WORKLOAD)
    assert (held.state, held.netns) == ("running", rig.runtime.boxes[WORKLOAD].netns)
    assert (rig.known().state, rig.known().reason) == ("running", "")


@pytest.mark.parametrize("gone", [True, False])
async def test_after_the_loss_of_its_sandbox_what_was_stopped_stays_stopped(tmp_path: Path, gone: bool) -> None:
    rig = await made(tmp_path)
    rig.change_member(goal=Goal.STOPPED)
    await rig.settle()
    rig.runtime.lose_sandbox(WORKLOAD, gone=gone)
    await rig.settle()
    assert rig.runtime.state(WORKLOAD) in ("exited", "created")
    rig.change_member(goal=Goal.RUNNING)
    await rig.settle()
    assert rig.runtime.state(WORKLOAD) == "running"


@pytest.mark.parametrize("gone", [True, False])
async def test_after_the_loss_of_its_sandbox_what_had_ended_stays_so(tmp_path: Path, gone: bool) -> None:
    rig = await made(tmp_path)
    rig.runtime.end(WORKLOAD)
    await rig.settle()
    rig.runtime.lose_sandbox(WORKLOAD, gone=gone)
    await rig.settle()
    assert rig.runtime.state(WORKLOAD) in ("exited", "created")
    assert rig.known().ended


# failures


async def test_a_registry_that_does_not_answer_is_asked_again_ever_more_seldom(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.runtime.unreachable.add("busybox")
    waits = []
    for _ in range(7):
        while (todo := await rig.consider()).stages:
            await rig.carry_out(todo)
        assert not todo.settled and todo.wake_at is not None
        waits.append((todo.wake_at - rig.clock()).total_seconds())
        rig.clock.forward(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert rig.known().state == "error" and "does not answer" in rig.known().reason
    rig.runtime.unreachable.clear()
    await rig.settle()
    assert (rig.known().state, rig.known().reason) == ("running", "")
    assert not rig.memory.failures


@pytest.mark.parametrize("refused", ["refused", "unmakeable"])
async def test_a_refusal_is_not_asked_for_again_until_the_owner_wants_something_new(
    tmp_path: Path, refused: str
) -> None:
    rig = Rig(tmp_path)
    images: set[str] = getattr(rig.runtime, refused)
    images.add("busybox")
    todo = await rig.settle()
    assert todo.settled and todo.wake_at is None
    assert rig.steps_done().count("PullImage") == 1
    rig.clock.forward(1000)
    assert not (await rig.consider()).stages
    images.clear()
    rig.change_member(order=order(1))
    await rig.settle()
    assert rig.known().state == "running"


async def test_a_refusal_does_not_outlive_the_sandbox(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.runtime.refused.add("busybox")
    await rig.settle()
    assert rig.known().state == "error"
    rig.runtime.refused.clear()
    rig.runtime.lose_sandbox(WORKLOAD, gone=False)
    await rig.settle()
    assert rig.known().state == "running"


async def test_wires_that_fail_are_an_error_of_the_workload_and_tried_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.network.broken = True
    await rig.carry_out(await rig.consider())
    todo = await rig.consider()
    assert todo.error == "The port could not be wired." and not todo.settled
    assert rig.runtime.state(WORKLOAD) != "running"
    rig.network.broken = False
    assert (await rig.settle()).error == ""
    assert rig.runtime.state(WORKLOAD) == "running"


async def test_a_container_can_be_stopped_though_its_wires_fail(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.network.broken = True
    rig.change(ports=(port(), port("port-2", "10.89.0.5")))
    await rig.carry_out(await rig.consider())
    rig.change_member(goal=Goal.STOPPED)
    for _ in range(3):
        await rig.carry_out(await rig.consider())
    assert rig.runtime.state(WORKLOAD) == "exited"


async def test_a_mount_of_an_unknown_volume_is_an_error(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(mounts=(Mount(destination="/data", volume="nowhere"),)))
    assert rig.known().state == "error" and "volume" in rig.known().reason


# ports, limits, names


async def test_ports_come_and_go_while_it_runs(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change(ports=(port("port-2", "10.89.0.5"),))
    await rig.settle()
    assert {wire for _, wire in rig.network.wired} == {"port-2"}
    assert rig.runtime.state(WORKLOAD) == "running"


async def test_new_limits_are_applied_in_place(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change_member(spec=replace(rig.member.spec, cpu=0.5, memory=64))
    await rig.settle()
    assert rig.steps_done() == ["UpdateLimits"]
    held = rig.runtime.newest(WORKLOAD)
    assert (held.cpu, held.memory) == (0.5, 64 * 2**20)


async def test_new_limits_reach_a_stopped_container_once_it_runs(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change_member(goal=Goal.STOPPED)
    await rig.settle()
    rig.change_member(spec=replace(rig.member.spec, memory=64))
    await rig.settle()
    rig.change_member(goal=Goal.RUNNING)
    await rig.settle()
    assert rig.runtime.newest(WORKLOAD).memory == 64 * 2**20


async def test_a_container_that_is_no_member_any_more_is_removed(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(MAIN, role="main"), member(SIDE, role="main", position=1))
    assert rig.wanted is not None
    rig.change(members=rig.wanted.members[:1])
    await rig.settle()
    assert rig.steps_done() == ["RemoveContainer"]
    assert rig.runtime.state(MAIN) == "running"


# health


CHECK = Healthcheck(test="true", interval=5, timeout=1, retries=2)


async def test_health_is_asked_for_at_its_interval_and_told(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(healthcheck=CHECK))
    assert rig.known().health == "starting"
    rig.well(True)
    assert (await rig.consider()).known[WORKLOAD].health == "healthy"
    rig.well(False)
    assert (await rig.consider()).known[WORKLOAD].health == "healthy"
    rig.well(False)
    todo = await rig.consider()
    assert todo.known[WORKLOAD].health == "unhealthy"
    assert not todo.stages and not todo.probes
    rig.clock.forward(5)
    assert (await rig.consider()).probes == (WORKLOAD,)


async def test_what_is_unhealthy_and_shall_heal_is_started_anew(tmp_path: Path) -> None:
    rig = await made(tmp_path, member(healthcheck=CHECK, auto_heal=True))
    for _ in range(2):
        rig.well(False)
    await rig.consider()
    rig.clock.forward(1)
    todo = await rig.consider()
    assert [type(step).__name__ for step in todo.steps] == ["StopContainer", "StartContainer"]
    await rig.carry_out(todo)
    todo = await rig.consider()
    assert (todo.known[WORKLOAD].health, todo.known[WORKLOAD].restarts) == ("starting", 1)


# capsules


def capsule(policy: str = "no") -> Assignment:
    return assignment(
        member(INIT, role="init", image="prepare"),
        member(MAIN, role="main", position=1),
        member(SIDE, role="main", position=2),
        kind="capsule",
        restart_policy=RestartPolicy(policy),
    )


async def test_the_containers_of_a_capsule_start_together_after_its_init_containers_are_done(tmp_path: Path) -> None:
    rig = Rig(tmp_path, capsule())
    todo = await rig.settle()
    assert rig.runtime.state(INIT) == "running" and not rig.runtime.state(MAIN)
    assert not todo.settled
    rig.runtime.end(INIT, 0)
    todo = await rig.settle()
    assert rig.runtime.state(MAIN) == rig.runtime.state(SIDE) == "running"
    assert todo.settled and not todo.error
    rig.runtime.held = {key: held for key, held in rig.runtime.held.items() if key[0] != INIT}
    rig.crash()
    await rig.settle()
    assert not rig.runtime.state(INIT)


async def test_an_init_container_that_fails_holds_the_capsule_up_and_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path, capsule())
    rig.runtime.exits["prepare"] = 3
    todo = await rig.settle()
    assert todo.settled and todo.error == "Init container web ended with exit code 3."
    assert not rig.runtime.state(MAIN)


async def test_an_init_container_that_fails_is_tried_again_where_the_policy_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, capsule("always"))
    rig.runtime.exits["prepare"] = 3
    for _ in range(5):
        todo = await rig.consider()
        await rig.carry_out(todo)
        rig.clock.forward(10)
    rig.runtime.exits["prepare"] = 0
    await rig.settle()
    assert rig.runtime.state(MAIN) == "running"


@pytest.mark.parametrize("steps", range(12))
async def test_a_capsule_comes_up_whenever_the_agent_crashed(tmp_path: Path, steps: int) -> None:
    rig = Rig(tmp_path, capsule())
    rig.runtime.exits["prepare"] = 0
    await _some(rig, steps)
    rig.crash()
    await rig.settle()
    assert rig.runtime.state(MAIN) == rig.runtime.state(SIDE) == "running"
    assert rig.runtime.calls.count(f"start {INIT}") <= 2


# crashes

Act = Callable[[Rig], None]


def _create(rig: Rig) -> None: ...
def _stop(rig: Rig) -> None:
    rig.change_member(goal=Goal.STOPPED)


def _pause(rig: Rig) -> None:
    rig.change_member(goal=Goal.PAUSED)


def _unpause(rig: Rig) -> None:
    rig.runtime.newest(WORKLOAD).state = "paused"


def _restart(rig: Rig) -> None:
    rig.change_member(order=order(1))


def _kill(rig: Rig) -> None:
    rig.change_member(goal=Goal.STOPPED, order=order(1, "kill", signal="SIGTERM"))


def _rebuild(rig: Rig) -> None:
    rig.change_member(incarnation=2)


def _resize(rig: Rig) -> None:
    rig.change_member(spec=replace(rig.member.spec, memory=64))


def _delete(rig: Rig) -> None:
    rig.change(deleting=True)


def _lose(rig: Rig) -> None:
    rig.runtime.lose_sandbox(WORKLOAD, gone=False)


def _lose_for_good(rig: Rig) -> None:
    rig.runtime.lose_sandbox(WORKLOAD, gone=True)


def _claim(rig: Rig) -> None:
    """What holds once everything has settled."""
    assert rig.wanted is not None
    if rig.wanted.deleting:
        assert not (rig.runtime.boxes or rig.runtime.held or rig.network.wired or rig.volumes.in_use)
        assert not rig.files.there(WORKLOAD)
        return
    states = {Goal.RUNNING: "running", Goal.STOPPED: "exited", Goal.PAUSED: "paused"}
    held = rig.runtime.newest(WORKLOAD)
    assert held.state == states[rig.member.goal]
    assert [key[1] for key in rig.runtime.held] == [rig.member.incarnation]
    assert held.netns == rig.runtime.boxes[WORKLOAD].netns or rig.member.goal is Goal.STOPPED
    assert rig.network.wired == {(WORKLOAD, "port-1"): rig.runtime.boxes[WORKLOAD].netns}
    assert held.memory == rig.member.spec.memory * 2**20 or rig.member.goal is not Goal.RUNNING
    assert rig.known().step == ""


ACTS = [_create, _stop, _pause, _unpause, _restart, _kill, _rebuild, _resize, _delete, _lose, _lose_for_good]


async def _prepared(data: Path, act: Act) -> Rig:
    rig = Rig(data, assignment(volumes={"v": VolumeWire(uuid="v")}))
    if act is not _create:
        await rig.settle()
    act(rig)
    rig.steps_done()
    return rig


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__.strip("_"))
async def test_a_crash_after_any_number_of_steps_is_made_good(tmp_path: Path, act: Act) -> None:
    steps = 0
    while True:
        rig = await _prepared(tmp_path / str(steps), act)
        done = await _some(rig, steps)
        rig.crash()
        await rig.settle()
        _claim(rig)
        if done < steps:
            return
        steps += 1


async def _some(rig: Rig, steps: int) -> int:
    """Do that many steps, over as many passes as it takes; how many there were to do."""
    done = 0
    for _ in range(20):
        todo = await rig.consider()
        left = min(steps - done, len(todo.steps))
        await rig.carry_out(todo, left)
        done += left
        if done == steps or not todo.steps:
            return done
    return done


async def test_the_crashes_above_cover_every_step_of_a_workload(tmp_path: Path) -> None:
    seen: set[str] = set()
    for number, act in enumerate(ACTS):
        rig = await _prepared(tmp_path / str(number), act)
        await rig.settle()
        seen |= set(rig.steps_done())
    assert seen == {step.__name__ for step in STEPS} - {"DeleteVolume"}


def names(todo: Any) -> set[str]:
    return {type(step).__name__ for step in todo.steps}


def test_while_something_is_awaited_all_is_prepared_and_no_container_made() -> None:
    todo = plan(WORKLOAD, assignment(waits=Waits(reason="Neutron is slow.")), Seen(), Memory(), Clock()())
    assert names(todo) == {"PullImage", "MakeSandbox", "WriteFiles", "Plug"}
    assert not todo.settled and not todo.error
    assert todo.known[WORKLOAD].reason == "Neutron is slow."


async def test_what_was_awaited_comes_and_it_goes_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path, assignment(waits=Waits()))
    await rig.settle()
    assert rig.known().state == "" and not (await rig.consider()).settled
    rig.change(waits=None)
    await rig.settle()
    assert rig.known().state == "running"


def test_what_is_refused_is_an_error_and_nothing_is_made() -> None:
    refused = Waits(reason="Neutron refuses.", refused=True)
    todo = plan(WORKLOAD, assignment(waits=refused), Seen(), Memory(), Clock()())
    assert todo.error == "Neutron refuses." and "CreateContainer" not in names(todo) and "PullImage" not in names(todo)


async def test_what_runs_goes_on_while_something_more_is_awaited(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change(waits=Waits(reason="Neutron is slow.", holds=False))
    await rig.settle()
    assert rig.known().state == "running" and rig.known().reason == ""
    assert not (await rig.consider()).settled
    rig.change(waits=None)
    assert (await rig.consider()).settled


async def test_what_runs_goes_on_without_what_was_refused_and_says_so(tmp_path: Path) -> None:
    rig = await made(tmp_path)
    rig.change(waits=Waits(reason="Neutron refuses.", refused=True, holds=False))
    todo = await rig.consider()
    assert todo.settled and not todo.error and todo.known[WORKLOAD].reason == "Neutron refuses."
    rig.change(waits=None)
    assert (await rig.consider()).known[WORKLOAD].reason == ""
