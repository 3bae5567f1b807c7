"""Packing and unpacking, where no container is needed to see it. That it stays inside, the contract suite shows."""

import io
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from higgins.runtimes.cri.confined_tar import Refused, go_mode, pack, path_stat, unpack


def packed(path: str) -> tarfile.TarFile:
    out = io.BytesIO()
    pack(path, out)
    out.seek(0)
    return tarfile.open(fileobj=out)


def test_modes_are_those_of_go() -> None:
    assert go_mode(stat.S_IFREG | 0o644) == 0o644
    assert go_mode(stat.S_IFDIR | 0o1777) == 1 << 31 | 1 << 20 | 0o777
    assert go_mode(stat.S_IFLNK | 0o777) == 1 << 27 | 0o777
    assert go_mode(stat.S_IFREG | 0o4755) == 1 << 23 | 0o755


def test_names_begin_with_the_last_part_of_the_path_or_with_a_dot(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("c")
    assert packed(f"{tmp_path}/a").getnames() == ["a", "a/b", "a/b/c"]
    assert packed(f"{tmp_path}/a/").getnames() == ["a", "a/b", "a/b/c"]
    assert packed(f"{tmp_path}/a/.").getnames() == [".", "./b", "./b/c"]


def test_hard_links_pipes_and_links_are_packed_as_what_they_are(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "a").write_bytes(b"content")
    (place / "b").hardlink_to(place / "a")
    (place / "c").symlink_to("/nowhere")
    os.mkfifo(place / "d")
    tar = packed(str(place))
    kinds = {member.name: member.type for member in tar.getmembers()}
    assert kinds == {
        "place": tarfile.DIRTYPE,
        "place/a": tarfile.REGTYPE,
        "place/b": tarfile.LNKTYPE,
        "place/c": tarfile.SYMTYPE,
        "place/d": tarfile.FIFOTYPE,
    }
    assert tar.getmember("place/b").linkname == "place/a"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_unpacked_as_well(tmp_path: Path, mode: str) -> None:
    (tmp_path / "source").write_bytes(b"content" * 1000)
    made = tmp_path / "made.tar"
    with tarfile.open(made, mode) as tar:  # type: ignore[call-overload]
        tar.add(tmp_path / "source", "target")
    (tmp_path / "place").mkdir()
    with made.open("rb") as data:
        unpack(str(tmp_path / "place"), data)
    assert (tmp_path / "place" / "target").read_bytes() == b"content" * 1000


def test_a_file_takes_the_place_of_a_link_and_not_of_what_it_points_at(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "word").symlink_to("other")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("word")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"new"))
    out.seek(0)
    unpack(str(tmp_path), out)
    assert (tmp_path / "other").read_text() == "other"
    assert (tmp_path / "word").read_text() == "new"


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, kind in (("file", "not-a-directory"), ("nothing", "not-found")):
        with pytest.raises(Refused) as refused:
            unpack(str(tmp_path / path), io.BytesIO())
        assert refused.value.kind == kind


def test_a_link_is_described_with_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    told = path_stat(f"{tmp_path}/link")
    assert (told["name"], told["link_target"]) == ("link", f"{tmp_path}/target")
    assert path_stat("/")["name"] == "/"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_would_fill_memory_is_not_read(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 1 << 30
    with pytest.raises(Refused, match="too long"):
        unpack(str(tmp_path), io.BytesIO(header.tobuf(tarfile.USTAR_FORMAT)))


def test_once_confined_the_program_has_the_capabilities_of_files_alone(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root has capabilities to drop")
    script = "from higgins.runtimes.cri.confined_tar import confine; confine(); print(open('/proc/self/status').read())"
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    fields = dict(line.split(":", 1) for line in told.strip().splitlines())
    capabilities = {name: int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")}
    assert not any(held & ~0b11011 for held in capabilities.values())
    assert fields["NoNewPrivs"].strip() == "1"
