"""A private Podman, through its Docker-compatible socket."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from higgins.runtimes.base import Runtime
from higgins.runtimes.docker import open_docker
from tests.engines import Daemon, need, wait_until
from tests.engines.images import BUSYBOX

#: Podman would raise limits that this process may not raise (soft and hard are equal because the compatible API of 4.3
#: mixes them up), and journald need not be there.
CONFIG = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

#: Docker trusts registries on the loopback by itself.
REGISTRIES = """
[[registry]]
location = "127.0.0.1"
insecure = true
[[registry]]
prefix = "*.loopback"
location = "127.0.0.1"
insecure = true
"""


class PodmanEngine:
    """Podman's service below one directory."""

    name = "podman"
    image = BUSYBOX
    #: Of 4.3, the oldest that is tried; what a later one can do comes off this list.
    cannot: Mapping[str, str] = {
        "attach again": "it closes the container's input with the first who leaves",
        "command faults": "it does not tell a command that is missing from any other failure",
        "images that are missing": "it does not tell them from any other failed pull",
        "moments of log lines": "it tells whole seconds",
        "modes in archives": "it drops them",
        "oom": "it does not see it",
        "runtime classes": "its compatible API takes no runtime for one container",
        "stats": "it sends one sample where two are needed",
        "top": "it runs the container's own ps",
        "volumes of stopped containers": "it mounts none of them to copy into",
        "update": "its compatible API has none",
    }

    def __init__(self, root: Path) -> None:
        self._root = root
        self.url = f"unix://{root}/podman.sock"
        self.options = ["--runtime", "podman", "--podman-url", self.url]
        (root / "containers.conf").write_text(CONFIG)
        (root / "registries.conf").write_text(REGISTRIES)
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": f"{root}/containers.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{root}/registries.conf",
        }
        self._options = ["--root", f"{root}/data", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp"]
        command = ["podman", *self._options, "system", "service", "--time", "0", self.url]
        # What watches its containers writes files into the directory that it was started in.
        self._daemon = Daemon(command, root / "podman.log", self._environment, place=root)

    async def open(self) -> Runtime:
        return open_docker(self.url)

    def command(self, *arguments: str) -> str:
        """What the engine's own client prints."""
        command = ["podman", *self._options, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=self._environment).stdout

    def _answers(self) -> bool:
        if not self._daemon.running:
            raise RuntimeError("podman ended")
        remote = ["podman", "--remote", "--url", self.url, "version"]
        return self._runs(remote)

    def _runs(self, command: list[str]) -> bool:
        return subprocess.run(command, check=False, capture_output=True, env=self._environment).returncode == 0

    def start(self) -> None:
        try:
            self._daemon.start()
            wait_until(self._answers, "podman does not answer")
        except (RuntimeError, TimeoutError) as error:
            pytest.fail(f"{error}; its log:\n{self.log()}")

    def kill(self) -> None:
        self._daemon.kill()

    def close(self) -> None:
        """Remove what it runs, then end it."""
        remove = ["podman", *self._options, "rm", "--all", "--force", "--time", "0"]
        # It may fail for a container that ends just then.
        wait_until(lambda: self._runs(remove), "podman does not remove its containers")
        self._daemon.terminate()

    def remains(self) -> set[str]:
        patterns = ("data/overlay-containers/*", "data/overlay/*", "run/overlay-containers/*")
        return {str(path) for pattern in patterns for path in self._root.glob(pattern)}

    def log(self) -> str:
        return self._daemon.log()


@pytest.fixture(scope="session")
def podman_engine(own_namespaces: None, busybox_archive: Path) -> Iterator[PodmanEngine]:
    """One for the whole session, with busybox loaded."""
    need("podman", "conmon", "runc", "catatonit")
    root = Path(tempfile.mkdtemp(prefix="pm"))
    engine = PodmanEngine(root)
    engine.start()
    try:
        engine.command("load", "--input", str(busybox_archive))
        yield engine
        engine.close()
    finally:
        engine.kill()
        shutil.rmtree(root, ignore_errors=True)
