"""Streams that stay open: how many a project may have, and that they end with the server."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from aiohttp import web

from higgins.api.errors import TooManyStreams

T = TypeVar("T")


class OpenStreams:
    """What is open now: events, followed logs, consoles, and requests that a host is busy with."""

    def __init__(self, per_project: int) -> None:
        self._per_project = per_project
        self._count: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[object]] = set()

    @contextmanager
    def one(self, project_id: str, *, listens: bool = True) -> Iterator[None]:
        """For as long as a stream of ``project_id`` is open; raises ``TooManyStreams``.

        One that only ``listens`` is ended with the server.
        """
        if self._count[project_id] >= self._per_project:
            raise TooManyStreams(f"The project has {self._per_project} streams open already; close one first.")
        task = asyncio.current_task() if listens else None
        self._count[project_id] += 1
        if task is not None:
            self._tasks.add(task)
        try:
            yield
        finally:
            self._count[project_id] -= 1
            if not self._count[project_id]:
                del self._count[project_id]
            if task is not None:
                self._tasks.discard(task)

    async def shut(self, _app: web.Application) -> None:
        """End them all: a server that stops waits for nobody who only listens."""
        for task in self._tasks:
            task.cancel()


async def with_pauses(items: AsyncIterator[T], seconds: float) -> AsyncIterator[T | None]:
    """The items as they come, and None whenever none came for ``seconds``."""
    pending: asyncio.Task[T] | None = None
    try:
        while True:
            if pending is None:
                pending = asyncio.ensure_future(anext(items))
            done, _ = await asyncio.wait((pending,), timeout=seconds)
            if not done:
                yield None
                continue
            finished, pending = pending, None
            try:
                item = finished.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait((pending,))
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def gone(request: web.Request) -> bool:
    """Whether the caller hung up."""
    return request.transport is None or request.transport.is_closing()
