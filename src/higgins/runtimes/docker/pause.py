"""The image that sandboxes run: one static program that waits for ever, as an archive that every engine loads. Pure."""

import hashlib
import io
import json
import tarfile

#: The kernel's name of a machine → the OCI image specification's, where they differ.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar of files with these contents and modes, the same for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def archive(name: str, binary: bytes, machine: str) -> bytes:
    """The image as ``docker save`` writes it, with ``binary`` as ``/pause``; ``machine`` as uname(2) tells it."""
    layer = _tar({"pause": (binary, 0o755)})
    digest = hashlib.sha256(layer).hexdigest()
    image = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": ["/pause", "-P"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    return _tar(
        {
            f"{digest}.tar": (layer, 0o644),
            "config.json": (json.dumps(image).encode(), 0o644),
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
        }
    )
