"""The terminals that are open in this process, so that a request of its own can resize one.

The control plane has those that its clients opened here, a host has all of its own: whichever replica is asked, the
host knows the terminal.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from higgins.runtimes.base import LogChunk, Terminal

Size = tuple[int, int]


class OpenTerminals:
    """Terminals that are open in this process, and sizes asked for before one was. Bounded: old sizes are forgotten."""

    def __init__(self) -> None:
        self.terminals: dict[str, set[Terminal]] = {}
        self.sizes: dict[str, Size] = {}

    async def resize(self, key: str, width: int, height: int) -> None:
        self.sizes.pop(key, None)
        self.sizes[key] = (width, height)
        while len(self.sizes) > 1024:
            del self.sizes[next(iter(self.sizes))]
        for terminal in list(self.terminals.get(key, ())):
            await terminal.resize(width, height)

    @asynccontextmanager
    async def hold(self, key: str, terminal: Terminal) -> AsyncIterator[None]:
        self.terminals.setdefault(key, set()).add(terminal)
        try:
            if key in self.sizes:
                await terminal.resize(*self.sizes[key])
            yield
        finally:
            mine = self.terminals[key]
            mine.discard(terminal)
            if not mine:
                del self.terminals[key]
                self.sizes.pop(key, None)


class HeldTerminal:
    """A terminal that is among the open ones until it is closed. ``closing`` does all that closing takes."""

    def __init__(self, terminal: Terminal, closing: AsyncExitStack) -> None:
        self._terminal = terminal
        self._closing = closing

    async def read(self) -> LogChunk | None:
        return await self._terminal.read()

    async def write(self, data: bytes) -> None:
        await self._terminal.write(data)

    async def close_stdin(self) -> None:
        await self._terminal.close_stdin()

    async def resize(self, width: int, height: int) -> None:
        await self._terminal.resize(width, height)

    async def exit_code(self) -> int | None:
        return await self._terminal.exit_code()

    async def close(self) -> None:
        await self._closing.aclose()


async def held(terminals: OpenTerminals, key: str, terminal: Terminal) -> Terminal:
    """The terminal, kept among the open ones under ``key`` until it is closed."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(terminal.close)
        await stack.enter_async_context(terminals.hold(key, terminal))
        return HeldTerminal(terminal, stack.pop_all())
