"""A private containerd, which serves CRI."""

import asyncio
import contextlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from higgins.runtimes.base import Runtime
from higgins.runtimes.cri import open_cri
from higgins.runtimes.cri.driver import CriRuntime
from tests.engines import Daemon, need, wait_until
from tests.engines.gvisor import gvisor
from tests.engines.images import BUSYBOX, archive
from tests.engines.releases import path_with, programs_of

USER_IDS = "1000000:6553600"
PAUSE = "localhost/pause:latest"
CNI_PLUGINS = Path("/usr/lib/cni")

#: As an operator sets it, but for paths of its own and what a machine without CAP_SYS_RESOURCE needs.
CONFIG = """\
version = 2
root = "{root}/root"
state = "{root}/state"
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{root}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""

#: A class whose runtime has no shim of its own.
GVISOR = """\
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
      BinaryName = "{program}"
      Root = "{root}/runsc-state"
"""


def documented_network() -> str:
    """The one snippet that Higgins needs from an operator, out of the page that tells them so."""
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    return page.split("```json\n", 1)[1].split("```", 1)[0]


def pause_archive() -> bytes:
    """An image of the process that holds a sandbox's namespaces."""
    binary = Path(shutil.which("catatonit") or "").read_bytes()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
    return archive(PAUSE, out.getvalue(), {"Entrypoint": ["/pause", "-P"]})


class ContainerdEngine:
    """containerd below one directory. Its containers live on under their shims when it is killed."""

    name = "containerd"
    image = BUSYBOX
    cannot: Mapping[str, str] = {}

    def __init__(self, root: Path, programs: Path | None = None) -> None:
        """``programs`` is a directory of those of another release, see ``releases``."""
        self.root = root
        self._environment = path_with(programs)
        self.endpoint = f"unix://{root}/containerd.sock"
        self.options = ["--runtime", "cri", "--cri-endpoint", self.endpoint]
        self._ctr = ["ctr", "--address", f"{root}/containerd.sock", "--namespace", "k8s.io"]
        (root / "net.d").mkdir()
        (root / "net.d" / "10-higgins.conflist").write_text(documented_network())
        config = root / "config.toml"
        text = CONFIG.format(root=root, pause=PAUSE, plugins=CNI_PLUGINS)
        if shutil.which("runsc") is not None:
            text += GVISOR.format(root=root, program=gvisor(root))
        config.write_text(text)
        self._daemon = Daemon(["containerd", "--config", str(config)], root / "containerd.log", self._environment)

    async def open(self) -> Runtime:
        return open_cri(self.endpoint, logs=self.root / "logs")

    def command(self, *arguments: str, stdin: bytes = b"") -> str:
        """What containerd's own client prints, in the namespace of CRI."""
        ran = subprocess.run(
            [*self._ctr, *arguments], check=True, capture_output=True, input=stdin, env=self._environment
        )
        return ran.stdout.decode()

    def _serves_cri(self) -> bool:
        """Not only that the service is there: for a moment after the start it is, and refuses everything."""
        if not self._daemon.running:
            raise RuntimeError("containerd ended")
        with grpc.insecure_channel(self.endpoint) as channel:
            runtime: Any = api_pb2_grpc.RuntimeServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=5)
            except grpc.RpcError:
                return False
        return True

    def start(self) -> None:
        try:
            self._daemon.start()
            wait_until(self._serves_cri, "containerd does not serve CRI")
        except (RuntimeError, TimeoutError) as error:
            pytest.fail(f"{error}; its log:\n{self.log()}")

    def kill(self) -> None:
        self._daemon.kill()

    def remains(self) -> set[str]:
        snapshots = {line.split()[0] for line in self.command("snapshots", "ls").splitlines()[1:]}
        patterns = ("logs/*/*", "root/io.containerd.grpc.v1.cri/*/*", "state/io.containerd.runtime.v2.task/k8s.io/*")
        return snapshots | {str(path) for pattern in patterns for path in self.root.glob(pattern)}

    async def _empty(self) -> None:
        runtime = await self.open()
        for sandbox in (await runtime.list()).sandboxes:
            await runtime.remove_sandbox(sandbox.uuid)
        await runtime.close()

    def close(self) -> None:
        """Remove what it runs, which leaves no control group and no socket of a shim, then end it."""
        asyncio.run(self._empty())
        self._daemon.terminate()

    def log(self) -> str:
        return self._daemon.log()


