"""What agents cost while nothing happens: thousands of them wait for news at one ``higgins api``.

They are of a light kind, but speak to the real listener over TLS 1.3 with a certificate of the real authority each, and
ask as agents do: a question that is answered when there is news, or after a quarter of the lease. They run in a process
of their own; the certificates share one key, since to make keys is what costs most.
"""

import asyncio
import re
import resource
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from benchmarks.placement import cpu_of, cpu_of_process
from benchmarks.plane import ControlPlane, control_plane, database, host_row
from benchmarks.startup import resident
from benchmarks.table import Table
from higgins.agent.agent import POLL
from higgins.cli.credentials import secret_key
from higgins.control.authority import Authority, open_authority
from higgins.control.cloud import Cloud
from higgins.control.identities import CONTROL_PLANE, Identity, key_pem, new_key, serial_of
from higgins.control.settings import Settings
from higgins.control.tls import client_context
from higgins.control.wire import AGENTS
from higgins.store.database import open_store
from higgins.store.schema import certificate, host

#: Seconds that a question waits for its answer, as ``agent.fencing`` has it.
_WAIT = min(POLL, Settings().host_lease / 4)
#: Connections that are being made at a time.
_JOINING = 20
_SERVED = re.compile(r"Agents are served at https://127\.0\.0\.1:(\d+)")


class Agent(Struct):
    """Where an agent goes, and how it shows itself there."""

    port: int
    authority: str
    key: str
    certificates: list[str]


def measure(count: int, seconds: float) -> Table:
    """``seconds`` of idling, without agents and with so many, once all of these have asked a second time."""
    more_files()
    rows = [_host(number) for number in range(count)]
    with database("postgresql") as url, control_plane(url, hosts=rows) as plane:
        none = _idle(plane, seconds)
        shown = asyncio.run(_certificates(plane, url))
        with _agents(shown):
            time.sleep(_WAIT + 5)
            some = _idle(plane, seconds)
    head = ("agents that wait", "CPU of the API process", "of PostgreSQL", "resident memory of the API process")
    return Table(f"Idle agents, over {seconds:.0f} s", head, [("0", *none), (str(count), *some)])


def _host(number: int) -> dict[str, Any]:
    told = {"told_lease": Settings().host_lease, "told_evacuate": Settings().evacuate}
    return {**host_row(number), **told, "seen_at": datetime.now(UTC).replace(tzinfo=None)}


def _idle(plane: ControlPlane, seconds: float) -> tuple[str, str, str]:
    assert plane.process is not None
    number = plane.process.pid
    start, process, databases = time.perf_counter(), cpu_of_process(number), cpu_of("postgres")
    time.sleep(seconds)
    lasted = time.perf_counter() - start
    process, databases = cpu_of_process(number) - process, cpu_of("postgres") - databases
    return f"{process / lasted:.2f} cores", f"{databases / lasted:.2f} cores", f"{resident(number) / 2**20:.0f} MiB"


async def _certificates(plane: ControlPlane, url: str) -> Agent:
    """A certificate for each host, which the authority of the cloud has signed and the database knows."""
    store = open_store(url)
    cloud = Cloud(store, secret_key(plane.data))
    try:
        authority = await open_authority(cloud)
        key = new_key()
        with plane.engine.begin() as conn:
            hosts = conn.execute(sa.select(host.c.id, host.c.uuid)).all()
            made = [(row.id, *_issued(authority, row.uuid, key, cloud.now())) for row in hosts]
            rows = [{"serial": serial, "host_id": number, "expires_at": until} for number, _, serial, until in made]
            conn.execute(sa.insert(certificate), rows)
        found = _SERVED.search(plane.log())
        assert found is not None
        return Agent(int(found[1]), authority.pem, key_pem(key), [pem for _, pem, _, _ in made])
    finally:
        await store.close()


def _issued(authority: Authority, name: str, key: Any, now: datetime) -> tuple[str, str, datetime]:
    signed = authority.issue(name, key.public_key(), now)
    pem = signed.public_bytes(Encoding.PEM).decode()
    return pem, serial_of(signed), signed.not_valid_after_utc.replace(tzinfo=None)


@contextmanager
def _agents(shown: Agent) -> Iterator[None]:
    """They are connected and wait, while they are needed."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(msgspec.json.encode(shown).decode())
        file.flush()
        command = [sys.executable, "-m", "benchmarks.agents", file.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise RuntimeError(f"the agents ended with {process.wait()}")
                yield
                if process.poll() is not None:
                    raise RuntimeError(f"the agents ended with {process.returncode}")
            finally:
                process.kill()


async def _wait_for_news(shown: Agent) -> None:
    """All agents, until one of them is refused."""
    joining = asyncio.Semaphore(_JOINING)
    connected = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for pem in shown.certificates:
            group.create_task(_agent(shown, pem, joining, connected))
        for _ in shown.certificates:
            await connected.acquire()
        print("connected", flush=True)


async def _agent(shown: Agent, pem: str, joining: asyncio.Semaphore, connected: asyncio.Semaphore) -> None:
    async with joining:
        context: ssl.SSLContext = client_context(shown.authority, Identity(pem, shown.key))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", shown.port, ssl=context, server_hostname=CONTROL_PLANE, ssl_handshake_timeout=120
        )
    question = f"GET {AGENTS}/assignments?since=0&timeout={_WAIT} HTTP/1.1\r\nHost: {uuid.uuid4()}\r\n\r\n".encode()
    connected.release()
    while True:
        writer.write(question)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 204 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"an agent was answered {head!r}")


def more_files() -> None:
    """As many open files as this process may have; those that it starts may have as many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    more_files()
    asyncio.run(_wait_for_news(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Agent)))
