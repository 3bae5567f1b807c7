"""Copying in and out, and staying inside while doing it."""

import io
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from higgins.model.errors import EngineError, EngineUnavailable, PathNotFound
from higgins.runtimes.base import PathStat, Runtime
from tests.contract.workloads import Workloads, sh

pytestmark = pytest.mark.needs("archive")


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


async def pieces(data: bytes, size: int = 8192) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def fetch(runtime: Runtime, uuid: str, path: str) -> tuple[PathStat, tarfile.TarFile]:
    async with runtime.get_archive(uuid, path) as (stat, data):
        return stat, tarfile.open(fileobj=io.BytesIO(b"".join([piece async for piece in data])))


@pytest.fixture
async def place(runtime: Runtime, box: str) -> str:
    """A new directory in the shared container."""
    path = f"/tmp/{uuid4()}"
    await sh(runtime, box, f"mkdir {path}")
    return path


async def test_a_file_comes_out_with_its_content_and_description(runtime: Runtime, box: str, place: str) -> None:
    await sh(runtime, box, f"printf content > {place}/file; chmod 640 {place}/file")
    stat, tar = await fetch(runtime, box, f"{place}/file")
    assert (stat.name, stat.size, stat.mode & 0o777, stat.link_target) == ("file", 7, 0o640, "")
    assert [member.name for member in tar.getmembers()] == ["file"]
    found = tar.extractfile("file")
    assert found is not None
    assert found.read() == b"content"


async def test_a_directory_comes_out_with_links_and_modes(runtime: Runtime, box: str, place: str) -> None:
    await sh(runtime, box, f"cd {place}; mkdir -m 711 sub; touch sub/run; chmod 755 sub/run; ln -s sub/run link")
    stat, tar = await fetch(runtime, box, place)
    name = place.rpartition("/")[2]
    assert stat.mode & (1 << 31)  # os.ModeDir of Go
    assert tar.getmember(f"{name}/sub").mode & 0o777 == 0o711
    assert tar.getmember(f"{name}/sub/run").mode & 0o777 == 0o755
    assert tar.getmember(f"{name}/link").linkname == "sub/run"


async def test_a_link_is_described_as_one(runtime: Runtime, box: str, place: str) -> None:
    await sh(runtime, box, f"ln -s /etc/passwd {place}/link")
    stat, _ = await fetch(runtime, box, f"{place}/link")
    assert stat.mode & (1 << 27)  # os.ModeSymlink of Go
    assert stat.link_target == "/etc/passwd"


@pytest.mark.needs("modes in archives")
async def test_what_is_put_in_comes_out(runtime: Runtime, box: str, place: str) -> None:
    data = tar_of(
        (entry("sub", tarfile.DIRTYPE, mode=0o750), b""),
        (entry("sub/run", mode=0o755), b"#!/bin/sh\necho ran\n"),
        (entry("link", tarfile.SYMTYPE, "sub/run"), b""),
        (entry("hard", tarfile.LNKTYPE, "sub/run", mode=0o755), b""),
    )
    await runtime.put_archive(box, place, pieces(data))
    assert await sh(runtime, box, f"{place}/link") == "ran\n"
    assert await sh(runtime, box, f"stat -c '%a %h' {place}/sub {place}/hard") == "750 2\n755 2\n"
    _, tar = await fetch(runtime, box, f"{place}/link")
    assert tar.getmembers()[0].issym()


async def test_a_large_file_passes_both_ways_unchanged(runtime: Runtime, box: str, place: str) -> None:
    content = os.urandom(1 << 20) * 8
    await runtime.put_archive(box, place, pieces(tar_of((entry("large"), content)), 1 << 16))
    _, tar = await fetch(runtime, box, f"{place}/large")
    found = tar.extractfile("large")
    assert found is not None
    assert found.read() == content


async def test_a_path_that_does_not_exist_is_named(runtime: Runtime, box: str) -> None:
    with pytest.raises(PathNotFound, match="/no/such/path"):
        await fetch(runtime, box, "/no/such/path")
    with pytest.raises(PathNotFound, match="/no/such/path"):
        await runtime.put_archive(box, "/no/such/path", pieces(tar_of((entry("file"), b"x" * (8 << 20)))))


