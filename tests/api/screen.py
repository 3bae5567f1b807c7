"""A program in a terminal of its own, as somebody sits before it."""

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import termios

PATIENCE = 120  # seconds that the client may take to start on a loaded machine


class Screen:
    """A program in a terminal of its own, and what it printed so far."""

    def __init__(self, environment: dict[str, str], *command: str) -> None:
        self._environment, self._command = environment, command
        self._main, self._side = pty.openpty()
        fcntl.ioctl(self._side, termios.TIOCSWINSZ, struct.pack("hhhh", 24, 80, 0, 0))
        self.shown = b""
        self._more = asyncio.Event()
        self._ended = False

    async def __aenter__(self) -> "Screen":
        self.process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdin=self._side, stdout=self._side, stderr=self._side
        )
        os.close(self._side)
        asyncio.get_running_loop().add_reader(self._main, self._read)
        return self

    def _read(self) -> None:
        try:
            data = os.read(self._main, 65536)
        except OSError:  # so a pty says that its other side was closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._main)
            self._ended = True
        self.shown += data
        self._more.set()

    async def shows(self, text: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in self.shown:
                assert not self._ended, self.shown
                self._more.clear()
                await self._more.wait()

    async def answers(self, typed: bytes, text: bytes) -> None:
        """Type until ``text`` is shown: what is typed before the client reads its terminal is thrown away."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.shown:
                self.type(typed)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self.shows(text)

    def type(self, text: bytes) -> None:
        os.write(self._main, text)

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._main)
        os.close(self._main)
