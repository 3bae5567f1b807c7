"""A checked image as an archive in the format of ``docker save``, made while it is read, in constant memory."""

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

from higgins.images.base import ImageFiles

_CHUNK = 2**20
#: What a tar ends with.
END = bytes(2 * tarfile.BLOCKSIZE)


async def packed(image: ImageFiles, name: str) -> AsyncIterator[bytes]:
    """The archive, in which the image has this name alone. A layer that is there twice is written once."""
    config = f"{image.parts.id.removeprefix('sha256:')}.json"
    names = [f"{layer.digest.removeprefix('sha256:')}/layer.tar" for layer in image.parts.layers]
    manifest = json.dumps([{"Config": config, "RepoTags": [name], "Layers": names}]).encode()
    yield member(config, image.parts.config)
    for inside, path in dict(zip(names, image.paths, strict=True)).items():
        size = path.stat().st_size
        yield head(inside, size)
        async for piece in chunks(path):
            yield piece
        yield padding(size)
    yield member("manifest.json", manifest) + END


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """A file in pieces."""
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK):
            yield piece


def head(name: str, size: int) -> bytes:
    """What stands before the content of a file in a tar; ``padding`` stands behind it."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def member(name: str, data: bytes) -> bytes:
    """A whole file in a tar."""
    return head(name, len(data)) + data + padding(len(data))
