"""The local volumes, on real loop mounts."""

import asyncio
import base64
import errno
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from higgins.model.errors import EngineError, Invalid
from higgins.volumes.base import Volumes, VolumeWire
from higgins.volumes.local import open_local
from higgins.volumes.mounts import mount_points


@pytest.fixture
async def volumes(own_namespaces: None, root: Path) -> AsyncIterator[Volumes]:
    opened = open_local(root)
    yield opened
    for uuid in await opened.attached():
        await opened.detach(uuid)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "higgins"


def sized(size: int = 1) -> VolumeWire:
    return VolumeWire(uuid=str(uuid4()), size=size)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_data_is_kept_over_detach_and_attach(volumes: Volumes) -> None:
    wire = sized()
    path = Path(await volumes.attach(wire))
    (path / "kept").write_text("data")
    await volumes.detach(wire.uuid)
    assert not path.exists()
    assert Path(await volumes.attach(wire), "kept").read_text() == "data"


async def test_a_new_volume_is_empty_and_carries_no_privilege(volumes: Volumes) -> None:
    path = await volumes.attach(sized())
    assert os.listdir(path) == []
    flags = os.statvfs(path).f_flag
    assert flags & os.ST_NOSUID
    assert flags & 4, "nodev"


async def test_its_size_is_held_to(volumes: Volumes) -> None:
    path = Path(await volumes.attach(sized(1)))
    with (path / "big").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2**29)
        with pytest.raises(OSError) as caught:
            os.posix_fallocate(file.fileno(), 0, 2**30)
    assert caught.value.errno == errno.ENOSPC


async def test_a_volume_takes_only_the_space_that_is_used(volumes: Volumes, root: Path) -> None:
    wire = sized(64)
    await volumes.attach(wire)
    found = (root / "volumes" / f"{wire.uuid}.img").stat()
    assert found.st_size == 64 * 2**30
    assert found.st_blocks * 512 < 2**30


async def test_space_that_is_freed_inside_goes_back_to_the_host(volumes: Volumes, root: Path) -> None:
    wire = sized()
    path, image = Path(await volumes.attach(wire)), root / "volumes" / f"{wire.uuid}.img"
    (path / "big").write_bytes(os.urandom(2**25))
    os.sync()
    full = image.stat().st_blocks * 512
    (path / "big").unlink()
    deadline = time.monotonic() + 30
    while image.stat().st_blocks * 512 > full - 2**24:
        assert time.monotonic() < deadline, "still taken"
        os.sync()
        await asyncio.sleep(0.05)


async def test_attached_and_detached_twice_is_no_error(volumes: Volumes) -> None:
    wire = sized()
    assert await volumes.attach(wire) == await volumes.attach(wire)
    assert await volumes.attached() == [wire.uuid]
    await volumes.detach(wire.uuid)
    await volumes.detach(wire.uuid)
    assert await volumes.attached() == []
    assert await volumes.held() == [wire.uuid]


async def test_attached_by_many_at_once_it_is_one_mount(volumes: Volumes) -> None:
    wire = sized()
    paths = await asyncio.gather(*(volumes.attach(wire) for _ in range(5)))
    assert len(set(paths)) == 1
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    assert len([line for line in lines if wire.uuid in line]) == 1


async def test_deleted_is_gone_for_good(volumes: Volumes, root: Path) -> None:
    wire = sized()
    (Path(await volumes.attach(wire)) / "secret").write_text("data")
    await volumes.detach(wire.uuid)
    await volumes.delete(wire.uuid)
    await volumes.delete(wire.uuid)
    assert await volumes.held() == []
    assert [path for path in root.rglob("*") if wire.uuid in path.name] == []
    assert os.listdir(await volumes.attach(wire)) == []


async def test_nothing_is_deleted_while_attached(volumes: Volumes) -> None:
    wire = sized()
    path = Path(await volumes.attach(wire))
    (path / "kept").write_text("data")
    with pytest.raises(EngineError, match="cannot be deleted while it is attached"):
        await volumes.delete(wire.uuid)
    assert (path / "kept").read_text() == "data"


async def test_a_volume_in_use_is_not_detached(volumes: Volumes) -> None:
    wire = sized()
    path = Path(await volumes.attach(wire))
    with (path / "open").open("w"), pytest.raises(EngineError, match="is still in use on its host"):
        await volumes.detach(wire.uuid)
    assert await volumes.attached() == [wire.uuid]
    await volumes.detach(wire.uuid)


@pytest.mark.parametrize("content", [b"something else entirely" * 1000, b"\0" * 4096])
async def test_a_file_that_bears_a_volume_s_name_is_never_formatted(
    volumes: Volumes, root: Path, content: bytes
) -> None:
    wire = sized()
    image = root / "volumes" / f"{wire.uuid}.img"
    image.write_bytes(content)
    with pytest.raises(EngineError, match=f"Volume {wire.uuid} cannot be attached"):
        await volumes.attach(wire)
    assert image.read_bytes() == content
    assert await volumes.attached() == []


