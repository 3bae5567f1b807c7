"""A containerd of the tests' own: private root, state and socket, images imported from archives, no registry.

It lives in the namespaces that ``scripts/test`` makes, so that its shims, mounts and namespaces end with the run. A
test may ``kill`` it and ``start`` it again: containers live on under their shims, as they do for an operator.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PAUSE = "localhost/pause:latest"
BUSYBOX = "docker.io/library/busybox:latest"
APPLETS = (
    *("cat", "chmod", "cp", "date", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ip"),
    *("kill", "ln", "ls", "mkdir", "mknod", "mount", "nc", "ping", "printf", "ps", "pwd", "rm", "sed", "seq", "sh"),
    *("sleep", "stty", "tail", "tar", "test", "top", "touch", "tr", "true", "tty", "umount", "uname", "wc", "yes"),
)

CONFIG = """\
version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{home}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{home}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{home}/certs.d"
"""

#: The one snippet that Higgins needs from an operator; ``docs/engines.md`` says why it looks like this.
CNI = {
    "cniVersion": "0.4.0",
    "name": "higgins",
    "plugins": [
        {
            "type": "loopback",
            "prevResult": {
                "cniVersion": "0.4.0",
                "interfaces": [{"name": "eth0", "sandbox": "higgins"}],
                "ips": [{"version": "4", "interface": 0, "address": "127.0.0.2/8"}],
                "dns": {},
            },
        }
    ],
}


class Containerd:
    """One private containerd. ``endpoint`` is what ``open_cri`` takes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.endpoint = f"unix://{home}/containerd.sock"
        self.process: subprocess.Popen[bytes] | None = None
        (home / "net.d").mkdir(parents=True)
        (home / "net.d" / "10-higgins.conflist").write_text(json.dumps(CNI))
        (home / "config.toml").write_text(CONFIG.format(home=home, pause=PAUSE))

    def start(self) -> None:
        """Start the daemon and wait until it serves CRI."""
        with (self.home / "containerd.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["containerd", "--config", str(self.home / "config.toml")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while not self._serves_cri():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not come up: {self.log()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the daemon as a crash would; its containers stay."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def load(self, archive: bytes) -> None:
        """Import a Docker image archive."""
        self.ctr("images", "import", "-", stdin=archive)

    def ctr(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run ``ctr`` in the namespace of CRI; its output."""
        done = subprocess.run(
            ["ctr", "--address", str(self.home / "containerd.sock"), "--namespace", "k8s.io", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def log(self) -> str:
        return (self.home / "containerd.log").read_text(errors="replace")

    def _serves_cri(self) -> bool:
        done = subprocess.run(
            ["ctr", "--address", str(self.home / "containerd.sock"), "plugins", "ls", "id==cri"], capture_output=True
        )
        return done.returncode == 0 and b" ok" in done.stdout


def image_archive(name: str, root: bytes, config: dict[str, object]) -> bytes:
    """A Docker image archive of one layer, ``root`` being its tar."""
    digest = hashlib.sha256(root).hexdigest()
    image = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(image).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in ((f"{digest}/layer.tar", root), (config_name, image), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def busybox_archive(name: str = BUSYBOX) -> bytes:
    """Busybox with links for its applets, and the directories that a root needs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("home", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        _add_file(archive, "bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
        _add_file(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        _add_file(archive, "etc/group", b"root:x:0:\n", 0o644)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return image_archive(name, out.getvalue(), {"Cmd": ["sh"], "Env": [path]})


def pause_archive(name: str = PAUSE) -> bytes:
    """The process that holds a sandbox's namespaces."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        _add_file(archive, "pause", Path("/usr/bin/catatonit").read_bytes(), 0o755)
    return image_archive(name, out.getvalue(), {"Entrypoint": ["/pause", "-P"]})


def _add_file(archive: tarfile.TarFile, path: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


@pytest.fixture(scope="session")
def containerd(own_namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """A containerd with the busybox and pause images. Skipped where the programs are not installed."""
    for program in ("containerd", "ctr", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    for path in ("/bin/busybox", "/usr/bin/catatonit", "/usr/lib/cni/loopback"):
        if not os.access(path, os.X_OK):
            pytest.skip(f"{path} is not installed")
    engine = Containerd(tmp_path_factory.mktemp("containerd"))
    engine.start()
    engine.load(busybox_archive())
    engine.load(pause_archive())
    yield engine
    if engine.process is not None:
        engine.process.terminate()
        engine.process.wait()