class UsersEngine(ContainerdEngine):
    """containerd with a user namespace for every sandbox."""

    name = "containerd-users"
    cannot: Mapping[str, str] = {
        "commit": "no image can be made of a container in a user namespace",
        "files of stopped containers": "those of a container in a user namespace can be reached while it runs",
    }

    def __init__(self, root: Path, programs: Path | None = None) -> None:
        super().__init__(root, programs)
        for directory in (root, root.parent):  # root of a container has to come through, who is nobody here
            directory.chmod(directory.stat().st_mode | 0o011)

    async def open(self) -> Runtime:
        return open_cri(self.endpoint, logs=self.root / "logs", user_ids=USER_IDS)


class PlainCriEngine(ContainerdEngine):
    """containerd, of which the driver asks nothing but what it may ask of any CRI engine.

    It stands for those that cannot be had here (CRI-O above all): what the driver needs of containerd's own API is
    refused with a sentence and not used unasked.
    """

    name = "plain-cri"
    cannot: Mapping[str, str] = {
        "commit": "CRI has no such call",
        "end of input": "the engine's websocket has no word for it",
        "files of stopped containers": "CRI tells no way to them",
        "files over a stop": "CRI cannot start a container again, and a new one has the image's",
        "kill": "CRI knows no signals",
        "load": "CRI takes images from registries alone",
        "limits of stopped containers": "CRI changes those of running ones alone",
        "names of one image": "CRI removes an image with all of its names",
        "pause": "CRI has no such call",
        "pids": "CRI has no such limit; the engine's own setting holds",
        "runtime classes": "CRI starts a class' kernel with the sandbox, before its network",
    }

    async def open(self) -> Runtime:
        driver = await super().open()
        assert isinstance(driver, CriRuntime)
        driver._client.is_containerd = _no  # type: ignore[method-assign]
        return driver


async def _no() -> bool:
    return False


@contextlib.contextmanager
def running_containerd(
    busybox: Path, programs: Path | None = None, kind: type[ContainerdEngine] = ContainerdEngine
) -> Iterator[ContainerdEngine]:
    """An engine with busybox and the pause image loaded, which ends with all it runs."""
    need("runc", "catatonit")
    if not (CNI_PLUGINS / "loopback").exists():
        pytest.skip("the CNI plugins are not installed")
    # Not below pytest's directory: the path of a Unix socket has 108 bytes at most.
    root = Path(tempfile.mkdtemp(prefix="cd"))
    engine = kind(root, programs)
    engine.start()
    try:
        for image in (busybox.read_bytes(), pause_archive()):
            engine.command("images", "import", "-", stdin=image)
        yield engine
        engine.close()
    finally:
        engine.kill()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def containerd_engine(own_namespaces: None, busybox_archive: Path) -> Iterator[ContainerdEngine]:
    """One for the whole session."""
    need("containerd", "ctr")
    with running_containerd(busybox_archive) as engine:
        yield engine


@pytest.fixture(scope="session")
def containerd_trixie(own_namespaces: None, busybox_archive: Path) -> Iterator[ContainerdEngine]:
    """As ``containerd_engine``, of Debian 13."""
    with running_containerd(busybox_archive, programs_of("trixie")) as engine:
        yield engine


@pytest.fixture(scope="session")
def containerd_sid(own_namespaces: None, busybox_archive: Path) -> Iterator[ContainerdEngine]:
    """As ``containerd_engine``, of Debian's newest."""
    with running_containerd(busybox_archive, programs_of("sid")) as engine:
        yield engine


@pytest.fixture(scope="session")
def containerd_users(own_namespaces: None, busybox_archive: Path) -> Iterator[ContainerdEngine]:
    """As ``containerd_sid``, with user namespaces."""
    with running_containerd(busybox_archive, programs_of("sid"), UsersEngine) as engine:
        yield engine


@pytest.fixture(scope="session")
def plain_cri(own_namespaces: None, busybox_archive: Path) -> Iterator[ContainerdEngine]:
    """As ``containerd_sid``, with nothing asked of it but CRI."""
    with running_containerd(busybox_archive, programs_of("sid"), PlainCriEngine) as engine:
        yield engine
