"""Archives of ``docker save`` and OCI layouts: checked as something that an enemy wrote, and taken apart. Blocking.

An archive says itself under which names an engine shall know the image, so one tenant's could replace ``busybox`` for
all. No engine gets to see it therefore: what is taken from it is the configuration, and the layers as plain tars under
their own digests. A layer counts only where the archive really holds it, even if one of that digest is here already:
to know the digest of somebody's layer must not be enough to have it. What is in the layers is unpacked by the engine,
in a root of its own.
"""

import gzip
import hashlib
import json
import os
import platform
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from msgspec import Struct

from higgins.images.base import Layer, Parts
from higgins.model.errors import ImageRefused

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED_BY_DIGEST = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_NO_ARCHIVE = "it is no archive as docker save writes it, and no OCI layout in a tar"
_CHUNK = 2**20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5"
#: Bytes of what a tar tells of a member beside its content (a long name, PAX records); tarfile reads it in one piece.
_MOST_TOLD = 2**20
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_SPARSE = "it has a sparse file, which no image has"
#: The kernel's name of a machine → the OCI image specification's.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


class Bounds(Struct, frozen=True, kw_only=True):
    """How much an image may be. ``unpacked`` is in bytes: of all files of all layers, however small they are packed."""

    unpacked: int = 20 * 2**30
    files: int = 1_000_000
    layers: int = 127
    members: int = 1_000
    document: int = 4 * 2**20


BOUNDS = Bounds()


def take_apart(source: Path, place: Callable[[str], Path], bounds: Bounds = BOUNDS) -> Parts:
    """Check the archive ``source``, and put its layers where ``place`` says for each digest; raises ImageRefused.

    A layer is seen at its place only once it is whole. ``source`` is not changed.
    """
    try:
        with _plain(source, bounds) as plain, tarfile.open(fileobj=plain, mode="r:", tarinfo=_Member) as tar:
            return _Archive(tar, bounds, place).parts()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError) as error:
        raise ImageRefused(_NO_ARCHIVE) from error  # tarfile has no one way to say that something is no tar


def _plain(source: Path, bounds: Bounds) -> IO[bytes]:
    """The archive as a file that can be sought in; what was compressed goes when the file is closed."""
    file = source.open("rb")
    magic = file.read(2)
    file.seek(0)
    if magic != _GZIP:
        return file
    scratch = source.with_name(source.name + ".plain")
    unpacked = scratch.open("wb+")
    scratch.unlink()
    try:
        with file, gzip.open(file) as packed:
            measured = _Measured(packed, bounds.unpacked, unpacked)
            while measured.read(_CHUNK):
                pass
    except BaseException:
        unpacked.close()
        raise
    unpacked.seek(0)
    return unpacked


class _Member(tarfile.TarInfo):
    """A member of a tar that is no trap for who only reads its header: tarfile trusts what it is told there."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        told = member.type not in tarfile.SUPPORTED_TYPES or member.type in _LONG_NAMES
        if told and member.size > _MOST_TOLD:
            raise ImageRefused("a member of it has a name or attributes that are too long")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ImageRefused(_SPARSE)
        return member

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise ImageRefused(_SPARSE)

    def _block(self, count: int) -> int:
        """Where the next member begins, counted from here. Before it: an archive could be read for ever."""
        if count < 0:
            raise ImageRefused("a member of it is less than nothing")
        return super()._block(count)  # type: ignore[misc,no-any-return]


class _Measured:
    """A reader that counts and hashes what passes, writes it down, and stops what is too much."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, bound: int, copy: IO[bytes]) -> None:
        self._file = file
        self._bound = bound
        self._copy = copy
        self.count = 0
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(_CHUNK if size < 0 else min(size, _CHUNK))
        self.count += len(data)
        if self.count > self._bound:
            raise ImageRefused("it unpacks to more than an image may have")
        self.digest.update(data)
        self._copy.write(data)
        return data


