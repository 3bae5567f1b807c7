"""Volumes of Cinder on this host: connected by os-brick, formatted once, mounted; see ``open_cinder``.

What the control plane says of the way to a volume is kept on the host before anything is connected, since the same
words are needed to disconnect it: after a crash, and when the control plane knows nothing of it any more.

A volume is formatted where it is blank: no file system, no partitions, nothing else that blkid knows; and unless it
was made for Higgins just now, nothing but zeros at its beginning. What is not blank is mounted as it is, or refused;
what had a file system once is not blank because that is broken. Formatting that a crash cut short is noted in the
record, and only that is done again.
"""

import asyncio
import os
from collections import defaultdict
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from higgins.model.errors import EngineError, Invalid
from higgins.programs import end_of, last_words
from higgins.volumes.base import Volumes, VolumeWire, checked, is_uuid
from higgins.volumes.filesystems import content_of, is_zero, make_ext4, sync
from higgins.volumes.mounts import mount_points, own_directories, unmount

#: What is mounted. Others are refused by their names.
_FILESYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})
_EXT = frozenset({"ext2", "ext3", "ext4"})


class Connector(Protocol):
    """os-brick, or what stands in for it. Blocking; raises ``EngineError``."""

    def connect(self, connection: dict[str, Any]) -> dict[str, Any]: ...

    def disconnect(self, connection: dict[str, Any], device: dict[str, Any]) -> None: ...


class Record(Struct, frozen=True, kw_only=True):
    """What a host keeps of a volume as long as it may be connected. ``device`` is os-brick's, once it is connected.

    ``formatted``: a file system was on it, so that it is not blank again where none is seen.
    """

    connection: dict[str, Any]
    device: dict[str, Any] | None = None
    formatting: bool = False
    formatted: bool = False


_record = msgspec.json.Decoder(Record)


def open_cinder(root: Path, connector: Connector) -> Volumes:
    """Records in ``<root>/cinder/<uuid>.json``, mounts at ``<root>/cinder/mounts/<uuid>``; only root may look.

    Raises ``EngineError`` where the directories cannot be made.
    """
    records, mounts = own_directories(root, "cinder", "cinder/mounts")
    return _Cinder(records, mounts, connector)


