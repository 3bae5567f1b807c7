"""Who asks while others are being served waits for them, and is served together with all who came meanwhile."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

#: Answers those who ask, in their order.
Serve = Callable[[list[A]], Awaitable[list[R]]]


class Gathering(Generic[A, R]):
    """Serves groups of at most ``most``, one after the other. Bound to the event loop that asks.

    Who comes first waits ``pause`` seconds for others.
    """

    def __init__(self, most: int, pause: float = 0.0) -> None:
        self._most = most
        self._pause = pause
        self._waiting: deque[tuple[A, asyncio.Future[R]]] = deque()
        self._serving: asyncio.Task[None] | None = None

    async def ask(self, one: A, serve: Serve[A, R]) -> R:
        """The answer. Where ``serve`` fails, all of its group are told. Who is cancelled in time is left out."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, answer))
        if self._serving is None:
            self._serving = asyncio.create_task(self._run(serve), name="higgins-gathering")
        return await answer

    async def _run(self, serve: Serve[A, R]) -> None:
        group: list[tuple[A, asyncio.Future[R]]] = []
        try:
            while self._waiting:
                if self._pause:
                    await asyncio.sleep(self._pause)
                taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
                group = [(one, answer) for one, answer in taken if not answer.done()]
                if group:
                    await self._answer(group, serve)
        finally:
            self._serving = None
            for _, answer in [*group, *self._waiting]:  # only where this task itself was cancelled
                answer.cancel()
            self._waiting.clear()

    async def _answer(self, group: list[tuple[A, asyncio.Future[R]]], serve: Serve[A, R]) -> None:
        try:
            answers = await serve([one for one, _ in group])
        except Exception as error:  # handed to those who asked, who decide
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), result in zip(group, answers, strict=True):
            if not answer.done():
                answer.set_result(result)
