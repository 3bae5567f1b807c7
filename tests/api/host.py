"""A fake host: it reports what it is told to, and answers for containers it does not have.

Real engines stand behind the same interfaces in the contract and system tests; here only the HTTP face is on trial.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from higgins.control.cloud import Cloud
from higgins.control.hosts import LocalLink
from higgins.control.link import Assignment, HostReport, Known, Member, Observation
from higgins.model.container import Goal
from higgins.model.errors import EngineError, PathNotFound
from higgins.model.images import FoundImage
from higgins.model.resources import HostInfo
from higgins.runtimes.base import Image, LogChunk, LogOptions, PathStat, Processes, RegistryAuth, Stats, Terminal

#: What ends the program in a terminal: Ctrl-D.
END = b"\x04"
LOG_LINES = b"first\nsecond \xff\n"


class FakeTerminal:
    """Prints back what is typed; an exec prints its command and ends with code 3."""

    def __init__(self, output: bytes | None = None) -> None:
        self.typed: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sized = asyncio.Event()
        self.size: tuple[int, int] | None = None
        self.left = asyncio.Event()
        if output is not None:
            self.typed.put_nowait(output)
            self.typed.put_nowait(None)

    async def read(self) -> LogChunk | None:
        data = await self.typed.get()
        return None if data is None else LogChunk(1, data)

    async def write(self, data: bytes) -> None:
        await self.typed.put(None if data == b"exit" or END in data else b"> " + data)

    async def close_stdin(self) -> None:
        await self.typed.put(None)

    async def resize(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.sized.set()

    async def exit_code(self) -> int | None:
        return 3

    async def close(self) -> None:
        self.left.set()


class FakeHost:
    """A host under the name ``name`` that settles whatever it is assigned, when told to."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.cloud = cloud
        self.name = name
        self.link = LocalLink(cloud)
        self.number = 0
        self.terminals: list[FakeTerminal] = []
        self.put: list[tuple[str, bytes]] = []
        self.options: LogOptions | None = None
        self.more_logs: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.removed_images: list[str] = []
        self.follows = True  # whether a followed log goes on after what is there
        self.archive = b"a tar, as it were \xff"

    async def join(self) -> None:
        report = HostReport(
            name=self.name,
            zone="nova",
            cpus=64,
            memory=1_000_000,
            disk=10_000,
            info=HostInfo(architecture="x86_64", runtimes=("runc", "runsc"), engine="fake", engine_version="1"),
        )
        self.number = await self.link.register(report)
        self.cloud.connect(self.name, self)

    async def settle(self) -> None:
        """Report every workload as its owner wants it."""
        assigned = await self.link.assignments(self.number, -1, 0)
        assert assigned is not None
        await self.link.observe(self.number, [_observed(one) for one in assigned.workloads])

    async def report(self, state: str, *, error: str = "") -> None:
        """Report every workload in this state, or why it cannot go on."""
        assigned = await self.link.assignments(self.number, -1, 0)
        assert assigned is not None
        seen = [_observed(one, state, error) for one in assigned.workloads]
        await self.link.observe(self.number, seen)

    # what HostStreams asks for
    async def logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]:
        self.options = options
        return self._logs(options)

    async def _logs(self, options: LogOptions) -> AsyncIterator[LogChunk]:
        yield LogChunk(1, LOG_LINES)
        while options.follow and self.follows and (data := await self.more_logs.get()) is not None:
            yield LogChunk(1, data)

    async def exec(
        self, uuid: str, command: tuple[str, ...], *, tty: bool, stdin: bool, exec_id: str | None = None
    ) -> Terminal:
        terminal = FakeTerminal(None if tty else " ".join(command).encode() + b"\xff")
        self.terminals.append(terminal)
        return terminal

    async def attach(self, uuid: str) -> Terminal:
        self.terminals.append(FakeTerminal())
        return self.terminals[-1]

    async def resize(self, uuid: str, exec_id: str | None, width: int, height: int) -> bool:
        return False

    async def stats(self, uuid: str) -> Stats:
        return Stats(cpu_percent=12.5, memory_used=2**20, memory_limit=2**22, block_read=1, block_write=2, net_rx=3)

    async def top(self, uuid: str, ps_args: str | None) -> Processes:
        return Processes(("PID", "CMD"), (("1", f"sleep {ps_args}"),))

    @asynccontextmanager
    async def get_archive(self, uuid: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        if path == "/nowhere":
            raise PathNotFound("There is no /nowhere in the container.")
        yield PathStat("etc", 4096, 0o755, "2026-01-01T00:00:00Z"), self._archive(breaks=path == "/breaks")

    async def _archive(self, *, breaks: bool) -> AsyncIterator[bytes]:
        if breaks:
            yield b"half of it"
            raise EngineError("The engine went away.")
        for start in range(0, len(self.archive), 7000):
            yield self.archive[start : start + 7000]

    async def put_archive(self, uuid: str, path: str, data: AsyncIterator[bytes]) -> None:
        self.put.append((path, b"".join([piece async for piece in data])))

    async def commit(self, uuid: str, name: str) -> str:
        return f"sha256:{name}"

    @asynccontextmanager
    async def save(self, image: str) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._archive(breaks=False)

    async def pull(self, image: str, auth: RegistryAuth | None) -> Image:
        return Image("sha256:1", (image,), 42)

    async def fetch(self, uuid: str, found: FoundImage) -> Image:
        parts = await self.link.image(self.number, uuid, 30)
        assert parts is not None
        return Image(parts.id, (found.engine_name,), sum(layer.size for layer in parts.layers))

    async def remove_image(self, name: str) -> None:
        self.removed_images.append(name)

    async def search(self, term: str) -> list[dict[str, Any]]:
        return [{"name": term, "star_count": 5}, {"name": f"{term}-extra", "star_count": 1}]


_STATES = {Goal.CREATED: "created", Goal.RUNNING: "running", Goal.PAUSED: "paused", Goal.STOPPED: "exited"}


def _observed(one: Assignment, state: str | None = None, error: str = "") -> Observation:
    members = {member.uuid: _known(member, state) for member in one.members if member.goal != Goal.DELETED}
    return Observation(
        workload=one.uuid,
        generation=one.generation,
        members=members,
        gone=one.deleting,
        settled=not one.deleting,
        error=error,
    )


def _known(member: Member, state: str | None) -> Known:
    state = state or _STATES[member.goal]
    return Known(
        incarnation=member.incarnation,
        state=state,
        exit_code=0 if state == "exited" else None,
        order_done=member.order.seq if member.order else 0,
        ended=state == "exited" and member.goal == Goal.RUNNING,
    )
