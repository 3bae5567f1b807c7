"""Higgins is killed before and after every step of every verb; started again, it does what was asked for.

Each case is a life of its own: prepare a container, start Higgins with a failpoint, ask for the verb, see it die, start
it without, and find the container where it was told to go. Then it is deleted, and nothing of it is left.
"""

import re
import signal
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from higgins.agent.failpoints import VARIABLE
from higgins.agent.steps import STEPS
from tests.system.client import PATIENCE
from tests.system.rest import LOOK_EVERY, Rest
from tests.system.stage import Stage
from tests.system.traces import left_over, traces

NAME = "crash"
PROGRAM = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
FIELDS: dict[str, Any] = {
    "mounts": [
        {"size": 1, "destination": "/data"},
        {"type": "bind", "source": b64encode(b"injected").decode(), "destination": "/etc/settings"},
    ]
}


class Walk(Struct, frozen=True, kw_only=True):
    """A verb: the request, the status before and after, and the steps that it takes, as often as it takes them.

    ``before`` None: there is no container yet; ``after`` None: there is none any more. ``early`` are steps that Higgins
    takes for the prepared container whenever it starts.
    """

    request: tuple[str, str, Any] | None
    before: str | None = "Running"
    after: str | None = "Running"
    steps: tuple[str, ...]
    early: tuple[str, ...] = ()


_AGAIN = ("WriteFiles", "AttachVolume", "UpdateLimits")
_ONE = f"/containers/{NAME}"
_BODY = {"image": "busybox", "name": NAME, "command": list(PROGRAM), **FIELDS}

WALKS: dict[str, Walk] = {
    "create": Walk(
        request=("POST", "/containers?run=true", _BODY),
        before=None,
        steps=(
            *("PullImage", "MakeSandbox", "WriteFiles", "AttachVolume", "AttachVolume", "Plug"),
            *("CreateContainer", "StartContainer"),
        ),
    ),
    "stop": Walk(
        request=("POST", f"{_ONE}/stop?timeout=5", None), after="Stopped", steps=("StopContainer",), early=_AGAIN
    ),
    "start": Walk(
        request=("POST", f"{_ONE}/start", None),
        before="Stopped",
        steps=("StartContainer", "UpdateLimits"),
        early=("WriteFiles", "AttachVolume"),
    ),
    "reboot": Walk(
        request=("POST", f"{_ONE}/reboot?timeout=5", None),
        steps=("StopContainer", "StartContainer"),
        early=_AGAIN,
    ),
    "rebuild": Walk(
        request=("POST", f"{_ONE}/rebuild", None),
        steps=("PullImage", "StopContainer", "RemoveContainer", "CreateContainer", "StartContainer"),
        early=_AGAIN,
    ),
    "pause": Walk(
        request=("POST", f"{_ONE}/pause", None), after="Paused", steps=("PauseContainer",), early=_AGAIN
    ),
    "unpause": Walk(
        request=("POST", f"{_ONE}/unpause", None),
        before="Paused",
        steps=("UnpauseContainer", "UpdateLimits"),
        early=("WriteFiles", "AttachVolume"),
    ),
    "kill": Walk(
        request=("POST", f"{_ONE}/kill", None), after="Stopped", steps=("KillContainer",), early=_AGAIN
    ),
    "set": Walk(request=("PATCH", _ONE, {"cpu": 0.5, "memory": 96}), steps=("UpdateLimits",), early=_AGAIN),
    "delete": Walk(
        request=("DELETE", f"{_ONE}?stop=true", None),
        after=None,
        steps=(
            *("StopContainer", "RemoveContainer", "Unplug", "RemoveSandbox", "DetachVolume", "DetachVolume"),
            *("DeleteVolume", "DeleteVolume"),
        ),
        early=_AGAIN,
    ),
    # Higgins itself comes back to a container that runs.
    "return": Walk(request=None, steps=_AGAIN),
}  # fmt: skip


def failpoints() -> Iterator[tuple[str, str]]:
    """By verb, every passing of every step, before and after it."""
    for verb, walk in WALKS.items():
        passed: dict[str, int] = dict.fromkeys(walk.early, 1)
        for step in walk.steps:
            passed[step] = passed.get(step, 0) + 1
            for when in ("before", "after"):
                yield verb, f"{step}:{when}:{passed[step]}"


#: On the second engine after each step only: what is before one is after another, and it takes half of the time.
CASES = [
    pytest.param(engine, verb, failpoint, id=f"{engine}-{verb}-{failpoint.replace(':', '-')}")
    for engine in ("docker", "cri")
    for verb, failpoint in failpoints()
    if engine == "docker" or ":after" in failpoint
]

#: From the first step on that a workload takes in a sandbox that was made ahead.
IN_A_SPARE = (
    "WriteFiles:after",
    "Plug:after",
    "CreateContainer:before",
    "CreateContainer:after",
    "StartContainer:after",
)


def passings(log: str) -> list[str]:
    """The steps that were begun, from the log of a process with a failpoint."""
    return re.findall(r"Passing (\w+):before", log)


