"""Real container engines for tests: private ones, with their own root, socket and log, that end with the session."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from higgins.runtimes.base import Runtime

#: Seconds to wait for what an engine does by itself: generous, because a loaded machine is no failure.
DEADLINE = 30.0


class Engine(Protocol):
    """An engine that runs. ``image`` is busybox, loaded already; ``options`` tell ``higgins up`` to use it.

    ``cannot`` maps a verb of ``Runtime``, or a part of one, that the engine has no means for to the reason, shown where
    its tests are skipped, and in ``docs/engines-differences.md``.
    """

    name: str
    image: str
    options: list[str]
    cannot: Mapping[str, str]

    async def open(self) -> Runtime:
        """A driver that talks to it."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def kill(self) -> None:
        """End it at once. What it runs goes on, and the next start finds it."""

    def remains(self) -> set[str]:
        """What it keeps of containers outside of their processes: layers, logs, state."""

    def log(self) -> str:
        """The end of what it wrote."""


def need(*programs: str) -> None:
    """Skip, naming it, where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def wait_until(answers: Callable[[], bool], what: str) -> None:
    """Poll from outside an event loop. Raises ``TimeoutError`` with ``what``."""
    end = time.monotonic() + DEADLINE
    while not answers():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)


def reap(pid: int) -> None:
    """Wait until a process is gone that was started by another, which died.

    Where pytest is the first process of its namespace, such orphans are its own to collect; until then they look alive.
    """
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"process {pid} does not end")


class Daemon:
    """A program in the background, its output in a file."""

    def __init__(
        self, command: list[str], log: Path, environment: Mapping[str, str] | None = None, place: Path | None = None
    ) -> None:
        """``place`` is the directory that it works in."""
        self._command = command
        self._place = place
        self._log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment, cwd=self._place
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Ask it to end, and kill it where it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-8000:] if self._log.exists() else ""