async def test_an_image_that_a_crash_left_unfinished_is_made_anew(volumes: Volumes, root: Path) -> None:
    wire = sized()
    unfinished = root / "volumes" / f"{wire.uuid}.img.new"
    unfinished.write_bytes(b"half a file system")
    assert await volumes.held() == [wire.uuid], "whoever cleans up comes to know of it"
    await volumes.attach(wire)
    assert not unfinished.exists()


async def test_an_image_that_a_crash_left_unfinished_is_deleted(volumes: Volumes, root: Path) -> None:
    uuid = str(uuid4())
    (root / "volumes" / f"{uuid}.img.new").touch()
    (root / "files" / f"{uuid}.new").touch()
    await volumes.delete(uuid)
    assert await volumes.held() == []


async def test_a_mount_point_that_a_crash_left_is_used(volumes: Volumes, root: Path) -> None:
    wire = sized()
    (root / "mounts" / wire.uuid).mkdir()
    assert await volumes.attached() == []
    await volumes.attach(wire)
    assert await volumes.attached() == [wire.uuid]


async def test_a_restarted_agent_finds_its_volumes(volumes: Volumes, root: Path) -> None:
    wire = sized()
    path = await volumes.attach(wire)
    again = open_local(root)
    assert (await again.attached(), await again.held()) == ([wire.uuid], [wire.uuid])
    assert await again.attach(wire) == path


async def test_a_root_behind_a_symbolic_link_is_the_same_root(own_namespaces: None, tmp_path: Path) -> None:
    (tmp_path / "a disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a disk")
    volumes, wire = open_local(tmp_path / "link" / "volumes"), sized()
    path = await volumes.attach(wire)
    assert await volumes.attach(wire) == path
    assert await volumes.attached() == [wire.uuid]
    await volumes.detach(wire.uuid)
    assert Path(path) not in mount_points()


async def test_content_becomes_a_file_that_its_container_may_read(volumes: Volumes) -> None:
    wire = VolumeWire(uuid=str(uuid4()), content=encoded("hello"))
    path = Path(await volumes.attach(wire))
    assert path.read_text() == "hello"
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o700
    inode = path.stat().st_ino
    await volumes.attach(wire)
    assert path.stat().st_ino == inode, "what is bound already stays"
    assert (await volumes.attached(), await volumes.held()) == ([], [wire.uuid])
    await volumes.detach(wire.uuid)
    assert path.read_text() == "hello"
    await volumes.delete(wire.uuid)
    assert not path.exists()


async def test_new_content_replaces_the_old(volumes: Volumes) -> None:
    uuid = str(uuid4())
    await volumes.attach(VolumeWire(uuid=uuid, content=encoded("old and long")))
    assert Path(await volumes.attach(VolumeWire(uuid=uuid, content=encoded("new")))).read_text() == "new"


async def test_what_is_no_uuid_is_refused(volumes: Volumes) -> None:
    for uuid in ("../../etc/passwd", "", "volumes", "/"):
        with pytest.raises(Invalid, match="is not the uuid of a volume"):
            await volumes.attach(VolumeWire(uuid=uuid, size=1))
        with pytest.raises(Invalid):
            await volumes.detach(uuid)
        with pytest.raises(Invalid):
            await volumes.delete(uuid)


async def test_content_that_is_no_base64_is_refused(volumes: Volumes) -> None:
    with pytest.raises(Invalid, match="is not base64"):
        await volumes.attach(VolumeWire(uuid=str(uuid4()), content="*"))


async def test_a_volume_without_size_is_made_by_nobody_and_found_by_all(volumes: Volumes) -> None:
    wire = sized()
    with pytest.raises(Invalid, match="no size was given"):
        await volumes.attach(VolumeWire(uuid=wire.uuid))
    path = await volumes.attach(wire)
    assert await volumes.attach(VolumeWire(uuid=wire.uuid)) == path


@contextmanager
def mounted_tmpfs(place: Path, options: str) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_is_named_and_nothing_is_left(own_namespaces: None, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "small", "size=128k"):
        volumes, wire = open_local(tmp_path / "small"), sized()
        with pytest.raises(EngineError, match="the disk of its host is full"):
            await volumes.attach(wire)
        content = VolumeWire(uuid=str(uuid4()), content=encoded("x" * 2**20))
        with pytest.raises(EngineError, match="the disk of its host is full"):
            await volumes.attach(content)
        assert (await volumes.held(), await volumes.attached()) == ([], [])


async def test_a_host_without_loop_devices_says_so(volumes: Volumes) -> None:
    wire = sized()
    with mounted_tmpfs(Path("/dev"), "size=64k"), pytest.raises(EngineError, match="no loop device to offer"):
        await volumes.attach(wire)
    await volumes.attach(wire)


async def test_a_file_whose_content_was_sent_once_is_found_again_without_it(volumes: Volumes) -> None:
    uuid = str(uuid4())
    path = await volumes.attach(VolumeWire(uuid=uuid, content=encoded("once")))
    assert await volumes.attach(VolumeWire(uuid=uuid)) == path
    assert Path(path).read_bytes() == b"once"
