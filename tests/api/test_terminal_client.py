"""The unmodified client in a terminal: ``openstack appcontainer attach`` and ``exec --interactive``."""

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios

import pytest

from tests.api.conftest import Caller
from tests.api.host import END, FakeHost
from tests.api.test_actions import running

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

    def type(self, text: bytes) -> None:
        os.write(self._main, text)

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._main)
        os.close(self._main)


@pytest.mark.parametrize(
    "command", [("attach", "web"), ("exec", "--interactive", "web", "sh")], ids=lambda words: words[0]
)
async def test_what_is_typed_gets_in_and_what_is_printed_gets_out(
    api: Caller, host: FakeHost, command: tuple[str, ...]
) -> None:
    await running(api, host, name="web", interactive=True, tty=True)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONWARNINGS": "ignore",
        "TERM": "xterm",
        "OS_AUTH_TYPE": "http_basic",
        "OS_ENDPOINT": str(api.client.make_url("/v1")),
        "OS_USERNAME": "alice",
        "OS_PASSWORD": "alice",
    }
    client = (sys.executable, "-c", "from openstackclient.shell import main; raise SystemExit(main())", "appcontainer")
    async with Screen(environment, *client, *command) as screen:
        await screen.shows(b"connected to")
        async with asyncio.timeout(PATIENCE):
            await host.terminals[-1].sized.wait()  # the client tells the size of its screen first
        assert host.terminals[-1].size == (80, 24)
        screen.type("grüß".encode())
        await screen.shows("> grüß".encode())
        screen.type(END)
        async with asyncio.timeout(PATIENCE):
            assert await screen.process.wait() == 0, screen.shown
            await host.terminals[-1].left.wait()
