"""Volumes of Cinder on their host: real devices, os-brick, mkfs and mount; Cinder itself is not there."""

import os
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from higgins.model.errors import EngineError, Invalid
from higgins.volumes.base import Volumes, VolumeWire
from higgins.volumes.brick import Brick, BrickSettings, open_brick
from higgins.volumes.cinder import open_cinder
from higgins.volumes.drivers import Drivers
from higgins.volumes.local import open_local
from higgins.volumes.mounts import mount_points

MIB = 2**20


class Devices:
    """Loop devices as a storage would export them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.made: list[str] = []

    def make(self, size: int = 64 * MIB) -> str:
        file = self._root / f"{uuid4()}.raw"
        with file.open("wb") as handle:
            handle.truncate(size)
        done = subprocess.run(["losetup", "-f", "--show", str(file)], check=True, capture_output=True, text=True)
        self.made.append(done.stdout.strip())
        return self.made[-1]

    def close(self) -> None:
        for device in self.made:
            subprocess.run(["losetup", "-d", device], check=True)


@pytest.fixture
def devices(own_namespaces: None, tmp_path: Path) -> Iterator[Devices]:
    made = Devices(tmp_path)
    yield made
    made.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "higgins"


@pytest.fixture
def brick(root: Path) -> Brick:
    return open_brick(BrickSettings(host="one", address="127.0.0.1", locks=root / "locks"))


@pytest.fixture
async def volumes(devices: Devices, root: Path, brick: Brick) -> AsyncIterator[Volumes]:
    opened = open_cinder(root, brick)
    yield opened
    for uuid in await opened.held():
        await opened.detach(uuid)
    assert not [point for point in mount_points() if point.is_relative_to(root.resolve())]


def wire(device: str, *, fresh: bool = False, **more: Any) -> VolumeWire:
    connection = {"driver_volume_type": "local", "device_path": device, **more}
    return VolumeWire(uuid=str(uuid4()), driver="cinder", connection=connection, fresh=fresh)


def command(*words: str) -> None:
    subprocess.run(words, check=True)


def write(device: str, data: bytes, at: int = 0) -> None:
    with Path(device).open("r+b") as disk:
        disk.seek(at)
        disk.write(data)


def read(device: str) -> bytes:
    return Path(device).read_bytes()


def test_a_host_tells_cinder_who_it_is(brick: Brick) -> None:
    told = brick.properties()
    assert (told["host"], told["ip"], told["multipath"]) == ("one", "127.0.0.1", False)


async def test_a_blank_volume_is_formatted_once_and_keeps_what_is_written(volumes: Volumes, devices: Devices) -> None:
    one = wire(devices.make())
    path = Path(await volumes.attach(one))
    assert os.listdir(path) == []
    (path / "kept").write_text("data")
    assert Path(await volumes.attach(one), "kept").read_text() == "data"
    await volumes.detach(one.uuid)
    assert await volumes.attached() == await volumes.held() == []
    assert Path(await volumes.attach(one), "kept").read_text() == "data"
    assert await volumes.attached() == await volumes.held() == [one.uuid]
    flags = os.statvfs(path).f_flag
    assert flags & os.ST_NOSUID and flags & 4, "nosuid and nodev"


async def test_what_has_a_file_system_is_mounted_as_it_is(volumes: Volumes, devices: Devices, tmp_path: Path) -> None:
    device = devices.make()
    command("mkfs.ext2", "-q", device)
    place = tmp_path / "mine"
    place.mkdir()
    command("mount", device, str(place))
    (place / "mine").write_text("data")
    command("umount", str(place))
    path = Path(await volumes.attach(wire(device, fresh=True)))
    assert (path / "mine").read_text() == "data"


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("what", ["swap", "partitions"])
async def test_what_is_not_blank_is_never_formatted(volumes: Volumes, devices: Devices, what: str, fresh: bool) -> None:
    device = devices.make()
    if what == "swap":
        command("mkswap", "-q", device)
    else:
        write(device, b"\x55\xaa", at=510)
        write(device, b"\x00\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x08\x00\x00", at=446)
    before = read(device)
    with pytest.raises(Invalid, match="cannot be mounted"):
        await volumes.attach(wire(device, fresh=fresh))
    assert read(device) == before


async def test_unknown_data_is_refused_unless_the_volume_was_made_for_us(volumes: Volumes, devices: Devices) -> None:
    device = devices.make()
    write(device, b"nobody knows what this is")
    with pytest.raises(Invalid, match="neither formatted nor mounted"):
        await volumes.attach(wire(device))
    assert read(device).startswith(b"nobody")
    assert os.listdir(await volumes.attach(wire(device, fresh=True))) == []


async def test_formatting_that_a_crash_cut_short_is_done_again(
    volumes: Volumes, devices: Devices, root: Path, brick: Brick, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = wire(devices.make())

    async def half(device: Path) -> None:
        write(str(device), b"half a file system")
        raise EngineError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("higgins.volumes.cinder.make_ext4", half)
        with pytest.raises(EngineError, match="could not be formatted"):
            await volumes.attach(one)
    assert os.listdir(await open_cinder(root, brick).attach(one)) == []


async def test_after_a_restart_it_is_mounted_and_given_back_without_being_told_how(
    volumes: Volumes, devices: Devices, root: Path, brick: Brick
) -> None:
    one = wire(devices.make())
    path = await volumes.attach(one)
    command("umount", path)  # as a reboot does
    again = open_cinder(root, brick)
    assert await again.attached() == [] and await again.held() == [one.uuid]
    assert await again.attach(VolumeWire(uuid=one.uuid, driver="cinder")) == path
    await again.detach(one.uuid)
    assert await again.held() == []
    with pytest.raises(EngineError, match="not attached to this host by Cinder yet"):
        await again.attach(VolumeWire(uuid=one.uuid, driver="cinder"))


async def test_a_volume_in_use_is_not_torn_away(volumes: Volumes, devices: Devices) -> None:
    one = wire(devices.make())
    path = Path(await volumes.attach(one))
    descriptor = os.open(path / "open", os.O_CREAT)
    with os.fdopen(descriptor), pytest.raises(EngineError, match="still in use"):
        await volumes.detach(one.uuid)
    assert await volumes.held() == [one.uuid]


async def test_a_read_only_attachment_is_mounted_read_only_and_never_formatted(
    volumes: Volumes, devices: Devices
) -> None:
    device = devices.make()
    with pytest.raises(Invalid, match="read-only"):
        await volumes.attach(wire(device, access_mode="ro"))
    command("mkfs.ext4", "-q", device)
    path = await volumes.attach(wire(device, access_mode="ro"))
    assert os.statvfs(path).f_flag & os.ST_RDONLY


async def test_what_was_formatted_is_not_blank_because_its_file_system_is_broken(
    volumes: Volumes, devices: Devices
) -> None:
    device = devices.make()
    made = wire(device, fresh=True)
    place = await volumes.attach(made)
    command("umount", place)  # as by a boot
    write(device, bytes([255]) * 1024, at=1024)  # where the superblock is
    with pytest.raises(Invalid, match="neither formatted nor mounted"):
        await volumes.attach(made)


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
async def test_no_file_system_may_ask_for_the_hosts_end(volumes: Volumes, devices: Devices, kind: str) -> None:
    device = devices.make()
    command(f"mkfs.{kind}", "-q", device)
    command("tune2fs", "-e", "panic", device)
    place = await volumes.attach(wire(device))
    (line,) = [one for one in Path("/proc/self/mountinfo").read_text().splitlines() if f" {place} " in one]
    assert "errors=remount-ro" in line, "what it says of itself does not count"


async def test_what_storage_cannot_give_is_an_error_with_its_reason(volumes: Volumes, devices: Devices) -> None:
    strange = VolumeWire(uuid=str(uuid4()), driver="cinder", connection={"driver_volume_type": "carrier-pigeon"})
    with pytest.raises(EngineError, match="cannot reach the volume"):
        await volumes.attach(strange)
    with pytest.raises(Invalid, match="encrypted"):
        await volumes.attach(wire(devices.make(), encrypted=True))


async def test_what_a_host_keeps_of_a_volume_is_for_root_only(volumes: Volumes, devices: Devices, root: Path) -> None:
    one = wire(devices.make(), auth_password="secret")
    await volumes.attach(one)
    record = root / "cinder" / f"{one.uuid}.json"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700


async def test_drivers_side_by_side_keep_their_own(volumes: Volumes, devices: Devices, root: Path) -> None:
    both = Drivers({"local": open_local(root), "cinder": volumes})
    theirs, ours = wire(devices.make()), VolumeWire(uuid=str(uuid4()), size=1)
    for one in (theirs, ours):
        await both.attach(one)
    assert set(await both.attached()) == {theirs.uuid, ours.uuid}
    for one in (theirs, ours):
        await both.detach(one.uuid)
    assert await both.held() == [ours.uuid]
    await both.delete(ours.uuid)
    assert await both.held() == []
    with pytest.raises(EngineError, match="no volumes of the kind ceph"):
        await both.attach(VolumeWire(uuid=str(uuid4()), driver="ceph"))
