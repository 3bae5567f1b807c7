"""A terminal of this host, served to the control plane: the other end of ``RemoteTerminal``."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from aiohttp import web

from higgins.control.wire import PIECE, ExecStart, Word, encode, pieces, tell
from higgins.model.errors import HigginsError
from higgins.runtimes.base import Terminal

LOG = logging.getLogger(__name__)

_word = msgspec.json.Decoder(Word)
_start = msgspec.json.Decoder(ExecStart)


async def serve_terminal(
    request: web.Request, opened: Callable[[ExecStart], Awaitable[Terminal]]
) -> web.StreamResponse:
    """Open a terminal as the first message says, and pass bytes on until either end leaves."""
    socket = web.WebSocketResponse(compress=False, max_msg_size=2 * PIECE, timeout=2.0)
    await socket.prepare(request)
    first = await socket.receive()
    if first.type != aiohttp.WSMsgType.TEXT:
        await socket.close()
        return socket
    try:
        terminal = await opened(_start.decode(first.data))
    except HigginsError as error:
        await _say(socket, Word(error=tell(error)))
        await socket.close()
        return socket
    try:
        await _say(socket, Word(opened=True))
        await _pump(socket, terminal)
    except ConnectionError:
        LOG.debug("the control plane left a terminal")
    finally:
        await terminal.close()
    await socket.close()
    return socket


async def _pump(socket: web.WebSocketResponse, terminal: Terminal) -> None:
    printed = asyncio.create_task(_print(socket, terminal))
    typed = asyncio.create_task(_type(socket, terminal))
    try:
        done, _ = await asyncio.wait((printed, typed), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (printed, typed):
            task.cancel()
        await asyncio.gather(printed, typed, return_exceptions=True)


async def _print(socket: web.WebSocketResponse, terminal: Terminal) -> None:
    """Until the output ends; then tell how."""
    try:
        while (chunk := await terminal.read()) is not None:
            for piece in pieces(chunk.data):
                await socket.send_bytes(bytes((chunk.stream,)) + piece)
        last = Word(ended=True, exit_code=await terminal.exit_code())
    except HigginsError as error:
        last = Word(error=tell(error))
    await _say(socket, last)


async def _type(socket: web.WebSocketResponse, terminal: Terminal) -> None:
    """Until the other end leaves."""
    async for message in socket:
        try:
            if message.type == aiohttp.WSMsgType.BINARY:
                await terminal.write(message.data)
            elif message.type == aiohttp.WSMsgType.TEXT:
                await _heed(terminal, _word.decode(message.data))
        except HigginsError as error:
            # Most often the process has just ended. Its output tells how, and is still on its way.
            LOG.info("A terminal takes no more: %s", error)


async def _heed(terminal: Terminal, word: Word) -> None:
    if word.size is not None:
        await terminal.resize(*word.size)
    if word.no_more_input:
        await terminal.close_stdin()


async def _say(socket: web.WebSocketResponse, word: Word) -> None:
    await socket.send_str(encode(word).decode())
