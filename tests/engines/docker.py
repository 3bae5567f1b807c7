"""A private Docker Engine."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from higgins.runtimes.base import Runtime
from higgins.runtimes.docker import open_docker
from tests.engines import Daemon, need, reap, wait_until
from tests.engines.gvisor import gvisor
from tests.engines.images import BUSYBOX


class DockerEngine:
    """dockerd and its containerd below one directory, without any network of its own."""

    name = "docker"
    image = BUSYBOX
    cannot: Mapping[str, str] = {}
    differs: Mapping[str, str] = {
        "a device node in an archive that is put in": "is made, and cannot be opened",
        "a `disk` limit": "where the storage driver has quotas",
        "a `privileged` container": "in any sandbox",
        "a user namespace": "one for all, with `userns-remap`",
        "killed for want of memory": "told by the engine",
        "`search`": "as the engine does",
    }

    def __init__(self, root: Path, *more: str, live_restore: bool = True, within: Sequence[str] = ()) -> None:
        """With ``live_restore``, as an operator should set it, containers outlive a restart of the engine.

        ``more`` are options of dockerd. ``within`` are the words that make a command run where the engine shall: in
        a network namespace, for instance.
        """
        self.url = f"unix://{root}/docker.sock"
        self.options = ["--runtime", "docker", "--docker-url", self.url]
        self.root = root
        self._pidfile = root / "docker.pid"
        self._containerd = root / "exec" / "containerd" / "containerd.pid"
        command = [*within, "dockerd", "--data-root", f"{root}/data", "--exec-root", f"{root}/exec"]
        command += ["--pidfile", str(self._pidfile), "--host", self.url]
        command += ["--bridge=none", "--iptables=false", "--ip-forward=false", "--storage-driver=overlay2"]
        command += ["--live-restore"] if live_restore else []
        if shutil.which("runsc") is not None:
            command += ["--add-runtime", f"runsc={gvisor(root)}"]
        self._daemon = Daemon([*command, *more], root / "dockerd.log")

    async def open(self) -> Runtime:
        return open_docker(self.url)

    def command(self, *arguments: str) -> str:
        """What the engine's own client prints."""
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _answers(self) -> bool:
        if not self._daemon.running:
            raise RuntimeError("dockerd ended")
        return (
            subprocess.run(["docker", "--host", self.url, "version"], check=False, capture_output=True).returncode == 0
        )

    def start(self) -> None:
        try:
            self._daemon.start()
            wait_until(self._answers, "dockerd does not answer")
        except (RuntimeError, TimeoutError) as error:
            pytest.fail(f"{error}; its log:\n{self.log()}")

    def kill(self) -> None:
        self._daemon.kill()
        if self._containerd.exists():  # it dies with dockerd
            reap(int(self._containerd.read_text()))
            self._containerd.unlink()
        # A killed engine leaves the file, and its pid may belong to another process by now.
        self._pidfile.unlink(missing_ok=True)

    def leave_half_started(self, container: str) -> None:
        """As if the engine had been killed while it started the container (its whole id): its place is taken."""
        tasks = self.root / "exec" / "containerd" / "daemon" / "io.containerd.runtime.v2.task" / "moby"
        tasks.mkdir(parents=True, exist_ok=True)
        (tasks / container).mkdir()

    def close(self) -> None:
        """Remove what it runs, then end it."""
        containers = self.command("ps", "--all", "--quiet").split()
        if containers:
            self.command("rm", "--force", "--volumes", *containers)
        self._daemon.terminate()

    def directories(self) -> set[str]:
        """What it keeps for containers: their logs, layers and state."""
        patterns = (
            "data/containers/*",
            "data/overlay2/*",
            "exec/containerd/daemon/io.containerd.runtime.v2.task/moby/*",
        )
        return {str(path) for pattern in patterns for path in self.root.glob(pattern)}

    def log(self) -> str:
        return self._daemon.log()


@contextlib.contextmanager
def running_docker(busybox: Path, root: Path | None = None, *, live_restore: bool = True) -> Iterator[DockerEngine]:
    """An engine with busybox loaded, which ends with all it runs; below a directory of its own unless told where."""
    # Not below pytest's directory: the path of a Unix socket has 108 bytes at most.
    place = root or Path(tempfile.mkdtemp(prefix="dk"))
    engine = DockerEngine(place, live_restore=live_restore)
    engine.start()
    try:
        engine.command("load", "--input", str(busybox))
        yield engine
        engine.close()
    finally:
        engine.kill()
        if root is None:
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def docker_engine(own_namespaces: None, busybox_archive: Path) -> Iterator[DockerEngine]:
    """One for the whole session, with busybox loaded."""
    need("dockerd", "docker", "runc", "catatonit")
    with running_docker(busybox_archive) as engine:
        yield engine
