"""``openstack appcontainer …`` as a tenant has it, with the credentials of an ``openrc``."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from msgspec import Struct

#: Seconds that anything may take on a loaded machine.
PATIENCE = 60


class Outcome(Struct, frozen=True):
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str


def succeeded(done: Outcome) -> Outcome:
    """What a command did; it must have succeeded. The client ends some failures with 0 and the word *failed*."""
    assert done.code == 0 and " failed: " not in done.out, done
    return done


class OpenStack:
    """The client for one user. ``environment`` holds OS_ENDPOINT and the like."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("client_process.py"))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(timeout=PATIENCE)

    def program(self, name: str, *arguments: str) -> Outcome:
        """``openstack`` or ``zun`` with these arguments, whatever comes of it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def call(self, *arguments: str) -> Outcome:
        """``openstack appcontainer`` with these arguments, whatever comes of it."""
        return self.program("openstack", "appcontainer", *arguments)

    def __call__(self, *arguments: str) -> str:
        """What the command prints; it must succeed."""
        return succeeded(self.call(*arguments)).out

    def json(self, *arguments: str) -> Any:
        """What a command tells, as JSON. Options come before a container's command."""
        verb = [word for word in arguments[:2] if word in _NOUNS]
        split = len(verb) + 1
        return json.loads(self(*arguments[:split], "-f", "json", *arguments[split:]))

    def show(self, container: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.json("show", container)
        return shown

    def status(self, container: str) -> str | None:
        """The status, None where there is no such container."""
        done = self.call("show", "-f", "value", "-c", "status", container)
        if done.code == 0:
            return done.out.strip()
        assert "could not be found" in done.err or "404" in done.err, done
        return None

    def wait(self, container: str, *statuses: str | None) -> dict[str, Any]:
        """Until the container has one of these statuses; what it then is. None: until it is gone."""
        deadline = time.monotonic() + PATIENCE
        while (status := self.status(container)) not in statuses:
            assert time.monotonic() < deadline, f"{container} is {status}: {self.show(container)}"
            assert status != "Error", self.show(container)
            time.sleep(0.05)
        return self.show(container) if status is not None else {}

    def wait_until(self, claim: Callable[[], bool]) -> None:
        """Until the claim holds."""
        deadline = time.monotonic() + PATIENCE
        while not claim():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.05)

    def wait_for_log(self, container: str, text: str) -> str:
        """Until the container's log holds the text; the log."""
        deadline = time.monotonic() + PATIENCE
        while text not in (log := self("logs", container)):
            assert time.monotonic() < deadline, f"{container} logged {log!r}"
            time.sleep(0.05)
        return log

    def delete(self, containers: Collection[str], how: str = "--force") -> None:
        """Remove containers in whatever state, and wait until they are gone. Force is not for every user."""
        there = [name for name in containers if self.status(name) is not None]
        if there:
            self("delete", how, *there)
        for name in there:
            self.wait(name, None)


#: First words of commands of two or three words.
_NOUNS = {"action", "host", "service", "availability", "zone", "image"}
