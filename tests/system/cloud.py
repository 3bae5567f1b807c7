"""``higgins up`` as a process of its own, on an engine of its own, as an operator has it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.engines.docker import DockerEngine
from tests.system.client import PATIENCE, OpenStack
from tests.system.launcher import Launched, Launcher

_PROGRAM = [sys.executable, "-m", "higgins.cli.main"]


class HigginsUp:
    """One cloud: a data directory, a port, and the process while it runs."""

    def __init__(self, data: Path, engine: Sequence[str], launcher: Launcher | None = None, *, spares: int = 0) -> None:
        """``engine``: the options that name the engine to use. A ``launcher`` makes starting it quick.

        ``spares`` sandboxes are made ahead; none unless asked for, since tests look at all that is on the engine.
        """
        self.spares = spares
        self.data = data
        self.engine = engine
        self._launcher = launcher
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.listen = f"127.0.0.1:{probe.getsockname()[1]}"
        self.process: subprocess.Popen[bytes] | Launched | None = None
        self._log = data / "higgins.log"

    def start(self, **environment: str) -> None:
        """Start it, with these variables set, and wait until it says that it serves."""
        said = len(self.log())
        options = ("--listen", self.listen, "--spare-sandboxes", str(self.spares))
        self.process = self._launch(self._arguments("up", *options), environment)
        deadline = time.monotonic() + PATIENCE
        while "Higgins serves http://" not in self.log()[said:]:
            assert self.process.poll() is None, f"higgins up ended: {self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"higgins up does not serve: {self.log()[-3000:]}"
            time.sleep(0.05)

    def _launch(self, arguments: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes] | Launched":
        if self._launcher is not None:
            return self._launcher.launch(arguments, self._log, environment)
        with self._log.open("ab") as log:
            return subprocess.Popen([*_PROGRAM, *arguments], stdout=log, stderr=log, env=os.environ | environment)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.wait_for_end()

    def wait_for_end(self) -> int:
        """Wait until it has ended, and collect it; its exit code, negative for a signal."""
        assert self.process is not None
        code = self.process.wait(timeout=PATIENCE)
        self.process = None
        return code

    def clean(self) -> None:
        """Remove what is left of its workloads, while it does not run."""
        done = subprocess.run([*_PROGRAM, *self._arguments("clean")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def end(self) -> None:
        """Stop it, if it runs, and remove what is left of its workloads."""
        if self.process is not None:
            self.stop()
        self.clean()

    def _arguments(self, verb: str, *options: str) -> list[str]:
        return [verb, "--data", str(self.data), *self.engine, *options]

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def openrc(self, name: str = "openrc") -> dict[str, str]:
        """The environment of a shell that has read ``openrc``, or ``openrc-token``."""
        read = ["sh", "-c", '. "$1" && env -0', "sh", str(self.data / name)]
        shell = subprocess.run(read, env={"PATH": os.environ["PATH"]}, check=True, capture_output=True, text=True)
        return dict(entry.split("=", 1) for entry in shell.stdout.split("\0") if entry)

    def get(self, path: str) -> Any:
        """What the API answers to an administrator's GET of a path below /v1, from JSON."""
        return json.loads(self._get(f"/v1{path}"))

    def metrics(self) -> str:
        """What Prometheus reads."""
        return self._get("/metrics").decode()

    def _get(self, path: str) -> bytes:
        environment = self.openrc()
        request = urllib.request.Request(f"http://{self.listen}{path}")
        user = f"{environment['OS_USERNAME']}:{environment['OS_PASSWORD']}"
        request.add_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
        request.add_header("OpenStack-API-Version", "container 1.40")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            body: bytes = answer.read()
        return body


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    made.close()


@pytest.fixture(scope="session")
def cloud(docker_engine: DockerEngine, launcher: Launcher) -> Iterator[HigginsUp]:
    """A cloud for the whole session. Whoever stops it starts it again."""
    data = Path(tempfile.mkdtemp(prefix="higgins-cloud"))
    up = HigginsUp(data, docker_engine.options, launcher)
    up.start()
    yield up
    up.end()
    shutil.rmtree(data)


@pytest.fixture(scope="session")
def openstack(cloud: HigginsUp) -> Iterator[OpenStack]:
    """The client of the administrator whom ``higgins up`` made."""
    client = OpenStack(cloud.openrc())
    yield client
    client.close()
