"""Copying into and out of a container: streams through ``confined_tar``, which runs inside the container's root."""

import asyncio
import json
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import ContainerGone, EngineError, NotImplementedHere, PathNotFound
from higgins.runtimes.base import PathStat
from higgins.runtimes.cri import classes, config, state, users
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.errors import sentence

_PROGRAM = Path(__file__).with_name("confined_tar.py")
_BLOCK = 1 << 18


@asynccontextmanager
async def get(client: Client, uuid: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
    """A tar of the path. Leaving early ends the packing."""
    async with _program(client, uuid, "get", path) as process:
        assert process.stdout is not None
        told = _answer(await process.stdout.readline(), path)
        yield PathStat(**told["stat"]), _blocks(process)


async def put(client: Client, uuid: str, path: str, data: AsyncIterator[bytes]) -> None:
    """Unpack a tar into a directory."""
    async with _program(client, uuid, "put", path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        async for block in data:
            if not await _taken(process.stdin, block):
                break
        process.stdin.close()
        _answer(await process.stdout.readline(), path)


async def _taken(stdin: asyncio.StreamWriter, block: bytes) -> bool:
    """Whether the program reads on. One that refuses closes its end before all is written; why, is in its answer."""
    try:
        stdin.write(block)
        await stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


@asynccontextmanager
async def _program(client: Client, uuid: str, verb: str, path: str) -> AsyncIterator[Process]:
    with tempfile.TemporaryDirectory(prefix="higgins-root-") as mount_point:
        job = {"verb": verb, "path": _absolute(path)} | await _root(client, uuid, mount_point)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(_PROGRAM), json.dumps(job), stdin=PIPE, stdout=PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()


async def _root(client: Client, uuid: str, mount_point: str) -> dict[str, Any]:
    """Where the program finds the container's root: by its process, or by its snapshot when it has none."""
    container = await client.newest(uuid)
    status = await client.status(container.id, verbose=True)
    if status.status.state == cri.CONTAINER_RUNNING:
        if await classes.wanted(client, config.container_spec(container.annotations).runtime) is None:
            mapped = users.of(container.annotations) is not None
            return {"process": state.details(status.info)["pid"], "cgroup": container.id, "users": mapped}
        # The process on this host is a virtual machine's or a kernel's, and its root is another: the root that the
        # engine has mounted for it is looked at instead.
        place = running_root(Path("/proc/self/mountinfo").read_text(), container.id)
        if place is None:
            raise NotImplementedHere("Files of a container of this runtime class can be copied while it is stopped.")
        mounts = [{"type": "bind", "source": place, "options": ["rbind"]}]
        record = await (await client.containerd()).container(container.id)
    else:
        if users.of(container.annotations) is not None:
            raise NotImplementedHere("Files of a container in a user namespace can be copied while it runs.")
        containerd = await client.containerd()
        record = await containerd.container(container.id)
        found = await containerd.mounts(record.snapshotter, record.snapshot_key)
        mounts = [{"type": one.type, "source": one.source, "options": list(one.options)} for one in found]
    return {"mount_point": mount_point, "mounts": mounts, "binds": _binds(json.loads(record.spec.value))}


def running_root(mountinfo: str, engine_id: str) -> str | None:
    """Where the engine has mounted a running container's root, from the text of /proc/<pid>/mountinfo (proc(5))."""
    points = (line.split()[4] for line in mountinfo.splitlines())
    return next((point for point in points if point.endswith(f"/{engine_id}/rootfs")), None)


def _binds(oci: dict[str, Any]) -> list[dict[str, Any]]:
    """What else than its snapshot a container sees, volumes above all, in the order in which they are mounted."""
    return [
        {"source": one["source"], "destination": one["destination"], "read_only": "ro" in one.get("options", ())}
        for one in oci.get("mounts") or ()
        if one.get("type") == "bind"
    ]


async def _blocks(process: Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None
    while block := await process.stdout.read(_BLOCK):
        yield block
    if await process.wait() != 0:
        raise EngineError("The container's files could not all be read.")


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _answer(line: bytes, path: str) -> dict[str, Any]:
    if not line:
        raise EngineError(f"The container's files could not be reached to copy {path}.")
    told: dict[str, Any] = json.loads(line)
    match told.get("error"):
        case None:
            return told
        case "not-found":
            raise PathNotFound(f"There is no {path} in the container.")
        case "not-a-directory":
            raise EngineError(f"{path} in the container is not a directory.")
        case "gone":
            raise ContainerGone("The container has ended.")
        case _:
            raise EngineError(f"Copying {path} failed: {sentence(told['message'])}")
