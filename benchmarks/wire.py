"""A small HTTP/1.1 client that costs little itself: keep-alive, requests made once, answers read by length."""

import asyncio
import json
import time
from base64 import b64encode
from typing import Any

from msgspec import Struct
from tests.system.cloud import HigginsUp


class Answer(Struct, frozen=True):
    """Status and body of an answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Target:
    """A cloud's API as its administrator sees it; paths are below /v1."""

    def __init__(self, cloud: HigginsUp) -> None:
        host, port = cloud.listen.rsplit(":", 1)
        self.address = (host, int(port))
        openrc = cloud.openrc()
        secret = b64encode(f"{openrc['OS_USERNAME']}:{openrc['OS_PASSWORD']}".encode()).decode()
        self._head = (
            f"Host: {cloud.listen}\r\nAuthorization: Basic {secret}\r\nOpenStack-API-Version: container 1.41\r\n"
        )

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """The bytes of a request."""
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{kind}Content-Length: {len(data)}\r\n\r\n"
        return head.encode() + data

    async def connect(self) -> "Connection":
        return Connection(*await asyncio.open_connection(*self.address, limit=2**24))


class Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, request: bytes) -> Answer:
        """One request and its answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length, chunked = 0, False
        for line in head.lower().split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                length = int(line[15:])
            chunked = chunked or line == b"transfer-encoding: chunked"
        return Answer(status, await self._chunks() if chunked else await self._reader.readexactly(length))

    async def _chunks(self) -> bytes:
        body = b""
        while length := int(await self._reader.readuntil(b"\r\n"), 16):
            body += await self._reader.readexactly(length)
            await self._reader.readuntil(b"\r\n")
        await self._reader.readuntil(b"\r\n")
        return body

    def close(self) -> None:
        self._writer.close()


async def rate(target: Target, request: bytes, *, at_once: int, seconds: float) -> float:
    """Requests a second over ``at_once`` connections. Every answer has to be a success."""
    connections = [await target.connect() for _ in range(at_once)]
    for connection in connections:  # the first answer pays for caches that all later ones find
        await connection.send(request)
    start = time.perf_counter()
    counts = await asyncio.gather(*(_repeat(each, request, start + seconds) for each in connections))
    took = time.perf_counter() - start
    for connection in connections:
        connection.close()
    return sum(counts) / took


async def _repeat(connection: Connection, request: bytes, end: float) -> int:
    count = 0
    while time.perf_counter() < end:
        answer = await connection.send(request)
        if answer.status >= 400:
            raise RuntimeError(f"{answer.status}: {answer.body[:500]!r}")
        count += 1
    return count


async def burst(target: Target, requests: list[bytes], *, at_once: int) -> float:
    """Send all of these over ``at_once`` connections; how many a second were accepted."""
    waiting = list(reversed(requests))

    async def work(connection: Connection) -> None:
        while waiting:
            answer = await connection.send(waiting.pop())
            if answer.status >= 400:
                raise RuntimeError(f"{answer.status}: {answer.body[:500]!r}")

    connections = [await target.connect() for _ in range(at_once)]
    start = time.perf_counter()
    await asyncio.gather(*(work(connection) for connection in connections))
    took = time.perf_counter() - start
    for connection in connections:
        connection.close()
    return len(requests) / took
