"""What happens to a container without Higgins is shown as it is, and its policy is kept. Docs tell how soon."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.system.behind import end_process
from tests.system.rest import Rest
from tests.system.stage import Stage

IDLE = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
#: Ends with 3 when told so by a signal that no engine sends by itself.
ENDS_WITH_3 = ("sh", "-c", "trap 'exit 3' USR1; sleep 1000 & wait")

Shown = dict[str, Any]
Making = Callable[..., Shown]

_numbers = itertools.count(1)


@pytest.fixture
def rest(stage: Stage) -> Rest:
    return Rest(stage.up)


@pytest.fixture
def running(rest: Rest) -> Iterator[Making]:
    """``running("sleep", "9", auto_heal=True)``: a container that runs, removed when the test is over."""
    names: list[str] = []

    def make(*command: str, **fields: Any) -> Shown:
        names.append(f"truth-{next(_numbers)}")
        rest.run(names[-1], *command, **fields)
        return rest.settled(names[-1], "Running")

    yield make
    rest.delete(*names)


def started_again(stage: Stage, rest: Rest, uuid: str, before: int) -> int:
    """Wait until it runs with another process than ``before``; that process."""
    rest.wait(
        uuid,
        lambda now: (
            now is not None
            and (now["status"], now["task_state"]) == ("Running", None)
            and stage.behind.pid(uuid) not in (0, before)
        ),
        "was started again",
    )
    return stage.behind.pid(uuid)


def test_a_container_that_exits_is_stopped_with_its_exit_code(stage: Stage, rest: Rest, running: Making) -> None:
    shown = running(*ENDS_WITH_3)
    pid = stage.behind.pid(shown["uuid"])
    assert pid > 0
    os.kill(pid, signal.SIGUSR1)
    now = rest.settled(shown["uuid"], "Stopped")
    assert now["status_detail"].startswith("Exited(3)")


def test_a_container_whose_process_is_killed_is_stopped(stage: Stage, rest: Rest, running: Making) -> None:
    shown = running(*IDLE)
    end_process(stage.behind.pid(shown["uuid"]))
    now = rest.settled(shown["uuid"], "Stopped")
    assert now["status_detail"].startswith("Exited(137)")


def test_a_container_removed_from_its_engine_is_in_error_and_start_brings_it_back(
    stage: Stage, rest: Rest, running: Making
) -> None:
    shown = running(*IDLE)
    stage.behind.remove(shown["uuid"])
    now = rest.settled(shown["uuid"], "Error")
    assert "vanished" in now["status_reason"]
    rest.call("POST", f"/containers/{shown['uuid']}/start")
    assert rest.settled(shown["uuid"], "Running")["status_reason"] is None
    assert rest.execute(shown["uuid"], "echo here") == (0, "here\n")


def test_a_container_with_auto_heal_that_was_removed_is_made_again(stage: Stage, rest: Rest, running: Making) -> None:
    uuid = running(*IDLE, auto_heal=True)["uuid"]
    before = stage.behind.pid(uuid)
    stage.behind.remove(uuid)
    started_again(stage, rest, uuid, before)


def test_a_container_whose_sandbox_died_runs_again_at_the_same_address(
    stage: Stage, rest: Rest, running: Making
) -> None:
    shown = running(*IDLE)
    uuid = shown["uuid"]
    before, sandbox = stage.behind.pid(uuid), stage.behind.sandbox_pid(uuid)
    end_process(sandbox)
    started_again(stage, rest, uuid, before)
    now = rest.settled(uuid, "Running")
    assert now["addresses"] == shown["addresses"]
    [[port]] = now["addresses"].values()
    assert port["addr"] in rest.execute(uuid, "ip -4 address show dev eth0")[1]
    assert stage.behind.sandbox_pid(uuid) not in (0, sandbox)


def test_always_starts_it_again_whatever_it_ended_with(stage: Stage, rest: Rest, running: Making) -> None:
    uuid = running(*IDLE, restart_policy={"Name": "always"})["uuid"]
    pid = stage.behind.pid(uuid)
    for _ in range(2):
        end_process(pid)
        pid = started_again(stage, rest, uuid, pid)


def test_on_failure_gives_up_after_as_many_restarts_as_it_allows(rest: Rest) -> None:
    name = f"truth-{next(_numbers)}"
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    try:
        rest.run(name, "sh", "-c", "echo turn; exit 1", restart_policy=policy)
        now = rest.settled(name, "Stopped")
        assert now["status_detail"].startswith("Exited(1)")
        assert rest.logs(name).count("turn") == 3
    finally:
        rest.delete(name)


def test_a_container_that_its_owner_stopped_is_left_alone_by_its_policy(
    stage: Stage, rest: Rest, running: Making
) -> None:
    uuid = running(*IDLE, restart_policy={"Name": "always"})["uuid"]
    rest.call("POST", f"/containers/{uuid}/stop?timeout=5")
    stopped = rest.settled(uuid, "Stopped")
    stage.up.kill()
    stage.up.start()
    assert rest.settled(uuid, "Stopped")["started_at"] == stopped["started_at"]
    assert stage.behind.pid(uuid) == 0


def test_an_unhealthy_container_is_shown_so_and_healed_where_that_was_asked_for(
    stage: Stage, rest: Rest, running: Making
) -> None:
    check = {"cmd": "test ! -e /tmp/ill", "interval": 1, "retries": 1, "timeout": 10}
    program = ("sh", "-c", "rm -f /tmp/ill; trap exit TERM; sleep 1000 & wait")
    left = running(*program, healthcheck=check)["uuid"]
    healed = running(*program, healthcheck=check, auto_heal=True)["uuid"]
    before = {uuid: stage.behind.pid(uuid) for uuid in (left, healed)}
    for uuid in before:
        assert rest.execute(uuid, "touch /tmp/ill")[0] == 0
    started_again(stage, rest, healed, before[healed])
    rest.wait(left, lambda now: now is not None and now["status_detail"].endswith("(unhealthy)"), "became unhealthy")
    rest.settled(left, "Running")
    assert stage.behind.pid(left) == before[left]


def test_what_happens_while_the_engine_tells_nothing_is_found_by_comparing(
    stage: Stage, rest: Rest, running: Making
) -> None:
    ended, well = running(*IDLE)["uuid"], running(*IDLE)["uuid"]
    again = running(*IDLE, restart_policy={"Name": "always"})["uuid"]
    before = {uuid: stage.behind.pid(uuid) for uuid in (ended, again, well)}
    stage.behind.engine.kill()
    for uuid in (ended, again):
        end_process(before[uuid])
    stage.behind.engine.start()
    rest.settled(ended, "Stopped")
    started_again(stage, rest, again, before[again])
    rest.settled(well, "Running")
    assert stage.behind.pid(well) == before[well]
