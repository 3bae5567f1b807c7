"""Checked archives on a disk: each brought once, kept by its digest, and taken away when there are too many."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from higgins.images.archive import BOUNDS, Bounds, repack
from higgins.images.base import FoundImage


class Shelf:
    """A directory of archives. ``limit`` is how many bytes of them stay once they have been loaded."""

    def __init__(self, directory: Path, *, limit: int = 10 * 2**30, bounds: Bounds = BOUNDS) -> None:
        self._directory = directory
        self._limit = limit
        self._bounds = bounds
        self._locks: dict[str, asyncio.Lock] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob("*.new*"):  # of a process that died
            left.unlink()

    async def fetch(self, found: FoundImage, save: Callable[[Path], Awaitable[None]]) -> Path:
        """An archive that an engine may load, under the name ``found.engine_name``.

        ``save`` brings the bytes where they are not here; of many who want the same image, one does. Raises what it
        raises, and ImageRefused.
        """
        key = found.engine_name.rpartition("/")[2].replace(":", "-")
        path = self._directory / f"{key}.tar"
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if path.exists():
                os.utime(path)
                return path
            raw, new = path.with_suffix(".new-raw"), path.with_suffix(".new")
            try:
                await save(raw)
                await asyncio.to_thread(repack, raw, new, found.engine_name, self._bounds)
                new.replace(path)
            finally:
                raw.unlink(missing_ok=True)
                new.unlink(missing_ok=True)
        self._evict(path)
        return path

    def _evict(self, keep: Path) -> None:
        """Take away what was used longest ago. A file that is being read stays readable until it is closed."""
        kept = sorted(self._directory.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
        size = keep.stat().st_size
        for path in kept:
            if path == keep:
                continue
            size += path.stat().st_size
            if size > self._limit:
                path.unlink()
