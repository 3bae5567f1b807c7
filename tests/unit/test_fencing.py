"""A host that nobody hears ends what is placed elsewhere then, and has it run again when it is still its own."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from higgins.agent import fencing
from higgins.agent.fencing import PATIENCE, Fence, ended
from higgins.control.fencing import WORN, lease, lost_after
from higgins.control.link import Assignments, ControlUnavailable
from higgins.control.settings import Settings
from higgins.model.container import Goal
from tests.unit.fakes import WORKLOAD, FakeControl, assignment, member
from tests.unit.test_agent import OTHER, until
from tests.unit.test_agent import Host as AgentHost

LEASE = 60.0


def test_a_host_is_lost_when_no_question_was_answered_that_it_sent_within_its_lease() -> None:
    fence = Fence(asked=100, lease=LEASE)
    assert [fence.closed(now) for now in (100, 159, 160, 161)] == [False, False, False, True]
    assert not Fence(asked=100).closed(10**6)  # nothing is placed elsewhere


def test_several_questions_fit_into_a_lease() -> None:
    assert Fence().poll(30) == 30
    assert Fence(lease=LEASE).poll(30) == 15
    assert Fence(lease=600).poll(30) == 30


def test_only_what_leaves_a_lost_host_ends_and_only_what_is_to_run() -> None:
    stays = assignment()
    assert ended(stays) is stays
    goals = (Goal.RUNNING, Goal.PAUSED, Goal.CREATED, Goal.STOPPED, Goal.DELETED)
    leaves = assignment(*(member(uuid=f"m{n}", goal=goal) for n, goal in enumerate(goals)), leaves=True)
    found = ended(leaves)
    assert [one.goal for one in found.members] == [Goal.STOPPED, Goal.STOPPED, *goals[2:]]
    assert found.members[0].stop_timeout <= PATIENCE


@pytest.mark.parametrize("seconds", [1.0, 60.0, 600.0])
def test_the_control_plane_waits_until_a_host_that_nobody_hears_has_ended_them(seconds: float) -> None:
    settings = Settings(host_lease=seconds)
    asked = 1000.0
    written = asked - seconds * WORN  # the last word of it that was written down was this one, or one before
    told = lease(settings)
    assert told is not None
    assert written + lost_after(settings) >= asked + told + fencing.CHECK + PATIENCE
    assert lease(structs.replace(settings, evacuate="never")) is None


class Control(FakeControl):
    """A control plane that can be cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False
        self.questions = 0

    def asked(self, times: int) -> bool:
        return self.questions >= times

    async def assignments(self, host: int, since: int, timeout: float) -> Assignments | None:
        self.questions += 1
        if self.cut:
            raise ControlUnavailable("no route to host")
        told = await super().assignments(host, since, min(timeout, 0.05))
        if self.cut:
            raise ControlUnavailable("no route to host")
        return None if told is None else structs.replace(told, lease=LEASE)


class Host(AgentHost):
    """An agent on a machine whose clock is moved by hand."""

    control: Control
    time = 0.0


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """It runs one that leaves it when it is lost, and one that stays. Its clock is moved by hand."""
    monkeypatch.setattr(fencing, "CHECK", 0.01)
    made = Host(tmp_path)
    made.control = Control()
    made.control.put(assignment(leaves=True), assignment(member(uuid=OTHER), uuid=OTHER, ports=()))
    made.start(fences=True, clock=lambda: made.time)
    await until(lambda: states(made) == ("running", "running"))
    yield made
    await made.stop()


def states(host: Host) -> tuple[str, str]:
    """Of the one that leaves it when it is lost, and of the one that stays."""
    return host.runtime.state(WORKLOAD), host.runtime.state(OTHER)


async def lose(host: Host) -> None:
    """Nobody hears it for longer than its lease."""
    host.control.cut = host.control.deaf = True
    host.control.touch()
    host.time += LEASE + 1
    await until(lambda: states(host) == ("exited", "running"))


async def test_what_is_still_its_own_runs_again_once_it_is_heard(host: Host) -> None:
    await lose(host)
    host.control.cut = host.control.deaf = False
    await until(lambda: states(host) == ("running", "running"))
    await host.settled()
    assert host.control.known(WORKLOAD).state == "running"


async def test_what_is_elsewhere_by_then_is_removed(host: Host) -> None:
    await lose(host)
    host.control.drop(WORKLOAD)
    host.control.cut = host.control.deaf = False
    await until(lambda: not any(uuid == WORKLOAD for uuid, _ in host.runtime.held))
    assert host.runtime.state(OTHER) == "running"


async def test_a_host_that_is_heard_ends_nothing_however_long_nothing_changes(host: Host) -> None:
    for _ in range(4):
        wanted = host.control.questions + 3
        host.time += LEASE / 2
        await until(partial(host.control.asked, wanted))
    assert states(host) == ("running", "running")


async def test_what_shall_stop_meanwhile_stays_stopped(host: Host) -> None:
    await lose(host)
    host.change_member(goal=Goal.STOPPED)
    host.control.cut = host.control.deaf = False
    await host.settled()
    assert states(host) == ("exited", "running")
