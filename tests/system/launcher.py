"""Starts ``higgins`` many times without importing it anew each time, which is most of what a start takes.

Each start is a process of its own, forked from one that has only imported; it does what the command does from there on.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Launched:
    """A process that the launcher forked, with the face of ``subprocess.Popen``."""

    def __init__(self, launcher: "Launcher", pid: int) -> None:
        self.pid = pid
        self._launcher = launcher
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code once it has ended, negative for a signal."""
        if self._code is None:
            self._code = self._launcher.ask({"poll": self.pid})
        return self._code

    def send_signal(self, how: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, how)

    def wait(self, timeout: float) -> int:
        """Wait until it ends. Raises ``TimeoutError``."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} does not end")
            time.sleep(0.01)
        return code


class Launcher:
    """The process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.launcher"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def launch(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Launched:
        """``higgins`` with these arguments, its output added to ``log``."""
        return Launched(self, self.ask({"launch": list(arguments), "log": str(log), "environment": dict(environment)}))

    def ask(self, wish: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Let it end. What it forked goes on."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


def fork(arguments: list[str], log: str, environment: dict[str, str]) -> int:
    """Fork a process that runs ``higgins``; its pid."""
    from higgins.cli.main import main

    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        os.environ.update(environment)
        sys.argv = ["higgins", *arguments]
        code = main()
        sys.stdout.flush()
    except BaseException:  # as an interpreter does at the end of a process, which this one does not come to
        traceback.print_exc()
    finally:
        os._exit(code)


def poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    import higgins.cli.up  # noqa: F401 - what takes so long

    for line in sys.stdin:
        wish = json.loads(line)
        answer = poll(wish["poll"]) if "poll" in wish else fork(wish["launch"], wish["log"], wish["environment"])
        print(json.dumps(answer), flush=True)