async def test_an_upload_that_breaks_off_fails_and_is_no_fault_of_the_engine(
    runtime: Runtime, box: str, place: str
) -> None:
    whole = tar_of((entry("file"), b"x" * (1 << 20)))

    async def broken() -> AsyncIterator[bytes]:
        yield whole[: 1 << 16]
        raise ConnectionResetError("the client left")

    with pytest.raises((ConnectionResetError, EngineError)) as failed:
        await runtime.put_archive(box, place, broken())
    assert not isinstance(failed.value, EngineUnavailable)
    await runtime.put_archive(box, place, pieces(whole))
    assert await sh(runtime, box, f"wc -c < {place}/file") == "1048576\n"


async def test_what_is_no_tar_is_refused(runtime: Runtime, box: str, place: str) -> None:
    with pytest.raises(EngineError):
        await runtime.put_archive(box, place, pieces(b"this is no tar" * 1000))
    assert await sh(runtime, box, f"ls {place}") == ""


@pytest.mark.needs("files of stopped containers")
async def test_files_go_in_and_out_of_a_container_that_does_not_run(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.create("cat", "/etc/word")
    await runtime.put_archive(uuid, "/etc", pieces(tar_of((entry("word"), b"early"))))
    _, tar = await fetch(runtime, uuid, "/etc/word")
    assert tar.getnames() == ["word"]


@pytest.mark.parametrize("name", ["../../../../../../../../{0}", "/{0}", "sub/../../../../../../../{0}"])
async def test_a_name_that_points_outside_writes_nothing_there(
    runtime: Runtime, box: str, place: str, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "written"
    data = tar_of((entry(name.format(str(target).lstrip("/"))), b"escaped"))
    with suppress(EngineError):  # refusing it is as good as keeping it inside
        await runtime.put_archive(box, place, pieces(data))
    assert not target.exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
async def test_a_link_that_points_outside_is_not_followed_there(
    runtime: Runtime, box: str, place: str, tmp_path: Path, kind: bytes
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host")
    data = tar_of(
        (entry("link", tarfile.SYMTYPE, str(tmp_path)), b""),
        (entry("link/written"), b"escaped"),
        (entry("copy", kind, str(secret)), b""),
    )
    with suppress(EngineError):  # refusing it is as good as keeping it inside
        await runtime.put_archive(box, place, pieces(data))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]
    assert secret.stat().st_nlink == 1
    assert "of the host" not in await sh(runtime, box, f"cat {place}/copy 2>/dev/null || true")


async def test_a_link_in_the_container_leads_no_copy_out_of_it(
    runtime: Runtime, box: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"of the host")
    await sh(runtime, box, f"ln -s {tmp_path} {place}/link")
    with pytest.raises(EngineError):
        await fetch(runtime, box, f"{place}/link/secret")
    with pytest.raises(EngineError):
        await runtime.put_archive(box, f"{place}/link", pieces(tar_of((entry("written"), b"escaped"))))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


async def test_a_device_that_is_put_in_opens_no_device(runtime: Runtime, box: str, place: str) -> None:
    disk = entry("disk", tarfile.BLKTYPE, mode=0o666)
    disk.devmajor, disk.devminor = 7, 0
    try:
        await runtime.put_archive(box, place, pieces(tar_of((disk, b""))))
    except EngineError:
        return  # refusing it is as good
    assert await sh(runtime, box, f"head -c 1 {place}/disk 2>&1 || true") != ""
    assert "not permitted" in await sh(runtime, box, f"cat {place}/disk 2>&1 || true")


async def test_no_file_of_the_container_is_run_outside_of_it(runtime: Runtime, workloads: Workloads) -> None:
    """Where the library of Python is on this host, the container has one that would be read for a traceback."""
    library = os.path.dirname(tarfile.__file__)
    intruder = b"with open('/intruded', 'w') as file:\n    file.write('intruded')\n"
    uuid = await workloads.start()
    await sh(runtime, uuid, f"mkdir -p {library}/encodings")
    planted = (
        (entry("tarfile.py"), b"# -*- coding: intruder -*-\n"),
        *((entry(name), intruder) for name in ("encodings/intruder.py", "traceback.py", "linecache.py", "pwd.py")),
    )
    await runtime.put_archive(uuid, library, pieces(tar_of(*planted)))
    failing = entry("file")
    failing.pax_headers = {"mtime": "nan"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(failing)
    with suppress(EngineError):  # engines differ in what they make of such a time
        await runtime.put_archive(uuid, "/tmp", pieces(out.getvalue()))
    assert await sh(runtime, uuid, "ls /intruded 2> /dev/null || true") == ""
