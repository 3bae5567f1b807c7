"""Sandboxes made ahead, on real engines: a container that took one lives like any other, and is found again."""

from collections.abc import Iterator

import pytest

from tests.engines import wait_until
from tests.system.rest import Rest
from tests.system.stage import Stage

NAME = "ahead"


@pytest.fixture
def rest(stage: Stage) -> Iterator[Rest]:
    """The cloud keeps two sandboxes ready."""
    stage.up.stop()
    stage.up.spares = 2
    stage.up.start()
    yield Rest(stage.up)
    stage.up.stop()
    stage.up.spares = 0
    stage.up.start()


def inside(rest: Rest, *command: str) -> str:
    """What a command prints in the container."""
    return rest.execute(NAME, *command)[1].strip()


def test_a_container_in_a_sandbox_made_ahead_lives_through_a_crash_and_leaves_nothing(stage: Stage, rest: Rest) -> None:
    wait_until(lambda: len(stage.behind.containers()) >= 2, "no sandbox is made ahead")
    made = rest.run(NAME, "sh", "-c", "trap exit TERM; sleep 1000 & wait")
    rest.settled(NAME, "Running")
    hostname = inside(rest, "hostname")
    assert hostname != made["uuid"][:12]  # that of the sandbox it took
    assert inside(rest, "cat", "/etc/hostname") == hostname
    assert hostname in inside(rest, "cat", "/etc/hosts")
    stage.up.kill()
    stage.up.start()
    rest.settled(NAME, "Running")
    assert inside(rest, "hostname") == hostname
    rest.call("POST", f"/containers/{NAME}/reboot?timeout=5")
    rest.settled(NAME, "Running")
    assert inside(rest, "hostname") == hostname
    rest.delete(NAME)
    stage.up.stop()
    try:
        wait_until(lambda: not stage.behind.containers(), "something of a sandbox is left")
    finally:
        stage.up.start()
