"""The terminals that are open in this process, so that a request of its own can resize one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from higgins.runtimes.base import Terminal

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
