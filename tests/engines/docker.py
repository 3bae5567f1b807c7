"""A private Docker Engine."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from higgins.runtimes.base import Runtime
from higgins.runtimes.docker import open_docker
from tests.engines import Daemon, need, reap, wait_until
from tests.engines.gvisor import gvisor
from tests.engines.images import BUSYBOX
from tests.engines.releases import path_with, programs_of


class DockerEngine:
    """dockerd and its containerd below one directory, without any network of its own."""

    name = "docker"
    image = BUSYBOX
    cannot: Mapping[str, str] = {}

    def __init__(
        self,
        root: Path,
        *more: str,
        live_restore: bool = True,
        within: Sequence[str] = (),
        programs: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """With ``live_restore``, as an operator should set it, containers outlive a restart of the engine.

        ``more`` are options of dockerd. ``within`` are the words that make a command run where the engine shall: in
        a network namespace, for instance. ``programs`` is a directory of those of another release, see ``releases``.
        """
        self._environment = {**(path_with(programs) or os.environ), **environment}
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
        self._daemon = Daemon([*command, *more], root / "dockerd.log", self._environment)

    async def open(self) -> Runtime:
        return open_docker(self.url)

    def command(self, *arguments: str) -> str:
        """What the engine's own client prints."""
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=self._environment).stdout

    def _answers(self) -> bool:
        if not self._daemon.running:
            raise RuntimeError("dockerd ended")
        command = ["docker", "--host", self.url, "version"]
        return subprocess.run(command, check=False, capture_output=True, env=self._environment).returncode == 0

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

    def remains(self) -> set[str]:
        patterns = (
            "data/containers/*",
            "data/overlay2/*",
            "data/containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots/*",
            "exec/containerd/daemon/io.containerd.runtime.v2.task/moby/*",
        )
        return {str(path) for pattern in patterns for path in self.root.glob(pattern)}

    def log(self) -> str:
        return self._daemon.log()


class StoreEngine(DockerEngine):
    """With what Docker 29 has by default: images in containerd's store, and no API older than 1.44."""

    cannot: Mapping[str, str] = {
        "digests when an image is loaded": "it looks at them when a container is made of it, and refuses that"
    }

    def __init__(self, root: Path, **options: Any) -> None:
        more = ("--feature=containerd-snapshotter=true", "--storage-driver=overlayfs")
        super().__init__(root, *more, environment={"DOCKER_MIN_API_VERSION": "1.44"}, **options)


@contextlib.contextmanager
def running_docker(
    busybox: Path, root: Path | None = None, kind: type[DockerEngine] = DockerEngine, **options: Any
) -> Iterator[DockerEngine]:
    """An engine with busybox loaded, which ends with all it runs; below a directory of its own unless told where.

    ``options`` are those of its ``kind``.
    """
    # Not below pytest's directory: the path of a Unix socket has 108 bytes at most.
    place = root or Path(tempfile.mkdtemp(prefix="dk"))
    engine = kind(place, **options)
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


@pytest.fixture(scope="session")
def docker_trixie(own_namespaces: None, busybox_archive: Path) -> Iterator[DockerEngine]:
    """As ``docker_engine``, of Debian 13."""
    with running_docker(busybox_archive, programs=programs_of("trixie")) as engine:
        yield engine


@pytest.fixture(scope="session")
def docker_sid(own_namespaces: None, busybox_archive: Path) -> Iterator[DockerEngine]:
    """As ``docker_engine``, of Debian's newest."""
    with running_docker(busybox_archive, programs=programs_of("sid")) as engine:
        yield engine


@pytest.fixture(scope="session")
def docker_store(own_namespaces: None, busybox_archive: Path) -> Iterator[DockerEngine]:
    """As ``docker_sid``, as ``StoreEngine`` has it."""
    with running_docker(busybox_archive, kind=StoreEngine, programs=programs_of("sid")) as engine:
        yield engine
