"""Looking into a container: output, commands, files, figures. All of it needs the container's host now."""

import base64
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from higgins.api import bodies
from higgins.api.call import Call
from higgins.api.microversion import Version
from higgins.api.streams import gone, with_pauses
from higgins.api.views import containers as views
from higgins.control import consoles, containers, looking
from higgins.model.errors import SchemaInvalid, TooLarge
from higgins.runtimes.base import LogChunk, LogOptions

_BASE64_SINCE = Version(1, 25)
_TAR_SINCE = Version(1, 46)
TAR = "application/x-tar"
#: Tells what a tar in the body holds: Docker's description of the path, as base64 of JSON.
STAT_HEADER = "Higgins-Path-Stat"


Handler = Callable[[Call], Awaitable[Any]]


def counted(handler: Handler) -> Handler:
    """Each such request keeps a host busy, for as long as its caller likes: a project has only so many at once."""

    async def held(call: Call) -> Any:
        with call.streams.one(call.actor.project_id, listens=bool(call.query.get("follow"))):
            return await handler(call)

    return held


@counted
async def logs(call: Call) -> Any:
    asked = call.query
    follow: bool = asked.get("follow", False)
    options = LogOptions(
        stdout=asked["stdout"],
        stderr=asked["stderr"],
        timestamps=asked["timestamps"],
        tail=asked["tail"],
        since=asked["since"],
        follow=follow,
    )
    chunks = await looking.logs(call.cloud, call.actor, call.path["container"], options)
    if follow:
        return await _follow(call, chunks)
    return await last_of(chunks, call.settings.log_limit)


async def last_of(chunks: AsyncIterator[LogChunk], limit: int) -> str:
    """The output as text, its last ``limit`` bytes where there is more."""
    kept = bytearray()
    async for chunk in chunks:
        kept += chunk.data
        if len(kept) > 2 * limit:
            del kept[:-limit]
    return bytes(kept[-limit:]).decode(errors="replace")


async def _follow(call: Call, chunks: AsyncIterator[LogChunk]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8", "X-Accel-Buffering": "no"})
    await response.prepare(call.request)
    # One decoder for each stream: a character may be cut between two pieces of one of them.
    decoders = {stream: codecs.getincrementaldecoder("utf-8")(errors="replace") for stream in (1, 2)}
    async for chunk in with_pauses(chunks, call.settings.heartbeat):
        if gone(call.request):
            break
        if chunk is not None:
            await response.write(decoders[chunk.stream].decode(chunk.data).encode())
    return response


@counted
async def execute(call: Call) -> Any:
    command: tuple[str, ...] = call.query["command"]
    if not command:
        raise SchemaInvalid("Invalid value for field 'command': a command is wanted.")
    ident = call.path["container"]
    if call.query["run"]:
        output, exit_code = await looking.execute(call.cloud, call.actor, ident, command)
        return {"output": output, "exit_code": exit_code, "exec_id": None, "proxy_url": None}
    token, exec_id = await consoles.open_exec(call.cloud, call.actor, ident, command)
    # Zun leaves the exec id for the client to add, and its client 5.5 does not; one that does says it twice.
    url = f"{await console_url(call, ident, token)}&exec_id={exec_id}"
    return {"output": None, "exit_code": None, "exec_id": exec_id, "proxy_url": url}


async def attach(call: Call) -> Any:
    token = await consoles.open_attach(call.cloud, call.actor, call.path["container"])
    return await console_url(call, call.path["container"], token)


async def console_url(call: Call, ident: str, token: str) -> str:
    """Where a console is opened with ``token``."""
    uuid = (await containers.get(call.cloud, call.actor, ident)).uuid
    base = call.settings.console_url or "ws" + call.base_url.removeprefix("http")
    return f"{base.rstrip('/').removesuffix('/v1')}/v1/consoles?token={token}&uuid={uuid}"


async def resize(call: Call) -> Any:
    width, height = call.query["w"], call.query["h"]
    await consoles.resize(call.cloud, call.actor, call.path["container"], width, height)


async def execute_resize(call: Call) -> Any:
    await consoles.execute_resize(
        call.cloud,
        call.actor,
        call.path["container"],
        call.query["exec_id"],
        call.query["w"],
        call.query["h"],
    )


@counted
async def top(call: Call) -> Any:
    ident = call.path["container"]
    return views.top(await looking.top(call.cloud, call.actor, ident, call.query["ps_args"]))


@counted
async def stats(call: Call) -> Any:
    found, sample = await looking.stats(call.cloud, call.actor, call.path["container"])
    return views.stats(found.name, sample)


@counted
async def commit(call: Call) -> Any:
    uuid = await looking.commit(
        call.cloud,
        call.actor,
        call.path["container"],
        call.query["repository"],
        call.query["tag"] or "latest",
        call.token,
    )
    return {"uuid": uuid}


@counted
async def get_archive(call: Call) -> Any:
    as_tar = call.version >= _TAR_SINCE and TAR in call.request.headers.get("Accept", "")
    async with looking.get_archive(call.cloud, call.actor, call.path["container"], call.query["path"]) as archive:
        stat, pieces = archive
        view = views.path_stat(stat)
        if as_tar:
            told = base64.b64encode(msgspec.json.encode(view)).decode()
            response = web.StreamResponse(headers={"Content-Type": TAR, STAT_HEADER: told})
            await response.prepare(call.request)
            async for piece in pieces:
                await response.write(piece)
            return response
        data = bytearray()
        async for piece in pieces:
            data += piece
            if len(data) > call.settings.archive_limit:
                raise TooLarge(
                    f"The archive is larger than {call.settings.archive_limit} bytes: ask for it with microversion "
                    f"{_TAR_SINCE} and 'Accept: {TAR}'."
                )
    text = base64.b64encode(data).decode() if call.version >= _BASE64_SINCE else data.decode(errors="replace")
    return {"data": text, "stat": view}


def takes_tar(request: web.Request, version: Version) -> bool:
    """Whether the body of this put_archive is the tar itself."""
    return version >= _TAR_SINCE and request.content_type == TAR


@counted
async def put_archive(call: Call) -> Any:
    ident, path = call.path["container"], call.query["path"]
    if takes_tar(call.request, call.version):
        pieces: AsyncIterator[bytes] = bodies.pieces(call.request)
    else:
        pieces = _whole(call.query["data"])
    await looking.put_archive(call.cloud, call.actor, ident, path, pieces)


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]
