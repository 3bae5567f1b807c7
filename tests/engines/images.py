"""Images made on the spot, in the archive format of ``docker save``, which every engine loads without a registry."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.engines import need

BUSYBOX = "busybox:latest"


def _file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _directory(tar: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def busybox_layer(binary: bytes, applets: list[str]) -> bytes:
    """A root file system of busybox alone, with links for its applets."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "usr", "var"):
            _directory(tar, name)
        _directory(tar, "tmp", 0o1777)
        _file(tar, "bin/busybox", binary, 0o755)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        _file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        _file(tar, "etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    return out.getvalue()


def archive(name: str, layer: bytes, config: dict[str, Any]) -> bytes:
    """An image of one layer as ``docker save`` writes it; ``config`` is the OCI image's own ``config`` object."""
    digest = hashlib.sha256(layer).hexdigest()
    image = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "tests"}],
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _file(tar, f"{digest}.tar", layer)
        _file(tar, "config.json", image)
        _file(tar, "manifest.json", json.dumps(manifest).encode())
    return out.getvalue()


def busybox_config() -> dict[str, Any]:
    return {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"maker": "tests"}}


def busybox() -> bytes:
    """The image ``busybox:latest`` of this machine's static busybox, as an archive."""
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    binary = Path(shutil.which("busybox") or "").read_bytes()
    return archive(BUSYBOX, busybox_layer(binary, applets), busybox_config())


@pytest.fixture(scope="session")
def busybox_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image ``busybox:latest`` as a file."""
    need("busybox")
    path = tmp_path_factory.mktemp("images") / "busybox.tar"
    path.write_bytes(busybox())
    return path
