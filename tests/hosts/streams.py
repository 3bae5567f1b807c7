"""A host's streams without an engine: they say what they are told to, and remember what was done with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from higgins.control.terminals import OpenTerminals, held
from higgins.model.errors import ContainerGone, EngineError, ImageNotFound, PathNotFound
from higgins.model.images import FoundImage
from higgins.runtimes.base import Image, LogChunk, LogOptions, PathStat, Processes, RegistryAuth, Stats, Terminal

CONTAINER = "11111111-1111-1111-1111-111111111111"
BLOCK = bytes(range(256)) * 256  # 64 KiB


class EchoTerminal:
    """Prints ``opened``, then back what is typed; ends with code 7 when nothing more is typed."""

    def __init__(self) -> None:
        self._output: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._output.put_nowait(b"opened")
        self.sizes: list[tuple[int, int]] = []
        self.closed = False

    async def read(self) -> LogChunk | None:
        data = await self._output.get()
        return None if data is None else LogChunk(1, data)

    async def write(self, data: bytes) -> None:
        await self._output.put(data)

    async def close_stdin(self) -> None:
        await self._output.put(None)

    async def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))

    async def exit_code(self) -> int | None:
        return 7

    async def close(self) -> None:
        self.closed = True


class FloodTerminal(EchoTerminal):
    """Prints without end; ``printed`` counts bytes that somebody took."""

    def __init__(self) -> None:
        super().__init__()
        self.printed = 0

    async def read(self) -> LogChunk | None:
        await asyncio.sleep(0)
        self.printed += len(BLOCK)
        return LogChunk(2, BLOCK)


class ScriptedStreams:
    """``HostStreams`` for tests. A container named ``gone`` is not there."""

    def __init__(self) -> None:
        self.size = 0  # bytes of the archive or the log that is read
        self.breaks_off = False  # the archive and the logs fail in their midst
        self.received = 0  # bytes of the archive that was written
        self.complete = False  # whether all of it came
        self.refuses = False
        self.asked: list[Any] = []
        self.open = 0  # streams that are being read
        self.closed = asyncio.Event()  # set whenever one was closed
        self.terminals: list[EchoTerminal] = []
        self._open = OpenTerminals()
        self.more: asyncio.Queue[bytes | None] = asyncio.Queue()

    def _there(self, uuid: str) -> None:
        if uuid == "gone":
            raise ContainerGone("The container is not there any more.")

    async def logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]:
        self._there(uuid)
        self.asked.append(options)
        return self._logs(options)

    async def _logs(self, options: LogOptions) -> AsyncIterator[LogChunk]:
        self.open += 1
        try:
            yield LogChunk(1, b"out\n")
            yield LogChunk(2, b"err\n")
            for _ in range(self.size // len(BLOCK)):
                yield LogChunk(1, BLOCK)
            if self.breaks_off:
                raise EngineError("The engine lost the log.")
            while options.follow and (data := await self.more.get()) is not None:
                yield LogChunk(1, data)
        finally:
            self.open -= 1
            self.closed.set()

    async def exec(
        self, uuid: str, command: tuple[str, ...], *, tty: bool, stdin: bool, exec_id: str | None = None
    ) -> Terminal:
        self._there(uuid)
        self.asked.append((command, tty, stdin))
        terminal = self._opened(FloodTerminal() if command == ("yes",) else EchoTerminal())
        return terminal if exec_id is None else await held(self._open, f"{uuid}/{exec_id}", terminal)

    async def attach(self, uuid: str) -> Terminal:
        self._there(uuid)
        return await held(self._open, uuid, self._opened(EchoTerminal()))

    async def resize(self, uuid: str, exec_id: str | None, width: int, height: int) -> bool:
        key = uuid if exec_id is None else f"{uuid}/{exec_id}"
        await self._open.resize(key, width, height)
        return key in self._open.terminals

    def _opened(self, terminal: EchoTerminal) -> EchoTerminal:
        self.terminals.append(terminal)
        return terminal

    async def stats(self, uuid: str) -> Stats:
        self._there(uuid)
        return Stats(cpu_percent=1.5, memory_used=1, memory_limit=2)

    async def top(self, uuid: str, ps_args: str | None) -> Processes:
        return Processes(("PID", "ARGS"), (("1", str(ps_args)),))

    @asynccontextmanager
    async def get_archive(self, uuid: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        if path == "/nowhere":
            raise PathNotFound("There is no /nowhere in the container.")
        yield PathStat("é", self.size, 0o755, "2026-01-01T00:00:00Z"), self._archive()

    async def _archive(self) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            left = self.size
            while left > 0:
                piece = BLOCK[:left]
                left -= len(piece)
                yield piece
            if self.breaks_off:
                raise EngineError("The engine lost the archive.")
        finally:
            self.open -= 1
            self.closed.set()

    async def put_archive(self, uuid: str, path: str, data: AsyncIterator[bytes]) -> None:
        self.open += 1
        self.received, self.complete = 0, False
        try:
            if self.refuses:
                raise PathNotFound(f"There is no {path} in the container.")
            async for piece in data:
                self.received += len(piece)
            self.complete = True
        finally:
            self.open -= 1
            self.closed.set()

    async def commit(self, uuid: str, name: str) -> str:
        return f"sha256:{name}"

    @asynccontextmanager
    async def save(self, image: str) -> AsyncIterator[AsyncIterator[bytes]]:
        if image == "missing":
            raise ImageNotFound("The image missing was not found.")
        yield self._archive()

    async def pull(self, image: str, auth: RegistryAuth | None) -> Image:
        self.asked.append((image, auth))
        if image == "missing":
            raise ImageNotFound("The image missing was not found.")
        return Image("sha256:1", (image,), 42)

    async def fetch(self, uuid: str, found: FoundImage) -> Image:
        self.asked.append((uuid, found))
        return Image("sha256:2", (found.engine_name,), found.size)

    async def remove_image(self, name: str) -> None:
        self.asked.append(name)

    async def search(self, term: str) -> list[dict[str, Any]]:
        return [{"name": term, "stars": 5}]
