"""Output of containers as it comes: logs, and the terminals of exec and attach."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC

from aiodocker.stream import Stream

from higgins.model.errors import EngineError
from higgins.runtimes.base import LogChunk, LogOptions
from higgins.runtimes.docker.client import close_stream, half_close, write
from higgins.runtimes.docker.errors import engine_errors

#: A call that sets a terminal's width and height in characters.
Resize = Callable[[int, int], Awaitable[None]]

_HEADER = struct.Struct(">BxxxL")


def log_params(options: LogOptions) -> dict[str, str]:
    """The query of the engine's logs call."""
    params = {
        "stdout": str(int(options.stdout)),
        "stderr": str(int(options.stderr)),
        "timestamps": str(int(options.timestamps)),
        "follow": str(int(options.follow)),
        "tail": "all" if options.tail is None else str(options.tail),
    }
    if options.since is not None:
        params["since"] = f"{options.since.replace(tzinfo=UTC).timestamp():.6f}"
    return params


def frames(buffer: bytes) -> tuple[list[LogChunk], bytes]:
    """The whole frames in the buffer, and what is left of it.

    A frame is a byte that names the stream, three of padding, four of length (big-endian) and the data: "Stream
    format" of the Docker Engine API's attach call.
    """
    found = []
    at = 0
    while len(buffer) - at >= _HEADER.size:
        stream, length = _HEADER.unpack_from(buffer, at)
        end = at + _HEADER.size + length
        if len(buffer) < end:
            break
        if length:
            found.append(LogChunk(stream=2 if stream == 2 else 1, data=buffer[at + _HEADER.size : end]))
        at = end
    return found, buffer[at:]


async def unframed(pieces: AsyncIterator[bytes], *, tty: bool) -> AsyncIterator[LogChunk]:
    """Pieces of a body as chunks; a terminal's output has no frames and is all of stdout."""
    buffer = b""
    async for piece in pieces:
        if tty:
            yield LogChunk(stream=1, data=piece)
            continue
        found, buffer = frames(buffer + piece)
        for chunk in found:
            yield chunk


class DockerTerminal:
    """A ``Terminal`` over an upgraded connection; resizing and the exit code are calls beside it."""

    def __init__(
        self,
        stream: Stream,
        resize: Resize,
        ended: Callable[[], Awaitable[int | None]] | None = None,
    ) -> None:
        self._stream = stream
        self._resize = resize
        self._ended = ended

    async def read(self) -> LogChunk | None:
        with engine_errors():
            message = await self._stream.read_out()
        return None if message is None else LogChunk(stream=2 if message.stream == 2 else 1, data=message.data)

    async def write(self, data: bytes) -> None:
        """Raises ``EngineError`` once the process has ended."""
        if not await write(self._stream, data):
            raise EngineError("The process reads no more input.")

    async def close_stdin(self) -> None:
        half_close(self._stream)

    async def resize(self, width: int, height: int) -> None:
        await self._resize(width, height)

    async def exit_code(self) -> int | None:
        """None for an attach, and while the process goes on without its output."""
        if self._ended is None:
            return None
        for _ in range(200):  # the engine notes the end a moment after the output's
            code = await self._ended()
            if code is not None:
                return code
            await asyncio.sleep(0.05)
        raise EngineError("The command closed its output, but has not ended yet.")

    async def close(self) -> None:
        await close_stream(self._stream)
