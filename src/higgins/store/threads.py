"""Threads in which transactions run, and how their answers come back to the event loop.

An executor of the standard library wraps each answer in two futures and four locks: as much work as a short read is.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Answer(Generic[T]):
    """What a thread will say to one who waits in the event loop. Made there; all else is for the thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self.future.cancelled()

    def take(self, job: Callable[[], T]) -> bool:
        """Say what the job returns, or raises: who asked decides. Nothing is done for nobody. Whether it returned."""
        if not self.wanted:
            return False
        try:
            self.give(job())
        except BaseException as error:
            self.refuse(error)
            return False
        return True

    def give(self, result: T) -> None:
        self._tell(self.future.set_result, result)

    def refuse(self, error: BaseException) -> None:
        self._tell(self.future.set_exception, error)

    def _tell(self, how: Callable[[Any], None], what: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told, how, what)

    def _told(self, how: Callable[[Any], None], what: object) -> None:
        if not self.future.done():
            how(what)


class Threads:
    """At most so many; there are no more than were needed at once."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []

    def ask(self, job: Callable[[], T]) -> "asyncio.Future[T]":
        """Have one of them do this, and say what comes of it."""
        answer: Answer[T] = Answer()
        self.run(lambda: answer.take(job))
        return answer.future

    def run(self, job: Callable[[], object]) -> None:
        """Have one of them do this, which raises nothing."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # what it holds is not needed while the next one is waited for
            with self._lock:
                self._idle += 1

    def close(self) -> None:
        """Do what is left to do, and end."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
