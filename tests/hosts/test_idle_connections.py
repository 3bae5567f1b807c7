"""What a connection costs on which nothing happens: the control plane has one of each agent that waits for news."""

import asyncio
import tracemalloc
from datetime import UTC, datetime

from higgins.control.authority import control_plane_identity, new_authority
from higgins.control.identities import CONTROL_PLANE
from higgins.control.tls import Ends

CONNECTIONS = 20
#: Bytes that Python holds for both ends of one, beside what OpenSSL holds.
MOST = 128 * 1024


async def test_an_idle_connection_holds_little_memory() -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    authority = new_authority(now)
    ends = Ends(authority.pem, control_plane_identity(authority, now), optional=True)
    connected = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.release()
        await reader.read()
        writer.close()

    async def connect() -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ends.client, server_hostname=CONTROL_PLANE)
        await connected.acquire()
        return writer

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ends.server) as server:
        port = server.sockets[0].getsockname()[1]
        writers = [await connect()]  # it pays for what is made once
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        writers += [await connect() for _ in range(CONNECTIONS)]
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for writer in writers:
            writer.close()
            await writer.wait_closed()
    assert (held - before) / CONNECTIONS < MOST
