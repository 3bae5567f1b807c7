"""Archives of ``docker save``: checked as something that an enemy wrote, and packed anew for the engine. Blocking.

An archive says itself under which names an engine shall know the image, so one tenant's could replace ``busybox`` for
all. What is loaded is therefore never the archive but a new one, with the same configuration and layers and one name
that we give. Layers are passed on as they are; unpacking them is the engine's, which does it in a root of its own.
"""

import gzip
import hashlib
import io
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from msgspec import Struct

from higgins.images.base import ImageRefused

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED_BY_DIGEST = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_CHUNK = 2**20


class Bounds(Struct, frozen=True, kw_only=True):
    """How much an image may be. ``unpacked`` is in bytes: of all files of all layers, however small they are packed."""

    unpacked: int = 20 * 2**30
    files: int = 1_000_000
    layers: int = 127
    members: int = 1_000
    document: int = 4 * 2**20


BOUNDS = Bounds()


class Contents(Struct, frozen=True):
    """What an image turned out to be: digests of its configuration and its layers, and how many bytes it unpacks to."""

    config: str
    layers: tuple[str, ...]
    unpacked: int


def repack(source: Path, target: Path, name: str, bounds: Bounds = BOUNDS) -> Contents:
    """Check the archive ``source`` and write ``target``, which an engine is to load; raises ImageRefused."""
    try:
        with _plain(source, target, bounds) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
            return _Archive(tar, bounds).write(target, name)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        target.unlink(missing_ok=True)
        raise ImageRefused("it is not an archive as docker save writes it") from error
    except ImageRefused:
        target.unlink(missing_ok=True)
        raise


def _plain(source: Path, target: Path, bounds: Bounds) -> IO[bytes]:
    """The archive as a file that can be sought in; what was compressed goes when the file is closed."""
    file = source.open("rb")
    magic = file.read(2)
    file.seek(0)
    if magic != b"\x1f\x8b":
        return file
    scratch = target.with_name(target.name + ".plain")
    unpacked = scratch.open("wb+")
    scratch.unlink()
    try:
        with file, gzip.open(file) as packed:
            measured = _Measured(packed, bounds.unpacked)
            while chunk := measured.read(_CHUNK):
                unpacked.write(chunk)
    except BaseException:
        unpacked.close()
        raise
    unpacked.seek(0)
    return unpacked


class _Measured:
    """A reader that counts and hashes what passes, and stops what is too much."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, bound: int) -> None:
        self._file = file
        self._bound = bound
        self.count = 0
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(_CHUNK if size < 0 else size)
        self.count += len(data)
        if self.count > self._bound:
            raise ImageRefused("it unpacks to more than an image may have")
        self.digest.update(data)
        return data


class _Archive:
    """An archive that is open: members by their normal names."""

    def __init__(self, tar: tarfile.TarFile, bounds: Bounds) -> None:
        self._tar = tar
        self._bounds = bounds
        self._members = dict(self._listed())
        self._left = bounds.unpacked
        self._files = 0

    def _listed(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        seen: set[str] = set()
        for number, member in enumerate(self._tar):
            name = posixpath.normpath(member.name)
            if number >= self._bounds.members:
                raise ImageRefused("it has too many members")
            if name.startswith(("/", "../")) or name == "..":
                raise ImageRefused("it has a member that leads out of it")
            if member.isdir():
                continue
            if not (member.isreg() or member.issym()) or member.sparse is not None:
                raise ImageRefused(f"its member {name[:80]} is neither a file nor a link")
            if name in seen:
                raise ImageRefused(f"it has the member {name[:80]} twice")
            seen.add(name)
            yield name, member

    def _member(self, name: object) -> tarfile.TarInfo:
        """A file, perhaps by one link within the archive, as docker save shares layers."""
        member = self._members.get(posixpath.normpath(name)) if isinstance(name, str) else None
        if member is not None and member.issym():
            beside = posixpath.join(posixpath.dirname(member.name), member.linkname)
            member = self._members.get(posixpath.normpath(beside))
        if member is None or not member.isreg():
            raise ImageRefused(f"its file {str(name)[:80]} is missing")
        return member

    def _open(self, member: tarfile.TarInfo) -> IO[bytes]:
        file = self._tar.extractfile(member)
        assert file is not None  # it is a regular file
        return file

    def _document(self, name: object) -> bytes:
        member = self._member(name)
        if member.size > self._bounds.document:
            raise ImageRefused(f"its {str(name)[:80]} is too large")
        return self._open(member).read()

    def write(self, target: Path, name: str) -> Contents:
        """The new archive."""
        entry = _only_entry(self._document("manifest.json"))
        config = self._document(entry.get("Config"))
        digest = hashlib.sha256(config).hexdigest()
        named = _NAMED_BY_DIGEST.fullmatch(str(entry.get("Config")))
        if named is not None and named[1] != digest:
            raise ImageRefused("its configuration has not the digest that it is named by")
        files, layers = entry.get("Layers"), _layers_of(config)
        if not isinstance(files, list) or len(files) != len(layers) or not 0 < len(layers) <= self._bounds.layers:
            raise ImageRefused("its layers are not those of its configuration")
        new: dict[str, tarfile.TarInfo] = {}
        for file, layer in zip(files, layers, strict=True):
            member = self._member(file)
            self._check_layer(member, layer)
            new[f"{layer[7:]}/layer.tar"] = member
        manifest = [
            {"Config": f"{digest}.json", "RepoTags": [name], "Layers": [f"{layer[7:]}/layer.tar" for layer in layers]}
        ]
        with tarfile.open(target, "w") as out:
            _add(out, f"{digest}.json", len(config), io.BytesIO(config))
            for path, member in new.items():
                _add(out, path, member.size, self._open(member))
            text = json.dumps(manifest).encode()
            _add(out, "manifest.json", len(text), io.BytesIO(text))
        return Contents(f"sha256:{digest}", tuple(layers), self._bounds.unpacked - self._left)

    def _check_layer(self, member: tarfile.TarInfo, digest: str) -> None:
        """That a layer has its digest, and that what it unpacks to fits what is left of the bounds."""
        file = self._open(member)
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        reader = _Measured(gzip.GzipFile(fileobj=file) if packed else file, self._left)
        claimed = 0
        with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r|") as layer:
            for inner in layer:
                claimed += inner.size
                self._files += 1
                if claimed > self._left or self._files > self._bounds.files:
                    raise ImageRefused("it unpacks to more than an image may have")
        while reader.read(_CHUNK):
            pass
        if f"sha256:{reader.digest.hexdigest()}" != digest:
            raise ImageRefused("a layer has not the digest that its configuration names")
        self._left -= max(claimed, reader.count)


def _only_entry(text: bytes) -> dict[str, Any]:
    manifest = _json(text, "manifest")
    if not isinstance(manifest, list) or len(manifest) != 1 or not isinstance(manifest[0], dict):
        raise ImageRefused("it has to hold one image")
    return manifest[0]


def _layers_of(config: bytes) -> list[str]:
    document = _json(config, "configuration")
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    layers = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(layers, list) or not all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in layers):
        raise ImageRefused("its configuration names no layers")
    return layers


def _json(text: bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImageRefused(f"its {what} cannot be read") from error


def _add(out: tarfile.TarFile, name: str, size: int, data: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    out.addfile(entry, data)
