"""A terminal on another machine: a websocket whose binary messages are bytes and whose texts are words about them."""

from collections.abc import Callable
from contextlib import ExitStack

import aiohttp
import msgspec

from higgins.control.wire import ExecStart, Word, encode, error_of, pieces
from higgins.model.errors import HostUnavailable
from higgins.runtimes.base import LogChunk

_word = msgspec.json.Decoder(Word)


class RemoteTerminal:
    """The control plane's end: a ``Terminal``. ``unavailable`` makes the error of a host that is gone."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, unavailable: Callable[[], HostUnavailable], holding: ExitStack
    ) -> None:
        self._socket = socket
        self._unavailable = unavailable
        self._holding = holding
        self._over = False
        self._exit_code: int | None = None

    async def open(self, start: ExecStart) -> None:
        """Have the host open it. Raises what the engine raises."""
        await self._send(encode(start).decode())
        word = _word.decode(await self._receive(aiohttp.WSMsgType.TEXT))
        if word.error is not None:
            raise error_of(word.error)

    async def read(self) -> LogChunk | None:
        if self._over:
            return None
        message = await self._socket.receive()
        if message.type == aiohttp.WSMsgType.BINARY:
            return LogChunk(message.data[0], message.data[1:])
        if message.type != aiohttp.WSMsgType.TEXT:
            raise self._unavailable()
        word = _word.decode(message.data)
        if word.error is not None:
            raise error_of(word.error)
        self._over, self._exit_code = True, word.exit_code
        return None

    async def write(self, data: bytes) -> None:
        for piece in pieces(data):
            await self._send(piece)

    async def close_stdin(self) -> None:
        await self._say(Word(no_more_input=True))

    async def resize(self, width: int, height: int) -> None:
        await self._say(Word(size=(width, height)))

    async def exit_code(self) -> int | None:
        return self._exit_code

    async def close(self) -> None:
        try:
            await self._socket.close()
        finally:
            self._holding.close()

    async def _say(self, word: Word) -> None:
        await self._send(encode(word).decode())

    async def _send(self, data: bytes | str) -> None:
        if self._over:
            return  # the process has ended: there is nobody to read it
        try:
            if isinstance(data, str):
                await self._socket.send_str(data)
            else:
                await self._socket.send_bytes(data)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable() from error

    async def _receive(self, kind: aiohttp.WSMsgType) -> str:
        message = await self._socket.receive()
        if message.type != kind:
            raise self._unavailable()
        return str(message.data)