@pytest.fixture
def rest(stage: Stage) -> Iterator[Rest]:
    """The API of a cloud that runs without failpoint. Nothing is left when the test is over."""
    rest = Rest(stage.up)
    before = traces(stage.up, stage.behind)
    yield rest
    if stage.up.process is not None and stage.up.process.poll() is None and rest.show(NAME) is None:
        found = left_over(stage.up, stage.behind, before)
        assert not found, (found, stage.up.log()[-3000:])
        return
    if stage.up.process is not None:
        stage.up.kill()
    stage.up.start()
    rest.delete(NAME)
    left_over(stage.up, stage.behind, before)


def prepare(rest: Rest, walk: Walk) -> None:
    """Have the container in the status that the verb begins with, with something in its volume."""
    if walk.before is None:
        return
    rest.run(NAME, *PROGRAM, **FIELDS)
    rest.settled(NAME, "Running")
    assert rest.execute(NAME, "sh", "-c", "'echo kept > /data/note'")[0] == 0
    if walk.before == "Paused":
        rest.call("POST", f"{_ONE}/pause")
    elif walk.before == "Stopped":
        rest.call("POST", f"{_ONE}/stop?timeout=5")
    rest.settled(NAME, walk.before)


def restart_with(stage: Stage, failpoint: str, early: tuple[str, ...]) -> None:
    """Start Higgins with a failpoint, and wait until it has looked after what is there."""
    stage.up.stop()
    begin = len(stage.up.log())
    stage.up.start(**{VARIABLE: failpoint})
    deadline = time.monotonic() + PATIENCE
    while not set(early) <= set(re.findall(r"Passing (\w+):after", stage.up.log()[begin:])):
        assert time.monotonic() < deadline, stage.up.log()[begin:]
        time.sleep(LOOK_EVERY)


def arrived(rest: Rest, walk: Walk) -> None:
    """Wait until the container is where the verb sends it, and look at it closely."""
    if walk.after is None:
        rest.gone(NAME)
        return
    shown = rest.settled(NAME, walk.after)
    assert shown["status_reason"] is None or walk.after == "Stopped", shown
    if walk.after == "Running":
        kept = "kept" if walk.before else "-"
        looked = rest.execute(NAME, "sh", "-c", "'cat /data/note 2>/dev/null || echo -; cat /etc/settings'")[1]
        assert looked.split()[-2:] == [kept, "injected"], looked


@pytest.mark.parametrize(("stage", "verb", "failpoint"), CASES, indirect=["stage"])
def test_what_was_asked_for_is_done_after_a_crash_and_nothing_is_left(
    stage: Stage, rest: Rest, verb: str, failpoint: str
) -> None:
    walk = WALKS[verb]
    others = stage.behind.containers()
    prepare(rest, walk)
    if walk.request is None:
        stage.up.stop()
        stage.up.start(**{VARIABLE: failpoint})
    else:
        restart_with(stage, failpoint, walk.early)
        answer = rest.ask(*walk.request)
        assert answer is None or answer.status < 300, answer
    assert stage.up.wait_for_end() == -signal.SIGKILL, f"{failpoint} was never reached: {stage.up.log()[-3000:]}"
    stage.up.start()
    arrived(rest, walk)
    if walk.after is not None:
        assert len(stage.behind.containers() - others) == 2, "a sandbox and a container are wanted"
        rest.delete(NAME)


def test_the_walks_take_the_steps_they_say_and_all_there_are(stage: Stage, rest: Rest) -> None:
    for verb, walk in WALKS.items():
        prepare(rest, walk)
        begin = len(stage.up.log())
        restart_with(stage, "None:before", walk.early)
        if walk.request is not None:
            begin = len(stage.up.log())
            rest.call(*walk.request)
            arrived(rest, walk)
        deadline = time.monotonic() + PATIENCE
        while not set(walk.steps) <= (taken := set(passings(stage.up.log()[begin:]))):
            assert time.monotonic() < deadline, f"{verb} takes {taken} only"
            time.sleep(LOOK_EVERY)
        assert taken <= {*walk.steps, *walk.early}, f"{verb} takes more"
        rest.delete(NAME)
    assert {step.__name__ for step in STEPS} == {step for walk in WALKS.values() for step in walk.steps}


@pytest.mark.parametrize("failpoint", IN_A_SPARE)
def test_a_crash_in_a_sandbox_made_ahead_leaves_none_and_loses_none(stage: Stage, rest: Rest, failpoint: str) -> None:
    others = stage.behind.containers()
    stage.up.stop()
    stage.up.spares = 1
    try:
        stage.up.start(**{VARIABLE: failpoint})
        rest.wait_until(lambda: len(stage.behind.containers() - others) == 1, "a sandbox is made ahead")
        rest.ask(*WALKS["create"].request or ("", "", None))
        assert stage.up.wait_for_end() == -signal.SIGKILL, stage.up.log()[-3000:]
        stage.up.start()
        arrived(rest, WALKS["create"])
        stage.up.kill()
    finally:
        stage.up.spares = 0
    stage.up.start()
    arrived(rest, WALKS["create"])
    rest.wait_until(lambda: len(stage.behind.containers() - others) == 2, "no other sandbox is left")
    rest.delete(NAME)
