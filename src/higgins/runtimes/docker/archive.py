"""Copying in and out of a container as a tar, in constant memory."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from higgins.model.errors import EngineError, PathNotFound
from higgins.runtimes.base import PathStat
from higgins.runtimes.docker.client import Client
from higgins.runtimes.uploads import Upload

#: os.ModeSymlink of Go.
SYMLINK = 1 << 27

STAT_HEADER = "X-Docker-Container-Path-Stat"


def path_stat(header: str) -> PathStat:
    """From the base64 JSON in the header of the engine's archive call."""
    said = json.loads(base64.b64decode(header))
    return PathStat(
        name=said["name"],
        size=said["size"],
        mode=said["mode"],
        mtime=said["mtime"],
        # Podman has the path of the file itself here, where it is no link.
        link_target=said.get("linkTarget", "") if said["mode"] & SYMLINK else "",
    )


def _no_path(path: str) -> PathNotFound:
    return PathNotFound(f"There is no {path} in the container.")


@asynccontextmanager
async def get(client: Client, container: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
    """The tar of ``path``, read as it is consumed."""
    url = f"containers/{container}/archive"
    async with client.open("GET", url, params={"path": path}, missing=_no_path(path)) as answer:
        yield path_stat(answer.headers[STAT_HEADER]), client.chunks(answer)


async def put(client: Client, container: str, path: str, data: AsyncIterator[bytes]) -> None:
    """Unpack into the directory ``path``. The engine does it in the container's root, whatever names the tar has.

    What ``data`` raises comes through as it is. The path is looked at first, so that nobody uploads for nothing.
    """
    url = f"containers/{container}/archive"
    await client.head(url, params={"path": path}, missing=_no_path(path))
    params = {"path": path, "noOverwriteDirNonDir": "true"}
    source = Upload(data)
    try:
        async with client.open("PUT", url, params=params, body=aiter(source), missing=_no_path(path)) as answer:
            async for _ in client.chunks(answer):
                pass
    except EngineError:
        if source.error is not None:
            raise source.error from None
        raise