class _Cinder:
    def __init__(self, records: Path, mounts: Path, connector: Connector) -> None:
        self._records = records
        self._mounts = mounts
        self._connector = connector
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def attach(self, volume: VolumeWire) -> str:
        uuid = checked(volume.uuid)
        async with self._locks[uuid]:
            place = self._mounts / uuid
            if place in mount_points():
                return str(place)
            record = await self._connected(uuid, volume.connection)
            assert record.device is not None
            device = Path(str(record.device["path"]))
            kind = await self._formatted(uuid, record, device, fresh=volume.fresh)
            if kind not in _FILESYSTEMS:
                raise Invalid(f"Volume {uuid} holds {kind}, which cannot be mounted.")
            await self._mount(uuid, record, device, kind)
            return str(place)

    async def detach(self, uuid: str) -> None:
        """Unmounted and disconnected. Refuses while a process holds a file of it open."""
        uuid = checked(uuid)
        async with self._locks[uuid]:
            await unmount(self._mounts / uuid)
            record = self._read(uuid)
            if record is None:
                return
            # What a crash cut short may have left a device that the record does not know: os-brick finds it.
            await asyncio.to_thread(self._connector.disconnect, record.connection, record.device or {})
            await asyncio.to_thread(self._forget, uuid)

    async def delete(self, uuid: str) -> None:
        """Nothing of it is left on this host. Its data is Cinder's to delete."""
        await self.detach(uuid)

    async def attached(self) -> list[str]:
        return sorted(point.name for point in mount_points() if point.parent == self._mounts and is_uuid(point.name))

    async def held(self) -> list[str]:
        names = [path.name.removesuffix(".json") for path in self._records.glob("*.json")]
        return sorted(name for name in names if is_uuid(name))

    async def _connected(self, uuid: str, connection: dict[str, Any] | None) -> Record:
        """The record of a volume that is a device of this host now."""
        before = self._read(uuid)
        if connection is None and before is None:
            raise EngineError(f"Volume {uuid} is not attached to this host by Cinder yet.")
        if before is not None and connection is not None and before.connection != connection:
            # It was attached anew, and may be reached by another way now.
            await asyncio.to_thread(self._connector.disconnect, before.connection, before.device or {})
            before = replace(before, connection=connection, device=None)
        record = before or Record(connection=connection or {})
        if record.connection.get("encrypted"):
            raise Invalid(f"Volume {uuid} is encrypted by Cinder, which Higgins cannot open.")
        await asyncio.to_thread(self._write, uuid, record)
        device = await asyncio.to_thread(self._connector.connect, record.connection)
        if not device.get("path"):
            raise EngineError(f"Volume {uuid} has no device on its host.")
        record = replace(record, device=device)
        await asyncio.to_thread(self._write, uuid, record)
        return record

    async def _formatted(self, uuid: str, record: Record, device: Path, *, fresh: bool) -> str:
        """The kind of file system that the device has, made if it was blank."""
        kind = None if record.formatting else await content_of(device)
        if kind is not None:
            if not record.formatted:
                await asyncio.to_thread(self._write, uuid, replace(record, formatted=True))
            return kind
        fresh = fresh and not record.formatted
        try:
            if not (fresh or record.formatting or await asyncio.to_thread(is_zero, device)):
                raise Invalid(
                    f"Volume {uuid} holds data that is no known file system, so it is neither formatted nor mounted."
                )
        except OSError as error:
            raise EngineError(f"Volume {uuid} cannot be read: {error.strerror}.") from error
        if _read_only(record.connection):
            raise Invalid(f"Volume {uuid} is blank and read-only, so it cannot be formatted.")
        await asyncio.to_thread(self._write, uuid, replace(record, formatting=True))
        try:
            await make_ext4(device)
            await asyncio.to_thread(sync, device)
        except (EngineError, OSError) as error:
            raise EngineError(f"Volume {uuid} could not be formatted: {error}") from error
        await asyncio.to_thread(self._write, uuid, replace(record, formatting=False, formatted=True))
        return "ext4"

    async def _mount(self, uuid: str, record: Record, device: Path, kind: str) -> None:
        place = self._mounts / uuid
        options = ["nosuid", "nodev"]
        options += ["ro"] if _read_only(record.connection) else []
        # Else the file system says itself what follows from its being broken, and may have been written to say: panic.
        options += ["errors=remount-ro"] if kind in _EXT else []
        options += [] if device.is_block_device() else ["loop"]
        try:
            place.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise EngineError(f"Volume {uuid} cannot be attached: {error.strerror}.") from error
        ended = await end_of("mount", "-t", kind, "-o", ",".join(options), str(device), str(place))
        if ended.code != 0:
            raise EngineError(f"Volume {uuid} cannot be mounted: {last_words(ended)}.")

    def _path(self, uuid: str) -> Path:
        return self._records / f"{uuid}.json"

    def _read(self, uuid: str) -> Record | None:
        try:
            return _record.decode(self._path(uuid).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise EngineError(f"What the host knows of volume {uuid} cannot be read: {error}.") from error

    def _write(self, uuid: str, record: Record) -> None:
        path = self._path(uuid)
        unfinished = path.with_name(f"{path.name}.new")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it may hold a password
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(record))
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
            sync(path.parent)
        except OSError as error:
            raise EngineError(f"The host cannot keep what it knows of volume {uuid}: {error.strerror}.") from error

    def _forget(self, uuid: str) -> None:
        try:
            self._path(uuid).unlink(missing_ok=True)
            sync(self._records)
        except OSError as error:
            raise EngineError(f"The host cannot forget volume {uuid}: {error.strerror}.") from error


def _read_only(connection: dict[str, Any]) -> bool:
    return connection.get("access_mode") == "ro"
