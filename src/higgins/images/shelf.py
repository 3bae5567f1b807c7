"""Checked images on a disk: what they consist of, and their layers by digest, taken away when there is too much.

Whatever of an image is here already is not brought again, be it for another image that has the same layer; of many who
want the same thing, one brings it.
"""

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from higgins.images.archive import BOUNDS, Bounds, take_apart
from higgins.images.base import ImageFiles, Layer, Parts
from higgins.model.errors import ImageRefused
from higgins.model.images import FoundImage

_parts = msgspec.json.Decoder(Parts)
_CHUNK = 2**20


class Shelf:
    """A directory for one process. ``limit`` is how many bytes of layers stay that nobody is using."""

    def __init__(self, directory: Path, *, limit: int = 10 * 2**30, bounds: Bounds = BOUNDS) -> None:
        self._layers, self._images = directory / "layers", directory / "images"
        self._limit = limit
        self._bounds = bounds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: Counter[str] = Counter()
        for place in (self._layers, self._images):
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o700)  # images may be a project's alone, and are no matter for the host's other users
            for left in place.glob("*.new*"):  # of a process that died
                left.unlink()

    def place(self, digest: str) -> Path:
        """Where a layer lies, or would."""
        return self._layers / digest.removeprefix("sha256:")

    def files(self, parts: Parts) -> ImageFiles:
        """An image that is here, for an engine to load; ``hold`` it meanwhile."""
        return ImageFiles(parts=parts, paths=tuple(self.place(layer.digest) for layer in parts.layers))

    @contextmanager
    def hold(self, parts: Parts) -> Iterator[None]:
        """While its layers are in use they stay, whatever the limit is."""
        digests = {layer.digest for layer in parts.layers}
        self._held.update(digests)
        try:
            yield
        finally:
            self._held.subtract(digests)
            self._held += Counter()  # what nobody holds is forgotten
            self._evict()

    def known(self, found: FoundImage) -> Parts | None:
        """What an image consists of, where all of it is here."""
        try:
            parts = _parts.decode(self._record(found).read_bytes())
        except FileNotFoundError:
            return None
        if not all(self.place(layer.digest).exists() for layer in parts.layers):
            return None
        for layer in parts.layers:
            os.utime(self.place(layer.digest))
        return parts

    async def take_in(
        self,
        found: FoundImage,
        save: Callable[[Path], Awaitable[None]],
        turn: AbstractAsyncContextManager[object] | None = None,
    ) -> Parts:
        """What an image consists of, with all of it here. ``save`` brings its archive where it is not.

        It is brought and taken apart within its ``turn``; who waits for another to do so takes none.
        Raises what ``save`` raises, and ImageRefused.
        """
        if found.size > self._bounds.unpacked:  # no image that is allowed gets larger by being packed
            raise ImageRefused("it is larger than an image may be")
        record = self._record(found)
        async with self._lock(record.name):
            if (parts := self.known(found)) is not None:
                return parts
            raw = record.with_name(f"{record.name}.new-raw")
            async with turn or nullcontext():
                try:
                    await save(raw)
                    parts = await asyncio.to_thread(take_apart, raw, self.place, self._bounds)
                finally:
                    raw.unlink(missing_ok=True)
            self.record(found, parts)
        self._evict(parts)
        return parts

    def record(self, found: FoundImage, parts: Parts) -> None:
        """Write down what an image consists of."""
        record = self._record(found)
        new = record.with_name(f"{record.name}.new")
        new.write_bytes(msgspec.json.encode(parts))
        new.replace(record)

    def touch(self, found: FoundImage) -> None:
        """The image was used now, if it is known here."""
        with suppress(FileNotFoundError):
            os.utime(self._record(found))

    def used_at(self, tag: str) -> float:
        """When the image whose engine name ends in ``tag`` was used last, as the clock of files; 0 if not known."""
        repository, _, digest = tag.rpartition(":")
        try:
            return (self._images / f"{repository}-{digest}.json").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    async def bring(self, layer: Layer, save: Callable[[Path], Awaitable[None]]) -> None:
        """Have a layer here; ``save`` brings it where it is not. Raises ImageRefused where it brings something else."""
        place = self.place(layer.digest)
        async with self._lock(layer.digest):
            if place.exists():
                os.utime(place)
                return
            new = place.with_name(f"{place.name}.new")
            try:
                await save(new)
                if await asyncio.to_thread(_digest, new) != layer.digest:
                    raise ImageRefused("a layer of it was changed on its way to the host")
                new.replace(place)
            finally:
                new.unlink(missing_ok=True)

    def _record(self, found: FoundImage) -> Path:
        return self._images / f"{found.id}-{found.digest[:32]}.json"

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    def _evict(self, keep: Parts | None = None) -> None:
        """Take away what was used longest ago. A file that is being read stays readable until it is closed."""
        kept = {self.place(layer.digest) for layer in keep.layers} if keep is not None else set()
        kept |= {self.place(digest) for digest in self._held}
        found = [(path, path.stat()) for path in self._layers.iterdir() if ".new" not in path.name]
        size = 0
        for path, stat in sorted(found, key=lambda one: one[1].st_mtime, reverse=True):
            size += stat.st_size
            if size > self._limit and path not in kept:
                path.unlink()
        if size > self._limit:
            self._forget()

    def _forget(self) -> None:
        """Take away what was written down of images that are not whole any more."""
        for record in self._images.glob("*.json"):
            parts = _parts.decode(record.read_bytes())
            if not all(self.place(layer.digest).exists() for layer in parts.layers):
                record.unlink()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
