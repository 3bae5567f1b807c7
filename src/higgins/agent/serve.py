"""What the control plane asks of this host directly, over HTTPS: ``HostStreams`` as a server.

Only the control plane is answered: its certificate has a name that no host's has. Whatever is passed on goes piece by
piece and waits for its reader; when either end leaves, the other one's stream is closed.
"""

import base64
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from higgins.agent.terminal_sockets import serve_terminal
from higgins.control import wire
from higgins.control.identities import CONTROL_PLANE
from higgins.control.link import HostStreams
from higgins.control.tls import Ends, peer_of
from higgins.control.wire import LARGEST_BODY, STAT_HEADER, STREAMS, ExecStart, FetchImage, Named, PullImage, Resize
from higgins.listening import listen
from higgins.model.errors import EngineError, Forbidden, HigginsError, Invalid
from higgins.runtimes.base import LogOptions, Terminal

LOG = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def open_server(stack: AsyncExitStack, streams: HostStreams, ends: Ends, address: str) -> tuple[str, int]:
    """Serve at ``address`` (host:port; port 0 takes any) until the stack is closed; where it is served."""
    app = make_streams_app(streams)
    # A handler is cancelled when its caller leaves: so a stream that has nothing to say ends too.
    return await listen(stack, app, address, context=ends.server, handler_cancellation=True, shutdown_timeout=1.0)


def make_streams_app(streams: HostStreams) -> web.Application:
    """The application; serve it with a context that insists on certificates."""
    calls = Calls(streams)
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_only_the_control_plane, _errors_told])
    one = f"{STREAMS}/containers/{{container}}"
    app.add_routes(
        [
            web.post(f"{one}/logs", calls.logs),
            web.get(f"{one}/exec", calls.exec),
            web.get(f"{one}/attach", calls.attach),
            web.post(f"{one}/resize", calls.resize),
            web.post(f"{one}/stats", calls.stats),
            web.post(f"{one}/top", calls.top),
            web.get(f"{one}/archive", calls.get_archive, allow_head=False),
            web.put(f"{one}/archive", calls.put_archive),
            web.post(f"{one}/commit", calls.commit),
            web.post(f"{STREAMS}/images/pull", calls.pull),
            web.post(f"{STREAMS}/images/fetch", calls.fetch),
            web.post(f"{STREAMS}/images/save", calls.save),
            web.post(f"{STREAMS}/images/remove", calls.remove_image),
            web.post(f"{STREAMS}/images/search", calls.search),
        ]
    )
    return app


class Calls:
    """One method for each call."""

    def __init__(self, streams: HostStreams) -> None:
        self._streams = streams

    async def logs(self, request: web.Request) -> web.StreamResponse:
        options = await _body(request, LogOptions)
        chunks = await self._streams.logs(_container(request), options)
        async with _closing(chunks):
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                async for chunk in chunks:
                    for piece in wire.pieces(chunk.data):
                        await response.write(wire.frame(chunk.stream, piece))
                last = wire.end()
            except HigginsError as error:
                last = wire.end(error)
            await response.write(last)
            return response

    async def exec(self, request: web.Request) -> web.StreamResponse:
        async def opened(start: ExecStart) -> Terminal:
            return await self._streams.exec(
                _container(request), start.command, tty=start.tty, stdin=start.stdin, exec_id=start.exec_id
            )

        return await serve_terminal(request, opened)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        async def opened(_start: ExecStart) -> Terminal:
            return await self._streams.attach(_container(request))

        return await serve_terminal(request, opened)

    async def resize(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request, Resize)
        return _json(await self._streams.resize(_container(request), asked.exec_id, asked.width, asked.height))

    async def stats(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._streams.stats(_container(request)))

    async def top(self, request: web.Request) -> web.StreamResponse:
        ps_args: str | None = await _body(request, str | None)
        return _json(await self._streams.top(_container(request), ps_args))

    async def get_archive(self, request: web.Request) -> web.StreamResponse:
        async with self._streams.get_archive(_container(request), _path(request)) as (stat, pieces):
            told = base64.b64encode(wire.encode(stat)).decode()
            return await _streamed(request, web.StreamResponse(headers={STAT_HEADER: told}), pieces)

    async def put_archive(self, request: web.Request) -> web.StreamResponse:
        await self._streams.put_archive(_container(request), _path(request), request.content.iter_any())
        return web.Response(status=204)

    async def commit(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._streams.commit(_container(request), (await _body(request, Named)).name))

    async def save(self, request: web.Request) -> web.StreamResponse:
        async with self._streams.save((await _body(request, Named)).name) as pieces:
            return await _streamed(request, web.StreamResponse(), pieces)

    async def pull(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request, PullImage)
        return _json(await self._streams.pull(asked.image, asked.auth))

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request, FetchImage)
        return _json(await self._streams.fetch(asked.uuid, asked.found))

    async def remove_image(self, request: web.Request) -> web.StreamResponse:
        await self._streams.remove_image((await _body(request, Named)).name)
        return _json(None)

    async def search(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._streams.search((await _body(request, Named)).name))


@web.middleware
async def _only_the_control_plane(request: web.Request, handler: Handler) -> web.StreamResponse:
    transport = request.transport
    peer = peer_of(transport.get_extra_info("peercert")) if transport is not None else None
    if peer is None or peer.name != CONTROL_PLANE or peer.until < time.time():
        LOG.warning("%s of %s was refused: it is not the control plane.", request.path, request.remote)
        response = _json(wire.tell(Forbidden("Only the control plane is answered here.")), 403)
        response.force_close()
        return response
    return await handler(request)


@web.middleware
async def _errors_told(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HigginsError as error:
        told = error
    except (web.HTTPException, ConnectionError, aiohttp.ClientError):
        raise
    except Exception:
        LOG.exception("%s failed", request.path)
        told = EngineError("The host failed; its log tells more.")
    return _json(wire.tell(told), told.status)


@contextlib.asynccontextmanager
async def _closing(items: AsyncIterator[Any]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def _streamed(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    await response.prepare(request)
    try:
        async for piece in pieces:
            await response.write(piece)
    except HigginsError as error:
        LOG.warning("An archive broke off: %s", error)
        if request.transport is not None:
            request.transport.abort()  # all that can be told now is that it is not whole
    return response


def _container(request: web.Request) -> str:
    return request.match_info["container"]


def _path(request: web.Request) -> str:
    try:
        return request.query["path"]
    except KeyError as error:
        raise Invalid("'path' is wanted.") from error


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=wire.encode(value), status=status, content_type="application/json")


async def _body(request: web.Request, kind: Any) -> Any:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.MsgspecError as error:
        raise Invalid(f"The request cannot be read: {error}") from error
