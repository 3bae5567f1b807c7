"""Two small HTTP/1.1 clients over keep-alive: one for a request now and then, and one that loads a server and costs
little itself, since the machine that it measures is its own."""

import asyncio
import json
import selectors
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct, field

from benchmarks.table import p50, p99

#: Bytes that one call to the kernel may bring.
_PIECE = 2**18
#: Seconds after which a server that says nothing more has failed.
PATIENCE = 60


class Answer(Struct, frozen=True):
    """Status and body of an answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Served(Protocol):
    """An API that is served at an address and port, and who may use it."""

    listen: str

    def openrc(self) -> Mapping[str, str]:
        """The environment of its user."""


def _secret(openrc: Mapping[str, str]) -> str:
    return b64encode(f"{openrc['OS_USERNAME']}:{openrc['OS_PASSWORD']}".encode()).decode()


class Target:
    """An API as its user sees it, in one microversion; paths are below /v1. ``token``: one of Keystone's, if it goes by
    those."""

    def __init__(self, served: Served, version: str = "1.40", token: str = "") -> None:
        host, port = served.listen.rsplit(":", 1)
        self.address = (host, int(port))
        who = f"X-Auth-Token: {token}" if token else f"Authorization: Basic {_secret(served.openrc())}"
        self._head = f"Host: {served.listen}\r\n{who}\r\nOpenStack-API-Version: container {version}\r\n"

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
        return Answer(int(head[9:12]), await self._reader.readexactly(_length(head)))

    def close(self) -> None:
        self._writer.close()


class Load(Struct):
    """What a load was answered: seconds of each request, in the order of the answers, and of the whole."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    @property
    def p50(self) -> float:
        return p50(self.latencies)

    @property
    def p99(self) -> float:
        return p99(self.latencies)


class _Lane:
    """One connection of a load: what of its answer is still to come."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = b""
        self._missing = 0

    def send(self, request: bytes) -> None:
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Read what is there; whether the answer is whole. Raises RuntimeError for one that is no success."""
        data = self.socket.recv(_PIECE)
        if not data:
            raise RuntimeError("the server hung up")
        if self._missing:
            self._missing -= len(data)
            return not self._missing
        self._head += data
        end = self._head.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        head, body = self._head[:end], self._head[end:]
        if int(head[9:12]) >= 400:
            raise RuntimeError(f"{head[9:12].decode()}: {body[:500]!r}")
        self._head, self._missing = b"", _length(head) - len(body)
        return not self._missing


def _length(head: bytes) -> int:
    """The length of the body after this head; every answer of the API but streams tells it."""
    low = head.lower()
    start = low.find(b"content-length:")
    return 0 if start < 0 else int(low[start + 15 : low.index(b"\r\n", start)])


def drive(target: Target, following: Callable[[], bytes | None], *, at_once: int) -> Load:
    """Send what ``following`` gives over ``at_once`` connections until it gives None. All answers must be successes."""
    load = Load()
    with selectors.DefaultSelector() as selector:
        lanes = [_Lane(target.address) for _ in range(at_once)]
        busy = 0
        start = time.perf_counter()
        for lane in lanes:
            selector.register(lane.socket, selectors.EVENT_READ, lane)
            if (request := following()) is not None:
                lane.send(request)
                busy += 1
        while busy:
            ready = selector.select(PATIENCE)
            if not ready:
                raise TimeoutError("the server does not answer")
            for key, _ in ready:
                lane = key.data
                if not lane.answered():
                    continue
                load.latencies.append(time.perf_counter() - lane.sent)
                if (request := following()) is None:
                    busy -= 1
                else:
                    lane.send(request)
        load.seconds = time.perf_counter() - start
        for lane in lanes:
            lane.socket.close()
    return load


def repeated(target: Target, request: bytes, *, at_once: int, seconds: float) -> Load:
    """The same request for so long, after a few that pay for caches which all later ones find."""
    few = iter([request] * 2 * at_once)
    drive(target, lambda: next(few, None), at_once=at_once)
    end = time.perf_counter() + seconds
    return drive(target, lambda: request if time.perf_counter() < end else None, at_once=at_once)


def each(target: Target, requests: list[bytes], *, at_once: int) -> Load:
    """All of these, once each."""
    waiting = iter(requests)
    return drive(target, lambda: next(waiting, None), at_once=at_once)