class _Archive:
    """An archive that is open: members by their normal names."""

    def __init__(self, tar: tarfile.TarFile, bounds: Bounds, place: Callable[[str], Path]) -> None:
        self._tar = tar
        self._bounds = bounds
        self._place = place
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

    def parts(self) -> Parts:
        config, files = self._docker() if "manifest.json" in self._members else self._oci()
        layers = _layers_of(config)
        if not isinstance(files, list) or len(files) != len(layers) or not 0 < len(layers) <= self._bounds.layers:
            raise ImageRefused("its layers are not those of its configuration")
        taken: dict[str, tuple[tarfile.TarInfo, Layer]] = {}
        for file, digest in zip(files, layers, strict=True):
            member = self._member(file)
            if digest not in taken or taken[digest][0] is not member:
                taken[digest] = member, self._take(member, digest)
        return Parts(config=config, layers=tuple(taken[digest][1] for digest in layers))

    # what the two formats say: the configuration, and which member is which layer

    def _docker(self) -> tuple[bytes, Any]:
        manifest = _json(self._document("manifest.json"), "manifest")
        if not isinstance(manifest, list) or len(manifest) != 1 or not isinstance(manifest[0], dict):
            raise ImageRefused("it has to hold one image")
        config = self._document(manifest[0].get("Config"))
        named = _NAMED_BY_DIGEST.fullmatch(str(manifest[0].get("Config")))
        if named is not None and named[1] != hashlib.sha256(config).hexdigest():
            raise ImageRefused("its configuration has not the digest that it is named by")
        return config, manifest[0].get("Layers")

    def _oci(self) -> tuple[bytes, Any]:
        """By https://github.com/opencontainers/image-spec/blob/main/image-layout.md."""
        if "index.json" not in self._members:
            raise ImageRefused(_NO_ARCHIVE)
        document = _json(self._document("index.json"), "index")
        for _ in range(3):  # an index may stand in another one
            if not isinstance(document, dict) or "manifests" not in document:
                break
            document = _json(self._blob(_for_this_machine(document["manifests"])), "manifest")
        if not isinstance(document, dict) or not isinstance(document.get("layers"), list):
            raise ImageRefused("its manifest cannot be read")
        return self._blob(document.get("config")), [_blob_name(layer) for layer in document["layers"]]

    def _blob(self, descriptor: object) -> bytes:
        name = _blob_name(descriptor)
        data = self._document(name)
        if hashlib.sha256(data).hexdigest() != name.rpartition("/")[2]:
            raise ImageRefused("a document in it has not the digest that it is named by")
        return data

    # members

    def _member(self, name: object) -> tarfile.TarInfo:
        """A file by its name; a link may lead to it within the archive, as docker save shares layers."""
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

    def _take(self, member: tarfile.TarInfo, digest: str) -> Layer:
        """Put a layer at its place, once it has shown that it has its digest and fits what is left of the bounds."""
        file = self._open(member)
        magic = file.read(2)
        file.seek(0)
        if magic == _ZSTD:
            raise ImageRefused("its layers are compressed with zstd; save it with gzip, or without compression")
        place = self._place(digest)
        new = place.with_name(f"{place.name}.new-{os.urandom(4).hex()}")
        try:
            with new.open("wb") as copy:
                plain = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if magic == _GZIP else file
                size, claimed = self._measure(_Measured(plain, self._left, copy), digest)
            new.replace(place)
        finally:
            new.unlink(missing_ok=True)
        self._left -= max(claimed, size)
        return Layer(digest, size)

    def _measure(self, reader: _Measured, digest: str) -> tuple[int, int]:
        """How many bytes a layer has, and how many its files claim to have."""
        claimed = 0
        with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r|", tarinfo=_Member, bufsize=_CHUNK) as layer:
            while (inner := layer.next()) is not None:
                layer.members = []  # type: ignore[attr-defined]  # it would remember a million of them
                claimed += inner.size
                self._files += 1
                if claimed > self._left or self._files > self._bounds.files:
                    raise ImageRefused("it unpacks to more than an image may have")
        while reader.read(_CHUNK):
            pass
        if f"sha256:{reader.digest.hexdigest()}" != digest:
            raise ImageRefused("a layer has not the digest that its configuration names")
        return reader.count, claimed


def _blob_name(descriptor: object) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ImageRefused("its manifest names something without its digest")
    return f"blobs/sha256/{digest[7:]}"


def _for_this_machine(manifests: object) -> object:
    """The only image of an index, or the one of several that is for machines like this one."""
    if not isinstance(manifests, list):
        raise ImageRefused("its index cannot be read")
    images = [one for one in manifests if isinstance(one, dict)]
    if len(images) > 1:
        wanted = ("linux", _ARCHITECTURES.get(platform.machine(), platform.machine()))
        platforms = [one.get("platform") for one in images]
        images = [
            one
            for one, its in zip(images, platforms, strict=True)
            if isinstance(its, dict) and (its.get("os"), its.get("architecture")) == wanted
        ]
    if len(images) != 1:
        raise ImageRefused("it has to hold one image for the machines of this cloud")
    return images[0]


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
