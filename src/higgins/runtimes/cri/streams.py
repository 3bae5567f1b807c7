"""Exec and attach: the engine gives a URL, and a websocket there carries the streams.

The protocol is Kubernetes' ``v4.channel.k8s.io`` (k8s.io/apimachinery, remotecommand): each binary frame begins with
the number of its channel. In v4 the end of standard input cannot be said; ``v5.channel.k8s.io`` has it, and is asked
for first. With an engine that answers with v4 (containerd, up to 2.1) ``close_stdin`` sends an end-of-file character to
a terminal, and for a process without one raises ``NotImplementedHere``.
"""

import json
from typing import Any

import aiohttp
from cri_api.v1 import api_pb2 as cri
from yarl import URL

from higgins.model.errors import EngineError, EngineUnavailable, NotImplementedHere
from higgins.runtimes.base import LogChunk
from higgins.runtimes.cri.client import Client
from higgins.runtimes.wording import one_line

_V4, _V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_END_OF_FILE = b"\x04"


def exit_code_of(status: bytes) -> int:
    """The exit code in what the error channel carries at the end: a Kubernetes ``Status``. Raises ``EngineError``."""
    told = json.loads(status)
    if told.get("status") == "Success":
        return 0
    for cause in (told.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise EngineError(f"The command could not be run: {one_line(told.get('message', 'the engine gave no reason'))}")


class Websocket:
    """A ``Terminal`` of base.py over one websocket."""

    def __init__(self, session: aiohttp.ClientSession, socket: Any, *, tty: bool, attached: bool) -> None:
        self._session, self._socket, self._tty, self._attached = session, socket, tty, attached
        self._status: bytes | None = None

    async def read(self) -> LogChunk | None:
        while True:
            frame = await self._socket.receive()
            if frame.type is not aiohttp.WSMsgType.BINARY:
                return None  # closed by either side
            channel, data = frame.data[0], frame.data[1:]
            if channel in (_STDOUT, _STDERR) and data:
                return LogChunk(channel, data)
            if channel == _ERROR and data:
                self._status = data

    async def write(self, data: bytes) -> None:
        await self._send(_STDIN, data)

    async def close_stdin(self) -> None:
        if self._socket.protocol == _V5:
            await self._send(_CLOSE, bytes([_STDIN]))
        elif self._tty:
            await self._send(_STDIN, _END_OF_FILE)
        else:
            raise NotImplementedHere("The container engine of this host cannot end a command's standard input.")

    async def resize(self, width: int, height: int) -> None:
        await self._send(_RESIZE, json.dumps({"Width": width, "Height": height}).encode())

    async def exit_code(self) -> int | None:
        if self._attached:
            return None  # the container's own is seen in a list
        while self._status is None:
            if await self.read() is None and self._status is None:
                raise EngineUnavailable("The connection to the command has ended.")
        return exit_code_of(self._status)

    async def close(self) -> None:
        await self._socket.close()
        await self._session.close()

    async def _send(self, channel: int, data: bytes) -> None:
        try:
            await self._socket.send_bytes(bytes([channel]) + data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise EngineUnavailable("The connection to the command has ended.") from error


async def execute(client: Client, engine_id: str, command: tuple[str, ...], *, tty: bool, stdin: bool) -> Websocket:
    """Start a command in a running container and connect to it."""
    request = cri.ExecRequest(container_id=engine_id, cmd=command, tty=tty, stdin=stdin, stdout=True, stderr=not tty)
    answer = await client.ask(client.runtime.Exec, request, "the container")
    return await _connect(answer.url, tty=tty, attached=False)


async def attach(client: Client, engine_id: str, *, tty: bool, stdin: bool) -> Websocket:
    """Connect to the container's own streams."""
    request = cri.AttachRequest(container_id=engine_id, tty=tty, stdin=stdin, stdout=True, stderr=not tty)
    answer = await client.ask(client.runtime.Attach, request, "the container")
    return await _connect(answer.url, tty=tty, attached=True)


async def _connect(url: str, *, tty: bool, attached: bool) -> Websocket:
    # The token in the URL is good for one use; the streaming server listens on loopback only.
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=10))
    try:
        socket = await session.ws_connect(URL(url, encoded=True), protocols=(_V5, _V4), max_msg_size=0, autoping=True)
    except (TimeoutError, aiohttp.ClientError) as error:
        await session.close()
        raise EngineUnavailable("The container engine of this host does not serve the command's streams.") from error
    except BaseException:
        await session.close()
        raise
    return Websocket(session, socket, tty=tty, attached=attached)
