"""Exec through containerd's Tasks service, with named pipes on this host for the streams.

CRI's streaming server of containerd 1.6 and 1.7 has no way to end a command's input over a websocket; here it is one
call. The command runs as the container's own process does: user, capabilities, limits and environment are taken from
its OCI specification, as CRI itself does. Leaving ends a command that still runs, as in CRI: nobody reads it any more.
"""

import asyncio
import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from higgins.model.errors import ContainerGone, EngineError, HigginsError
from higgins.runtimes.base import LogChunk
from higgins.runtimes.cri.containerd import Containerd, message

_BLOCK = 1 << 16
_END_OF_FILE = b"\x04"
#: Seconds that a killed command may take to end.
_REAP = 10


class Exec:
    """A ``Terminal`` of base.py. ``container`` is the engine's id, ``place`` a directory to make for the pipes."""

    def __init__(self, containerd: Containerd, container: str, place: Path, *, tty: bool) -> None:
        self._containerd, self._container, self._place, self._tty = containerd, container, place, tty
        self._id = uuid4().hex
        self._chunks: asyncio.Queue[LogChunk | None] = asyncio.Queue(maxsize=4)
        self._readers: list[asyncio.Task[None]] = []
        self._outputs: list[asyncio.ReadTransport] = []
        self._open = 0
        self._stdin: asyncio.StreamWriter | None = None
        self._exit_code: int | None = None
        self._failure: HigginsError | None = None
        self._watch: asyncio.Task[None] | None = None
        self._known = False

    async def start(self, command: tuple[str, ...], *, stdin: bool) -> None:
        """Run it. Raises ``EngineError`` where the command cannot be run."""
        record = await self._containerd.container(self._container)
        process: dict[str, Any] = json.loads(record.spec.value)["process"]
        process |= {"args": list(command), "terminal": self._tty}
        if self._tty and not any(one.startswith("TERM=") for one in process.get("env", ())):
            process["env"] = [*process.get("env", ()), "TERM=xterm"]
        wanted = {"stdin": stdin, "stdout": True, "stderr": not self._tty}
        paths = {name: str(self._place / name) for name, wish in wanted.items() if wish}
        self._place.mkdir(mode=0o700, parents=True)
        try:
            for path in paths.values():
                os.mkfifo(path, 0o600)
            for stream, name in enumerate(("stdout", "stderr"), 1):
                if name in paths:
                    await self._read_from(paths[name], stream)
            request = self._named("Exec", terminal=self._tty, **paths)
            request.spec.type_url = record.spec.type_url.rpartition("/")[0] + "/Process"
            request.spec.value = json.dumps(process).encode()
            await self._containerd.ask("tasks.v1.Tasks/Exec", request, "Empty")
            self._known = True
            await self._containerd.ask("tasks.v1.Tasks/Start", self._named("ProcessId"), "Empty", timeout=None)
            self._watch = asyncio.create_task(self._watch_the_end())
            if stdin:
                await self._write_to(paths["stdin"])
        except BaseException:
            await self.close()
            raise

    async def read(self) -> LogChunk | None:
        while self._open > 0:
            chunk = await self._chunks.get()
            if chunk is not None:
                return chunk
            self._open -= 1  # one of the streams has ended
        if self._failure is not None:
            raise self._failure
        return None

    async def write(self, data: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        if self._stdin is None:
            raise EngineError("The command reads no input.")
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except ConnectionError as error:
            raise EngineError("The command reads no more input.") from error

    async def close_stdin(self) -> None:
        if self._tty:
            await self.write(_END_OF_FILE)
        elif self._stdin is not None:
            stdin, self._stdin = self._stdin, None
            stdin.close()  # what is buffered is written first
            with suppress(ConnectionError):  # a command may end without reading it all
                await stdin.wait_closed()
            with suppress(ContainerGone):  # ended already
                await self._containerd.ask("tasks.v1.Tasks/CloseIO", self._named("CloseIO", stdin=True), "Empty")

    async def resize(self, width: int, height: int) -> None:
        request = self._named("Resize", width=width, height=height)
        await self._containerd.ask("tasks.v1.Tasks/ResizePty", request, "Empty")

    async def exit_code(self) -> int | None:
        if self._watch is not None:
            await asyncio.wait([self._watch])
        if self._failure is not None:
            raise self._failure
        return self._exit_code

    async def close(self) -> None:
        self._stop_reading()
        if self._stdin is not None:
            self._stdin.transport.abort()
            self._stdin = None
        if self._known:
            self._known = False
            # What cannot be ended or forgotten now ends with the container; who leaves need not know.
            with suppress(EngineError):
                await self._end()
        if self._watch is not None:
            self._watch.cancel()
        shutil.rmtree(self._place, ignore_errors=True)

    def _stop_reading(self) -> None:
        for reader in self._readers:
            reader.cancel()
        for output in self._outputs:
            output.close()
        while not self._chunks.empty():
            self._chunks.get_nowait()
        self._open = 0
        self._chunks.put_nowait(None)  # for one that waits

    async def _watch_the_end(self) -> None:
        """Know the exit code, or that it will never be known: the pipes alone do not tell that the engine is gone."""
        request = self._named("ProcessId")
        try:
            answer = await self._containerd.ask("tasks.v1.Tasks/Wait", request, "ExitStatus", timeout=None)
        except HigginsError as error:
            self._failure = error
            self._stop_reading()
        else:
            self._exit_code = int(answer.exit_status)

    async def _end(self) -> None:
        """Kill what still runs, and let the engine forget it."""
        if self._exit_code is None:
            with suppress(EngineError):  # ended already, or never started
                await self._containerd.ask("tasks.v1.Tasks/Kill", self._named("Kill", signal=signal.SIGKILL), "Empty")
            if self._watch is not None:
                await asyncio.wait([self._watch], timeout=_REAP)
        await self._containerd.ask("tasks.v1.Tasks/DeleteProcess", self._named("ProcessId"), "Empty")

    def _named(self, kind: str, **fields: Any) -> Any:
        return message[kind](container_id=self._container, exec_id=self._id, **fields)

    async def _read_from(self, path: str, stream: int) -> None:
        # Opened before there is a writer, which a pipe in non-blocking mode allows; the end is told only after one.
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_BLOCK)
        pipe = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._outputs.append(transport)
        self._open += 1
        self._readers.append(asyncio.create_task(self._pump(reader, stream)))

    async def _pump(self, reader: asyncio.StreamReader, stream: int) -> None:
        while data := await reader.read(_BLOCK):
            await self._chunks.put(LogChunk(stream, data))
        await self._chunks.put(None)

    async def _write_to(self, path: str) -> None:
        # The engine has opened its end by now.
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0)
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        transport, _ = await loop.connect_write_pipe(lambda: protocol, pipe)
        self._stdin = asyncio.StreamWriter(transport, protocol, None, loop)


async def execute(
    containerd: Containerd, engine_id: str, command: tuple[str, ...], place: Path, *, tty: bool, stdin: bool
) -> Exec:
    """Start a command in a running container. ``place`` is a directory that the engine sees at the same path."""
    started = Exec(containerd, engine_id, place, tty=tty)
    await started.start(command, stdin=stdin)
    return started
