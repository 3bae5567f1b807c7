"""Volumes on the host's own disk: see ``open_local``.

A sized volume is a sparse file with an ext4 file system, mounted by a loop device that the kernel frees with the
mount; what is freed inside is given back to the host's disk (``discard``). So the file system itself holds to the
size, and the files are all the record there is. A file's content is just a file.

An image is made under another name, formatted, brought to the disk and only then given its own name. What bears the
name is therefore never formatted again, whatever is in it: a volume that cannot be mounted is an error to be looked
into, never a reason to begin anew.
"""

import asyncio
import base64
import binascii
import errno
import os
from collections import defaultdict
from pathlib import Path

from higgins.model.errors import EngineError, Invalid
from higgins.programs import end_of, last_words
from higgins.volumes.base import Volumes, VolumeWire, checked, is_uuid
from higgins.volumes.filesystems import make_ext4, sync
from higgins.volumes.mounts import mount_points, own_directories, remove_empty, unmount

_GIB = 2**30
_IMAGE = ".img"
_UNFINISHED = ".new"


def open_local(root: Path) -> Volumes:
    """Volumes in directories of their own under ``root``, which only root may look into.

    ``<root>/volumes/<uuid>.img`` are the images, mounted at ``<root>/mounts/<uuid>``; ``<root>/files/<uuid>`` the
    contents. The agent must share its mount namespace with the engine. Needs root and e2fsprogs. Raises
    ``EngineError`` where the directories cannot be made.
    """
    return _Local(*own_directories(root, "volumes", "mounts", "files"))


class _Local:
    def __init__(self, volumes: Path, mounts: Path, files: Path) -> None:
        self._volumes = volumes
        self._mounts = mounts
        self._files = files
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def attach(self, volume: VolumeWire) -> str:
        """Also finds out when a size is asked of nothing: ``Invalid`` where there is neither size nor content."""
        uuid = checked(volume.uuid)
        async with self._locks[uuid]:
            if volume.content is not None:
                return str(await asyncio.to_thread(self._put_file, uuid, volume.content))
            file = self._files / uuid
            if not volume.size and file.is_file():  # its content was sent once
                return str(file)
            image, place = self._volumes / f"{uuid}{_IMAGE}", self._mounts / uuid
            if place in mount_points():
                return str(place)
            if not image.exists():
                await self._make_image(image, uuid, volume.size)
            await self._mount(image, place, uuid)
            return str(place)

    async def detach(self, uuid: str) -> None:
        """Refuses while a process holds a file of it open: unmounting it lazily would only hide that."""
        uuid = checked(uuid)
        async with self._locks[uuid]:
            await unmount(self._mounts / uuid)

    async def delete(self, uuid: str) -> None:
        """Refuses while it is attached."""
        uuid = checked(uuid)
        async with self._locks[uuid]:
            place = self._mounts / uuid
            if place in mount_points():
                raise EngineError(f"Volume {uuid} cannot be deleted while it is attached.")
            remove_empty(place)
            try:
                for directory, name in ((self._volumes, f"{uuid}{_IMAGE}"), (self._files, uuid)):
                    for path in (directory / name, directory / f"{name}{_UNFINISHED}"):
                        path.unlink(missing_ok=True)
                    await asyncio.to_thread(sync, directory)
            except OSError as error:
                raise EngineError(f"Volume {uuid} could not be deleted: {error.strerror}.") from error

    async def attached(self) -> list[str]:
        """Those that are mounted. A content file is no mount: it is held, never attached."""
        return sorted(point.name for point in mount_points() if point.parent == self._mounts and is_uuid(point.name))

    async def held(self) -> list[str]:
        """Also those whose making a crash cut short: whoever cleans up must come to know of them."""
        names = [path.name.removesuffix(_UNFINISHED) for path in (*self._volumes.iterdir(), *self._files.iterdir())]
        return sorted({name.removesuffix(_IMAGE) for name in names if is_uuid(name.removesuffix(_IMAGE))})

    async def _make_image(self, image: Path, uuid: str, size: int) -> None:
        if size <= 0:
            raise Invalid(f"Volume {uuid} is not there yet, and no size was given to make it.")
        unfinished = image.with_name(f"{image.name}{_UNFINISHED}")
        try:
            unfinished.unlink(missing_ok=True)
            _make_sparse(unfinished, size * _GIB)
            await make_ext4(unfinished)
            await asyncio.to_thread(sync, unfinished)
            unfinished.rename(image)
            await asyncio.to_thread(sync, image.parent)
        except OSError as error:
            raise _disk_error(uuid, error) from error
        except EngineError as error:
            free = os.statvfs(image.parent)
            if free.f_bavail * free.f_frsize < _GIB // 1024:
                raise _full(uuid) from error
            raise EngineError(f"Volume {uuid} could not be made: {error}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    async def _mount(self, image: Path, place: Path, uuid: str) -> None:
        try:
            place.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _disk_error(uuid, error) from error
        ended = await end_of("mount", "-t", "ext4", "-o", "loop,nosuid,nodev,discard", str(image), str(place))
        if ended.code == 0:
            return
        remove_empty(place)
        free = await end_of("losetup", "--find")
        if free.code != 0:  # mount itself says no more than "not permitted" then
            why = last_words(free)
            raise EngineError(f"Volume {uuid} cannot be attached: its host has no loop device to offer ({why}).")
        raise EngineError(f"Volume {uuid} cannot be attached: {last_words(ended)}.")

    def _put_file(self, uuid: str, content: str) -> Path:
        """Left alone where it is right: a container that is bound to the file would not see a new one."""
        try:
            data = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Invalid(f"The content of volume {uuid} is not base64.") from error
        path = self._files / uuid
        unfinished = path.with_name(f"{path.name}{_UNFINISHED}")
        try:
            if path.exists() and path.read_bytes() == data:
                return path
            with unfinished.open("wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
            sync(path.parent)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise _disk_error(uuid, error) from error
        return path


def _make_sparse(path: Path, size: int) -> None:
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(size)


def _full(uuid: str) -> EngineError:
    return EngineError(f"Volume {uuid} could not be made: the disk of its host is full.")


def _disk_error(uuid: str, error: OSError) -> EngineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(uuid)
    return EngineError(f"Volume {uuid} could not be made: {error.strerror}.")
