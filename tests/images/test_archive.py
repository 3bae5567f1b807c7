"""Archives of docker save, good ones and those that an enemy would make."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from higgins.images.archive import Bounds, repack
from higgins.images.base import ImageRefused

NAME = "glance.invalid/i:d"


def tar_of(members: Iterable[tuple[str, bytes | str]]) -> bytes:
    """A tar; text instead of bytes makes a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


LAYERS = [tar_of([("etc/motd", b"hello")]), tar_of([("bin/sh", b"x" * 1000), ("bin/ls", b"y" * 1000)])]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parts(layers: list[bytes] = LAYERS, packed: Callable[[bytes], bytes] = bytes) -> dict[str, bytes | str]:
    """The members of an archive as docker save writes it, under names that matter to others."""
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{digest(layer)}" for layer in layers]}}).encode()
    files = {f"{number}/layer.tar": packed(layer) for number, layer in enumerate(layers)}
    manifest = [{"Config": f"{digest(config)}.json", "RepoTags": ["busybox:latest"], "Layers": list(files)}]
    return {
        **files,
        f"{digest(config)}.json": config,
        "manifest.json": json.dumps(manifest).encode(),
        "repositories": b'{"busybox": {"latest": "0"}}',
    }


def changed(**members: Any) -> dict[str, bytes | str]:
    """Good parts, with some changed (``manifest`` for manifest.json)."""
    return parts() | {f"{name}.json": json.dumps(value).encode() for name, value in members.items()}


def manifest(**fields: Any) -> list[dict[str, Any]]:
    good = json.loads(parts()["manifest.json"])
    return [good[0] | fields]


class Packer:
    """Repacks in a directory of its own, and looks that nothing stays behind of what is refused."""

    def __init__(self, directory: Path) -> None:
        self.source, self.target = directory / "source", directory / "target"

    def __call__(self, data: bytes, **bounds: int) -> dict[str, bytes]:
        self.source.write_bytes(data)
        repack(self.source, self.target, NAME, Bounds(**bounds))
        with tarfile.open(self.target) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]

    def refused(self, data: bytes, **bounds: int) -> str:
        with pytest.raises(ImageRefused) as refused:
            self(data, **bounds)
        assert [path.name for path in self.source.parent.iterdir()] == ["source"]
        return str(refused.value)


@pytest.fixture
def pack(tmp_path: Path) -> Packer:
    return Packer(tmp_path)


@pytest.mark.parametrize("outer", [bytes, gzip.compress])
@pytest.mark.parametrize("inner", [bytes, gzip.compress])
def test_the_engine_gets_the_same_image_under_our_name_alone(
    pack: Packer, outer: Callable[[bytes], bytes], inner: Callable[[bytes], bytes]
) -> None:
    members = pack(outer(tar_of(parts(packed=inner).items())))
    (entry,) = json.loads(members["manifest.json"])
    assert entry["RepoTags"] == [NAME]
    assert b"busybox" not in b"".join(members.values())
    layers = [members[name] for name in entry["Layers"]]
    assert [gzip.decompress(layer) if inner is gzip.compress else layer for layer in layers] == LAYERS
    assert digest(members[entry["Config"]]) == entry["Config"].removesuffix(".json")
    assert set(members) == {"manifest.json", entry["Config"], *entry["Layers"]}


def test_a_layer_that_is_there_once_may_be_used_twice(pack: Packer) -> None:
    shared = parts([LAYERS[0], LAYERS[0]])
    shared["1/layer.tar"] = "../0/layer.tar"
    members = pack(tar_of(shared.items()))
    (entry,) = json.loads(members["manifest.json"])
    assert len(entry["Layers"]) == 2 and len(set(entry["Layers"])) == 1


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (changed(manifest=manifest(Layers=["1/layer.tar", "0/layer.tar"])), "digest"),
        (changed(manifest=manifest(Layers=["0/layer.tar"])), "layers are not those"),
        (changed(manifest=manifest(Layers=["0/layer.tar", "2/layer.tar"])), "missing"),
        (changed(manifest=manifest(Layers=["0/layer.tar", ["1"]])), "missing"),
        (changed(manifest=manifest(Config="../../etc/shadow")), "missing"),
        (changed(manifest=manifest() * 2), "one image"),
        (changed(manifest={}), "one image"),
        (changed(manifest=[1]), "one image"),
        (changed(manifest=manifest(Config="other.json"), other={"rootfs": {"diff_ids": ["sha256:0"]}}), "no layers"),
        (changed(manifest=manifest(Config="other.json"), other=[]), "no layers"),
        (changed(manifest=manifest(Config=f"{'0' * 64}.json"), **{"0" * 64: {}}), "configuration has not the digest"),
        (parts() | {"manifest.json": b"{"}, "cannot be read"),
        (parts() | {"manifest.json": b"[" * 100_000}, "cannot be read"),
        (parts() | {"manifest.json": "/etc/passwd"}, "missing"),
        (parts() | {"0/layer.tar": "1/../../../outside"}, "missing"),
        (parts() | {"../outside": b""}, "leads out"),
        (parts() | {"/outside": b""}, "leads out"),
        (parts() | {"./manifest.json": b"[]"}, "twice"),
        (parts([b"no tar"]), "docker save"),
        ({}, "missing"),
    ],
)
def test_what_is_not_as_it_says_is_refused(pack: Packer, members: dict[str, bytes | str], why: str) -> None:
    assert why in pack.refused(tar_of(members.items()))


def test_devices_and_hard_links_are_refused(pack: Packer) -> None:
    for kind in (tarfile.CHRTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        out = io.BytesIO(tar_of(parts().items()))
        with tarfile.open(fileobj=out, mode="a") as tar:
            entry = tarfile.TarInfo("device")
            entry.type, entry.linkname = kind, "manifest.json"
            tar.addfile(entry)
        assert "neither a file nor a link" in pack.refused(out.getvalue())


def test_bombs_are_found_before_they_go_off(pack: Packer) -> None:
    zeros = tar_of([("zeros", bytes(10_000_000))])
    for data in (tar_of(parts([zeros], gzip.compress).items()), gzip.compress(tar_of(parts([zeros]).items()))):
        assert len(data) < 100_000
        assert "unpacks to more" in pack.refused(data, unpacked=1_000_000)
    many = tar_of([(str(number), b"") for number in range(100)])
    assert "unpacks to more" in pack.refused(tar_of(parts([many]).items()), files=99)
    assert "layers" in pack.refused(tar_of(parts().items()), layers=1)
    assert "too many members" in pack.refused(tar_of(parts().items()), members=3)
    assert "too large" in pack.refused(tar_of(parts().items()), document=10)


def test_a_layer_that_claims_more_than_it_holds_is_refused(pack: Packer) -> None:
    entry = tarfile.TarInfo("huge")
    entry.size = 2**40
    assert "refused" in pack.refused(tar_of(parts([entry.tobuf()]).items()))


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b", b"\x1f\x8bnot gzip at all", b"x" * 10_000, gzip.compress(b"x")[:-4]]
)
def test_rubbish_is_refused(pack: Packer, data: bytes) -> None:
    pack.refused(data)


def test_a_cut_off_archive_is_refused(pack: Packer) -> None:
    whole = tar_of(parts().items())
    for length in range(0, whole.index(b'[{"Config"'), 700):
        try:
            pack(whole[:length])
        except ImageRefused:
            continue
        pytest.fail(f"the first {length} bytes pass for the whole")
