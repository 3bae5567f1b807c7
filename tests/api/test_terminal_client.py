"""The unmodified client in a terminal: ``openstack appcontainer attach`` and ``exec --interactive``."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.api.conftest import Caller
from tests.api.host import END, FakeHost
from tests.api.screen import PATIENCE, Screen
from tests.api.test_actions import running


@pytest.fixture
def database(sqlite: Path, tmp_path: Path) -> str:
    """One kind of store is enough here: the client takes long to start, and sees nothing of it."""
    shutil.copy(sqlite, tmp_path / "higgins.db")
    return f"sqlite:///{tmp_path}/higgins.db"


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
        await screen.answers("grüß".encode(), "> grüß".encode())
        screen.type(END)
        async with asyncio.timeout(PATIENCE):
            assert await screen.process.wait() == 0, screen.shown
            await host.terminals[-1].left.wait()
