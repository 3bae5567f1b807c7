"""Twenty containers count on while Higgins and its engine come and go; afterwards all of them can be handled."""

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from tests.system.client import PATIENCE
from tests.system.cloud import HigginsUp
from tests.system.rest import LOOK_EVERY, Rest
from tests.system.stage import Stage

NAMES = [f"counter-{number}" for number in range(20)]
#: Ten times a second: the next number, and the machine's uptime. Nothing is forked, so that twenty of them are cheap.
PROGRAM = """\
trap exit TERM
rm -f /tmp/count /tmp/never; mkfifo /tmp/never; exec 3<>/tmp/never
echo born
i=0
while :; do
    i=$((i + 1)); read now rest </proc/uptime; echo $i $now >>/tmp/count
    read -t 0.1 -u 3 nothing
done
"""
#: Seconds between two counts that even a loaded machine keeps to, and that no container made anew would.
LONGEST = 20.0


@pytest.fixture(scope="module")
def rest(stage: Stage) -> Iterator[Rest]:
    """The API, with all counters running."""
    rest = Rest(stage.up)
    for name in NAMES:
        rest.run(name, "sh", "-c", PROGRAM, memory=64)
    for name in NAMES:
        rest.settled(name, "Running")
    yield rest
    for name in NAMES:
        if rest.show(name) is not None:
            rest.call("DELETE", f"/containers/{name}?force=true")
    rest.gone(*NAMES)


def counts(rest: Rest, name: str) -> list[tuple[int, float]]:
    """The numbers that a container has written, and when."""
    code, output = rest.execute(name, "cat", "/tmp/count")
    assert code == 0, output
    lines = [line.split() for line in output.splitlines()]
    return [(int(line[0]), float(line[1])) for line in lines if len(line) == 2]


def without_a_gap(rest: Rest, name: str, more_than: int) -> int:
    """Wait until the container has counted further than that, and look at all its numbers; the last of them."""
    deadline = time.monotonic() + PATIENCE
    while len(found := counts(rest, name)) <= more_than:
        assert time.monotonic() < deadline, f"{name} does not count on from {more_than}"
        time.sleep(LOOK_EVERY)
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    longest = max((after - before for (_, before), (_, after) in itertools.pairwise(found)), default=0.0)
    assert longest < LONGEST, f"{name} paused for {longest} s"
    return len(found)


def _uuids(rest: Rest) -> dict[str, str]:
    return {name: str((rest.show(name) or {})["uuid"]) for name in NAMES}


def stopped_and_started(stage: Stage) -> None:
    assert stage.up.stop() == 0
    stage.up.start()


def killed_and_started(stage: Stage) -> None:
    stage.up.kill()
    stage.up.start()


def upgraded(stage: Stage) -> None:
    """What starts it next is another program: here a Python of its own, which imports all of it anew."""
    assert stage.up.stop() == 0
    other = HigginsUp(stage.up.data, stage.up.engine)
    other.listen = stage.up.listen
    other.start()
    other.stop()
    stage.up.start()


def engine_killed_and_started(stage: Stage) -> None:
    stage.behind.engine.kill()
    stage.behind.engine.start()


Disturbance = Callable[[Stage], None]
DISTURBANCES: list[Disturbance] = [stopped_and_started, killed_and_started, upgraded, engine_killed_and_started]


@pytest.mark.parametrize("disturb", DISTURBANCES, ids=lambda disturb: disturb.__name__)
def test_no_container_misses_a_count(stage: Stage, rest: Rest, disturb: Disturbance) -> None:
    pids = {name: stage.behind.pid(uuid) for name, uuid in _uuids(rest).items()}
    before = {name: len(counts(rest, name)) for name in NAMES}
    disturb(stage)
    for name in NAMES:
        rest.settled(name, "Running")
        without_a_gap(rest, name, before[name])
    assert {name: stage.behind.pid(uuid) for name, uuid in _uuids(rest).items()} == pids
    assert "born" in rest.logs(NAMES[0])


def test_all_can_be_handled_afterwards(stage: Stage, rest: Rest) -> None:
    engine_killed_and_started(stage)
    killed_and_started(stage)
    for name in NAMES:
        assert rest.execute(name, "echo", "here") == (0, "here\n")
        assert "born" in rest.logs(name)
        rest.call("POST", f"/containers/{name}/stop?timeout=5")
    for name in NAMES:
        rest.settled(name, "Stopped")
    assert all(stage.behind.pid(uuid) == 0 for uuid in _uuids(rest).values())
    for name in NAMES:
        rest.call("POST", f"/containers/{name}/start")
    for name in NAMES:
        rest.settled(name, "Running")
