"""The conversation with the engine: aiodocker's session with the version agreed, time limits, and streams both ways.

Everything that reaches past aiodocker's public face is in this module: its verbs for logs, archives and events hold
whole answers in memory or decode bytes that must stay as they are.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from aiodocker.stream import Stream
from yarl import URL

from higgins.model.errors import EngineError, HigginsError
from higgins.runtimes.docker.engine import engine_name
from higgins.runtimes.docker.errors import NO_CONNECTION, engine_errors

#: The newest version of the Docker Engine API that this driver was written for, and the oldest that has all it needs.
NEWEST = (1, 47)
OLDEST = (1, 40)

#: Seconds within which an engine answers an ordinary call. Starting a container on a busy host takes several.
PATIENCE = 120.0

Body = bytes | AsyncIterator[bytes] | Mapping[str, Any] | None


def agree(newest: str, oldest: str) -> str:
    """The version of the API to speak with an engine that speaks ``oldest`` to ``newest``; both as "1.41"."""
    theirs = tuple(int(part) for part in newest.split("."))
    floor = tuple(int(part) for part in oldest.split("."))
    chosen = min(theirs, NEWEST)
    if chosen < OLDEST or chosen < floor:
        raise EngineError(
            f"The container engine of this host speaks API {oldest} to {newest}; "
            f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} are understood."
        )
    return ".".join(map(str, chosen))


def lines(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The whole lines in the buffer, and what is left of it."""
    *whole, rest = buffer.split(b"\n")
    return [line for line in whole if line.strip()], rest


class Client:
    """Calls to one engine. Paths are without version; ``missing`` is the error that a 404 stands for."""

    def __init__(self, url: str) -> None:
        # Every followed log and open terminal holds a connection, so the pool must not be bounded.
        self._podman = False
        path = url.removeprefix("unix://")
        self._connector = aiohttp.UnixConnector(path, limit=0) if path != url else None
        # With a connector of ours the URL only gives requests a host name.
        host = url if self._connector is None else "unix://localhost"
        self._docker = Docker(url=host, connector=self._connector, timeout=aiohttp.ClientTimeout(sock_connect=10))

    async def close(self) -> None:
        await self._docker.close()
        if self._connector is not None:
            await self._connector.close()

    async def version(self) -> dict[str, Any]:
        """What the engine says of itself, asked without a version."""
        with engine_errors():
            return dict(await self._docker._query_json("version", versioned_api=False))

    async def is_podman(self) -> bool:
        """Whether Podman speaks through its compatible socket; it differs where this is asked."""
        await self._agree()
        return self._podman

    async def _agree(self) -> None:
        if self._docker.api_version == "auto":
            said = await self.version()
            self._podman = engine_name(said) == "podman"
            version = agree(str(said["ApiVersion"]), str(said.get("MinAPIVersion") or said["ApiVersion"]))
            self._docker.api_version = f"v{version}"

    def _forget_if_lost(self, error: DockerError) -> None:
        """An engine that went away may come back upgraded, with another range of versions."""
        if error.status == NO_CONNECTION:
            self._docker.api_version = "auto"

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        missing: HigginsError | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, body unread. There is no time limit on reading it."""
        await self._agree()
        sent = dict(headers or {})
        if isinstance(body, Mapping):
            body = json.dumps(body).encode()
        elif body is not None:
            sent.setdefault("Content-Type", "application/x-tar")
        with engine_errors(missing):
            try:
                response = await self._docker._do_query(
                    path, method, params=dict(params or {}), data=body, headers=sent
                )
            except DockerError as error:
                self._forget_if_lost(error)
                raise
        try:
            yield response
        finally:
            # An unread stream has no end to wait for: drop its connection. A finished one is reused.
            if response.content.at_eof():
                await response.release()
            else:
                response.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        missing: HigginsError | None = None,
        patience: float = PATIENCE,
    ) -> Any:
        """The decoded JSON of the answer, None where it has none. ``patience`` in seconds."""
        with engine_errors():
            async with asyncio.timeout(patience):
                async with self.open(method, path, params=params, body=body, missing=missing) as response:
                    data = await response.read()
        return json.loads(data) if data.strip() else None

    async def head(self, path: str, *, params: Mapping[str, str], missing: HigginsError) -> None:
        """Ask whether it is there. (aiodocker would decode the body, which the answer to a HEAD has not.)"""
        await self._agree()
        with engine_errors(missing):
            url = self._docker._canonicalize_url(path)
            async with self._docker.session.head(url, params=params) as answer:
                if answer.status >= 400:
                    raise DockerError(answer.status, answer.reason or "")

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body in pieces as they come."""
        while True:
            with engine_errors():
                piece = await response.content.readany()
            if not piece:
                return
            yield piece

    async def objects(self, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
        """A body of JSON objects, one a line, however long the lines."""
        buffer = b""
        async for piece in self.chunks(response):
            whole, buffer = lines(buffer + piece)
            for line in whole:
                yield json.loads(line)

    async def upgrade(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        tty: bool,
        missing: HigginsError | None = None,
    ) -> Stream:
        """A connection that leaves HTTP: raw with ``tty``, else in frames of stdout and stderr."""
        await self._agree()

        async def setup() -> tuple[URL, bytes | None, bool]:
            data = None if body is None else json.dumps(body).encode()
            return URL(path).with_query(dict(params or {})), data, tty

        stream = Stream(self._docker, setup)
        try:
            with engine_errors(missing):
                await stream._init()
        except BaseException:
            await close_stream(stream)
            raise
        return stream


def _transport(stream: Stream) -> asyncio.WriteTransport | None:
    """Where input goes; None once the connection is lost or closed."""
    connection = None if stream._resp is None else stream._resp.connection
    transport = None if connection is None else connection.transport
    return None if transport is None or transport.is_closing() else transport


async def write(stream: Stream, data: bytes) -> bool:
    """Send input and wait until there is room for more. False when nobody reads it any more."""
    if stream._closed or _transport(stream) is None:
        return False
    try:
        await stream.write_in(data)
    except (aiohttp.ClientError, OSError):
        return False
    return True


def half_close(stream: Stream) -> None:
    """Tell the other side that no more input comes, and go on reading."""
    transport = _transport(stream)
    if transport is not None and transport.can_write_eof():
        transport.write_eof()


async def close_stream(stream: Stream) -> None:
    """Leave the connection, whatever has become of it. May be done twice."""
    if _transport(stream) is not None:
        await stream.close()
    stream._closed = True
    if stream._resp is not None:
        stream._resp.close()
