"""Archives of docker save and OCI layouts, good ones and those that an enemy would make."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from higgins.images.archive import Bounds, take_apart
from higgins.images.base import ImageFiles, Parts
from higgins.images.packing import packed
from higgins.model.errors import ImageRefused


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


def layout(
    layers: list[bytes] = LAYERS, packed: Callable[[bytes], bytes] = bytes, **more: Any
) -> dict[str, bytes | str]:
    """The members of an OCI layout; ``more`` is said of its manifest in the index."""
    members: dict[str, bytes | str] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(data: bytes) -> dict[str, Any]:
        members[f"blobs/sha256/{digest(data)}"] = data
        return {"digest": f"sha256:{digest(data)}", "size": len(data)}

    config = blob(json.dumps({"rootfs": {"diff_ids": [f"sha256:{digest(layer)}" for layer in layers]}}).encode())
    manifest = {"schemaVersion": 2, "config": config, "layers": [blob(packed(layer)) for layer in layers]}
    members["index.json"] = json.dumps({"manifests": [blob(json.dumps(manifest).encode()) | more]}).encode()
    return members


def spoilt_layout(what: str) -> dict[str, bytes | str]:
    """A layout in which a blob is another than its name says."""
    marks = {"config": b"diff_ids", "manifest": b"schemaVersion", "layer": b"hello"}
    return {
        name: data + b" " if name.startswith("blobs/") and isinstance(data, bytes) and marks[what] in data else data
        for name, data in layout().items()
    }


def changed(**members: Any) -> dict[str, bytes | str]:
    """Good parts, with some changed (``manifest`` for manifest.json)."""
    return parts() | {f"{name}.json": json.dumps(value).encode() for name, value in members.items()}


def manifest(**fields: Any) -> list[dict[str, Any]]:
    good = json.loads(parts()["manifest.json"])
    return [good[0] | fields]


class Opener:
    """Takes archives apart in a directory of its own, and looks that nothing stays behind of what is refused."""

    def __init__(self, directory: Path) -> None:
        self.source, self.layers = directory / "source", directory / "layers"
        self.layers.mkdir()

    def __call__(self, data: bytes, **bounds: int) -> Parts:
        self.source.write_bytes(data)
        return take_apart(self.source, self.place, Bounds(**bounds))

    def place(self, digest: str) -> Path:
        return self.layers / digest

    def refused(self, data: bytes, **bounds: int) -> str:
        with pytest.raises(ImageRefused) as refused:
            self(data, **bounds)
        assert {path.name for path in self.source.parent.iterdir()} == {"source", "layers"}
        assert not [path for path in self.layers.iterdir() if ".new" in path.name]
        return str(refused.value)


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    return Opener(tmp_path)


@pytest.mark.parametrize("outer", [bytes, gzip.compress])
@pytest.mark.parametrize("inner", [bytes, gzip.compress])
def test_an_image_comes_apart_into_its_configuration_and_plain_layers(
    opened: Opener, outer: Callable[[bytes], bytes], inner: Callable[[bytes], bytes]
) -> None:
    members = parts(packed=inner)
    taken = opened(outer(tar_of(members.items())))
    assert members[f"{taken.id.removeprefix('sha256:')}.json"] == taken.config
    assert [layer.digest for layer in taken.layers] == [f"sha256:{digest(layer)}" for layer in LAYERS]
    assert [layer.size for layer in taken.layers] == [len(layer) for layer in LAYERS]
    assert [opened.place(layer.digest).read_bytes() for layer in taken.layers] == LAYERS


@pytest.mark.parametrize("inner", [bytes, gzip.compress])
def test_an_oci_layout_is_taken_as_well(opened: Opener, inner: Callable[[bytes], bytes]) -> None:
    taken = opened(tar_of(layout(packed=inner).items()))
    assert [opened.place(layer.digest).read_bytes() for layer in taken.layers] == LAYERS
    assert taken == opened(tar_of(parts().items()))


def test_of_a_layout_for_several_machines_the_one_for_these_is_taken(opened: Opener) -> None:
    for_others = layout(LAYERS[:1], platform={"os": "linux", "architecture": "s390x"})
    both = for_others | layout(platform={"os": "linux", "architecture": "amd64"})
    indexes = [json.loads(one["index.json"])["manifests"][0] for one in (for_others, both)]
    both["index.json"] = json.dumps({"manifests": indexes}).encode()
    if platform.machine() == "x86_64":
        assert len(opened(tar_of(both.items())).layers) == len(LAYERS)
    both["index.json"] = json.dumps({"manifests": indexes[:1] * 2}).encode()
    assert "for the machines of this cloud" in opened.refused(tar_of(both.items()))


def test_a_layer_that_is_there_once_may_be_used_twice(opened: Opener) -> None:
    shared = parts([LAYERS[0], LAYERS[0]])
    shared["1/layer.tar"] = "../0/layer.tar"
    taken = opened(tar_of(shared.items()))
    assert len(taken.layers) == 2 and len(set(taken.layers)) == 1


def test_to_know_a_layers_digest_is_not_enough_to_have_it(opened: Opener) -> None:
    opened(tar_of(parts().items()))
    assert "digest" in opened.refused(tar_of((parts() | {"0/layer.tar": LAYERS[1]}).items()))
    assert "missing" in opened.refused(tar_of(item for item in parts().items() if item[0] != "0/layer.tar"))


async def test_the_archive_that_an_engine_gets_has_our_name_alone(opened: Opener) -> None:
    taken = opened(tar_of(parts([LAYERS[0], LAYERS[1], LAYERS[0]]).items()))
    files = ImageFiles(parts=taken, paths=tuple(opened.place(layer.digest) for layer in taken.layers))
    data = b"".join([piece async for piece in packed(files, "glance.invalid/i:d")])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        (entry,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert entry["RepoTags"] == ["glance.invalid/i:d"] and b"busybox" not in data
    assert set(names) == {"manifest.json", entry["Config"], *entry["Layers"]} and len(names) == 4
    assert opened(data) == taken


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
        (parts(packed=lambda data: b"\x28\xb5\x2f\xfd" + data), "zstd"),
        ({}, "docker save"),
        ({"index.json": b"[]"}, "manifest"),
        ({"index.json": b'{"manifests": 1}'}, "index"),
        ({"index.json": b'{"manifests": [{"digest": "../../etc/passwd"}]}'}, "without its digest"),
        (spoilt_layout("config"), "digest that it is named by"),
        (spoilt_layout("manifest"), "digest that it is named by"),
        (spoilt_layout("layer"), "digest that its configuration names"),
    ],
)
def test_what_is_not_as_it_says_is_refused(opened: Opener, members: dict[str, bytes | str], why: str) -> None:
    assert why in opened.refused(tar_of(members.items()))


def test_devices_and_hard_links_are_refused(opened: Opener) -> None:
    for kind in (tarfile.CHRTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        out = io.BytesIO(tar_of(parts().items()))
        with tarfile.open(fileobj=out, mode="a") as tar:
            entry = tarfile.TarInfo("device")
            entry.type, entry.linkname = kind, "manifest.json"
            tar.addfile(entry)
        assert "neither a file nor a link" in opened.refused(out.getvalue())


def test_bombs_are_found_before_they_go_off(opened: Opener) -> None:
    zeros = tar_of([("zeros", bytes(10_000_000))])
    for data in (tar_of(parts([zeros], gzip.compress).items()), gzip.compress(tar_of(parts([zeros]).items()))):
        assert len(data) < 100_000
        assert "unpacks to more" in opened.refused(data, unpacked=1_000_000)
    many = tar_of([(str(number), b"") for number in range(100)])
    assert "unpacks to more" in opened.refused(tar_of(parts([many]).items()), files=99)
    assert "layers" in opened.refused(tar_of(parts().items()), layers=1)
    assert "too many members" in opened.refused(tar_of(parts().items()), members=3)
    assert "too large" in opened.refused(tar_of(parts().items()), document=10)


def pax(records: dict[str, str], name: str = "file") -> bytes:
    """A tar of a file with these attributes, whatever they are good for."""
    entry = tarfile.TarInfo(name)
    entry.pax_headers = records
    return entry.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def _numbers_backwards() -> bytes:
    """A header whose size is less than nothing, by the base-256 numbers of GNU."""
    header = bytearray(tarfile.TarInfo("backwards").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _header(kind: bytes, size: int = 0) -> bytes:
    entry = tarfile.TarInfo("file")
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "trap",
    [
        _header(tarfile.GNUTYPE_LONGNAME, 2 * 2**20) + bytes(2 * 2**20 + 1024),
        _header(tarfile.XHDTYPE, 2 * 2**20) + bytes(2 * 2**20 + 1024),
        _header(tarfile.GNUTYPE_SPARSE) + bytes(1024),
        _numbers_backwards() + bytes(1024),
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}) + b"9999999\n",
        pax({"size": "-1024"}),
        pax({"comment": "x"})[:1024] * 3000 + bytes(1024),
    ],
    ids=["name", "attributes", "sparse", "backwards", "sparse attributes", "backwards attributes", "nested"],
)
def test_headers_that_are_traps_are_refused(opened: Opener, trap: bytes) -> None:
    for data in (tar_of(parts([trap]).items()), trap):
        assert "refused" in opened.refused(data)


def test_a_layer_that_claims_more_than_it_holds_is_refused(opened: Opener) -> None:
    entry = tarfile.TarInfo("huge")
    entry.size = 2**40
    assert "refused" in opened.refused(tar_of(parts([entry.tobuf()]).items()))


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b", b"\x1f\x8bnot gzip at all", b"x" * 10_000, gzip.compress(b"x")[:-4]]
)
def test_rubbish_is_refused(opened: Opener, data: bytes) -> None:
    opened.refused(data)


def test_a_cut_off_archive_is_refused(opened: Opener) -> None:
    whole = tar_of(parts().items())
    for length in range(0, whole.index(b'[{"Config"'), 700):
        try:
            opened(whole[:length])
        except ImageRefused:
            continue
        pytest.fail(f"the first {length} bytes pass for the whole")
