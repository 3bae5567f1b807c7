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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.docker import DockerEngine
from tests.system.client import PATIENCE, OpenStack


class HigginsUp:
    """One cloud: a data directory, a port, and the process while it runs."""

    def __init__(self, data: Path, docker_url: str) -> None:
        self.data = data
        self.docker_url = docker_url
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.listen = f"127.0.0.1:{probe.getsockname()[1]}"
        self.process: subprocess.Popen[bytes] | None = None
        self._log = data / "higgins.log"

    def start(self) -> None:
        """Start it and wait until it says that it serves."""
        command = self._command("up", "--listen", self.listen)
        said = len(self.log())
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while "Higgins serves http://" not in self.log()[said:]:
            assert self.process.poll() is None, f"higgins up ended: {self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"higgins up does not serve: {self.log()[-3000:]}"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(timeout=PATIENCE)
        self.process = None
        return code

    def clean(self) -> None:
        """Remove what is left of its workloads, while it does not run."""
        done = subprocess.run(self._command("clean"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def _command(self, verb: str, *options: str) -> list[str]:
        engine = ["--runtime", "docker", "--docker-url", self.docker_url]
        return [sys.executable, "-m", "higgins.cli.main", verb, "--data", str(self.data), *engine, *options]

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def openrc(self) -> dict[str, str]:
        """The environment of a shell that has read ``openrc``."""
        read = ["sh", "-c", '. "$1" && env -0', "sh", str(self.data / "openrc")]
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
def cloud(docker_engine: DockerEngine) -> Iterator[HigginsUp]:
    """A cloud for the whole session. Whoever stops it starts it again."""
    data = Path(tempfile.mkdtemp(prefix="higgins-cloud"))
    up = HigginsUp(data, docker_engine.url)
    up.start()
    yield up
    if up.process is not None:
        up.stop()
    up.clean()
    shutil.rmtree(data)


@pytest.fixture(scope="session")
def openstack(cloud: HigginsUp) -> Iterator[OpenStack]:
    """The client of the administrator whom ``higgins up`` made."""
    client = OpenStack(cloud.openrc())
    yield client
    client.close()
