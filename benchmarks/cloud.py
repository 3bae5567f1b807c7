"""What is measured: ``higgins up`` on a Docker engine that has a bridge of its own, both only for the measurement."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.engines import Daemon, wait_until
from tests.engines.containerd import ContainerdEngine, pause_archive
from tests.engines.images import busybox
from tests.system.cloud import HigginsUp


class BridgedEngine:
    """A dockerd with its usual bridge, so that ``docker run`` wires a container as it does for everybody."""

    def __init__(self, home: Path) -> None:
        self.url = f"unix://{home}/docker.sock"
        self.options = ["--runtime", "docker", "--docker-url", self.url]
        self.pidfile = home / "docker.pid"
        command = ["dockerd", "--data-root", f"{home}/data", "--exec-root", f"{home}/exec", "--host", self.url]
        command += ["--pidfile", str(self.pidfile), "--bip", "172.30.255.1/24"]
        self._daemon = Daemon(command, home / "dockerd.log")

    def start(self) -> None:
        """Start it, with the image busybox in it."""
        self._daemon.start()
        wait_until(self._answers, "dockerd does not answer")
        subprocess.run(["scripts/busybox-image", "docker", self.url], check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self._daemon.terminate()

    def command(self, *arguments: str) -> str:
        """What ``docker`` prints."""
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _answers(self) -> bool:
        if not self._daemon.running:
            raise RuntimeError(f"dockerd ended: {self._daemon.log()}")
        done = subprocess.run(["docker", "--host", self.url, "version"], check=False, capture_output=True)
        return done.returncode == 0


@contextlib.contextmanager
def running_engine() -> Iterator[BridgedEngine]:
    """An engine while it is needed. Not below a long path: a socket's name has 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="bench"))
    engine = BridgedEngine(home)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(home, ignore_errors=True)


def started_containerd(home: Path) -> ContainerdEngine:
    """A containerd of its own below ``home``, with the images busybox and pause."""
    engine = ContainerdEngine(home)
    engine.start()
    for image in (busybox(), pause_archive()):
        engine.command("images", "import", "-", stdin=image)
    return engine


@contextlib.contextmanager
def running_containerd() -> Iterator[list[str]]:
    """A containerd of its own with the image busybox, while it is needed; the options that name it to Higgins."""
    home = Path(tempfile.mkdtemp(prefix="bench-cd"))
    engine = started_containerd(home)
    try:
        yield engine.options
        engine.close()
    finally:
        engine.kill()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def running_cloud(options: Sequence[str], *, spares: int = 0) -> Iterator[HigginsUp]:
    """Higgins on the engine that ``options`` name, while it is needed; all it made is removed."""
    data = Path(tempfile.mkdtemp(prefix="bench-cloud"))
    cloud = HigginsUp(data, options, spares=spares)
    cloud.start()
    try:
        yield cloud
    finally:
        cloud.end()
        shutil.rmtree(data)
