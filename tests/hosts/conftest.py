"""A control plane on SQLite with its listener for agents, and machines that join it."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from higgins.control.cloud import Actor, Cloud
from higgins.control.link import HostStreams
from higgins.store.database import open_store
from tests.hosts.places import RemoteHost, Replica
from tests.hosts.streams import ScriptedStreams

Joining = Callable[..., Awaitable[RemoteHost]]

SECRET = Fernet.generate_key()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def cloud(stack: AsyncExitStack, sqlite: Path, tmp_path: Path) -> Cloud:
    store = open_store(f"sqlite:///{shutil.copy(sqlite, tmp_path / 'higgins.db')}")
    stack.push_async_callback(store.close)
    return Cloud(store, SECRET)


@pytest.fixture
async def any_cloud(stack: AsyncExitStack, database: str) -> Cloud:
    """The same on a database of each kind in turn."""
    store = open_store(database)
    stack.push_async_callback(store.close)
    return Cloud(store, SECRET)


@pytest.fixture
async def replica(stack: AsyncExitStack, cloud: Cloud) -> Replica:
    return await Replica.open(stack, cloud)


@pytest.fixture
def streams() -> ScriptedStreams:
    return ScriptedStreams()


@pytest.fixture
async def joined(stack: AsyncExitStack, replica: Replica, streams: ScriptedStreams, tmp_path: Path) -> Joining:
    """``await joined("two")``: another host of that name."""

    async def join(name: str, own: HostStreams | None = None) -> RemoteHost:
        return await RemoteHost.open(stack, replica, tmp_path / name, own or streams)

    return join


@pytest.fixture
async def host(joined: Joining) -> RemoteHost:
    return await joined("one")


@pytest.fixture
def alice() -> Actor:
    return Actor(user_id="alice", project_id="red", request_id="req-1")
