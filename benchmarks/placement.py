"""Placement with durable claims: how many containers a second find a host among thousands, on PostgreSQL.

Processes of their own create containers through the control layer, as those of the API do, or requests go through
``higgins api``. A create is placed when its transaction is committed. CPU time is told by who used it, so that what a
machine with more cores would do can be told from one with few.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from cryptography.fernet import Fernet
from msgspec import Struct

from benchmarks.plane import control_plane, database, host_row
from benchmarks.table import Table, p50, p99
from benchmarks.wire import Target, each
from higgins.control import containers
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec
from higgins.store.database import make_engine, open_store
from higgins.store.migrate import migrate
from higgins.store.schema import host

HOSTS = (5_000, 10_000)
#: Creates that a process has under way when it makes as many as it can, and how many a second it makes otherwise.
AT_ONCE = 512
STEADY = 1000
PROJECTS = 100
#: Requests to the API; each project's default network has room for those of its own.
REQUESTS = 3000
#: Members of a group that keeps its members apart.
GROUP = 20
#: Seconds of creates that pay for caches which all later ones find.
_WARM = 1.0
#: Seconds of creates whose rows are there before anything is measured.
_FILL = 10.0
_PATIENCE = 600
_UNLIMITED = {"containers": -1, "memory": -1, "cpu": -1, "disk": -1}
_TICKS = os.sysconf("SC_CLK_TCK")


class Task(Struct, kw_only=True):
    """What one process does: creates for so many seconds, ``rate`` of them a second or (0) as many as it can."""

    url: str
    number: int
    seconds: float
    rate: float
    apart: bool  # tenant isolation and anti-affinity


class Done(Struct, kw_only=True):
    """What came of it: seconds that each create took, of the whole, and of CPU time."""

    latencies: list[float]
    seconds: float
    cpu: float
    failed: int


class Measured(Struct, kw_only=True):
    """Several processes together, and what the database used meanwhile."""

    done: list[Done]
    database: float

    @property
    def placed(self) -> int:
        return sum(len(one.latencies) for one in self.done)

    @property
    def rate(self) -> float:
        return sum(len(one.latencies) / one.seconds for one in self.done)

    def row(self, what: str) -> tuple[str, ...]:
        """A row of ``HEAD``."""
        latencies = [seconds for one in self.done for seconds in one.latencies]
        python = sum(one.cpu for one in self.done) / self.placed
        in_database = self.database / self.placed
        return (
            what, f"{self.rate:.0f}", f"{p50(latencies) * 1000:.0f}", f"{p99(latencies) * 1000:.0f}",
            f"{python * 1e6:.0f}", f"{in_database * 1e6:.0f}", f"{1 / (python + in_database):.0f}",
        )  # fmt: skip


HEAD = (
    "placed",
    "a second",
    "p50, ms",
    "p99, ms",
    "CPU of Python, µs each",
    "of PostgreSQL, µs each",
    "a second for each core",
)


def measure(seconds: float, sizes: Sequence[int] = HOSTS) -> Iterator[Table]:
    """A table for each number of hosts."""
    for size in sizes:
        with hosts(size) as url:
            # Tables that are not empty: how the database looks things up is decided by how much there is.
            _run(url, _FILL, processes=1)
            rows = [
                _run(url, seconds, processes=1).row("by one process"),
                _run(url, seconds, processes=2).row("by two processes"),
                _run(url, seconds, processes=2, apart=True).row("by two, isolated projects and groups kept apart"),
                _run(url, seconds, processes=1, rate=STEADY).row(f"by one, {STEADY} a second asked for"),
                _run(url, seconds, processes=1, rate=STEADY, apart=True).row("the same, isolated and kept apart"),
            ]
        rows.append(_through_api(size).row("through `higgins api`, one process"))
        yield Table(f"Placement on {size} hosts", HEAD, rows)


@contextlib.contextmanager
def hosts(size: int) -> Iterator[str]:
    """The URL of a database with so many hosts and nothing on them."""
    with database("postgresql") as url:
        engine = make_engine(url)
        migrate(engine)
        with engine.begin() as conn:
            conn.execute(sa.insert(host), [_host(number) for number in range(size)])
        engine.dispose()
        yield url


def _host(number: int) -> dict[str, Any]:
    """Of a usual size: 64 cores, 256 GiB; a thousand of them in a zone."""
    size = {"cpus": 64.0, "memory": 262144, "disk": 4096, "zone": f"zone-{number // 1000}"}
    return {**host_row(number), **size}


def _run(url: str, seconds: float, *, processes: int, rate: float = 0, apart: bool = False) -> Measured:
    """On hosts that have nothing on them as far as they know; the rows of what was made before stay."""
    engine = make_engine(url)
    with engine.begin() as conn:
        conn.execute(sa.update(host).values(cpu_used=0, memory_used=0, disk_used=0, containers=0, tenant=None))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("VACUUM ANALYZE")  # as the server does by itself, sooner or later
    engine.dispose()
    running = []
    for number in range(processes):
        task = Task(url=url, number=number, seconds=seconds, rate=rate / processes, apart=apart)
        command = [sys.executable, "-m", "benchmarks.placement", msgspec.json.encode(task).decode()]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    for one in running:  # all have warmed up
        _line(one)
    before = cpu_of("postgres")
    for one in running:
        assert one.stdin is not None
        one.stdin.write(b"go\n")
        one.stdin.flush()
    done = [msgspec.json.decode(_line(one), type=Done) for one in running]
    used = cpu_of("postgres") - before
    for one in running:
        one.communicate(timeout=_PATIENCE)
    failed = sum(one.failed for one in done)
    if failed:
        raise RuntimeError(f"{failed} creates found no host")
    return Measured(done=done, database=used)


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process that creates containers ended with {process.wait()}")
    return line


def cpu_of(program: str) -> float:
    """Seconds of CPU time that all processes of this name used, with what those used that have ended."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name, _, rest = entry.read_text().partition("(")[2].rpartition(")")
            if name == program:
                total += sum(map(int, rest.split()[11:15]))
    return total / _TICKS


def _through_api(size: int) -> Measured:
    """Requests to ``higgins api`` over connections that stay open."""
    settings = "[containers]\nplacement_age = 1\n"
    with (
        database("postgresql") as url,
        control_plane(url, hosts=[_host(n) for n in range(size)], more=settings) as plane,
    ):
        target = Target(plane)
        body = {"image": "busybox:1.36", "cpu": 1.0, "memory": "512"}
        each(target, [target.request("POST", "/v1/containers", body) for _ in range(100)], at_once=50)
        assert plane.process is not None
        asked = [target.request("POST", "/v1/containers", body) for _ in range(REQUESTS)]
        used, in_database = cpu_of_process(plane.process.pid), cpu_of("postgres")
        load = each(target, asked, at_once=64)
        done = Done(
            latencies=load.latencies, seconds=load.seconds, failed=0, cpu=cpu_of_process(plane.process.pid) - used
        )
        return Measured(done=[done], database=cpu_of("postgres") - in_database)


def cpu_of_process(number: int) -> float:
    """Seconds of CPU time that a process used."""
    return sum(map(int, Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[11:13])) / _TICKS


class Creator:
    """Creates containers in its own process."""

    def __init__(self, task: Task) -> None:
        apart = ("all",) if task.apart else ()
        self._task = task
        self._cloud = Cloud(
            open_store(task.url), Fernet.generate_key(),
            Settings(quota=_UNLIMITED, placement_age=1.0, tenant_isolation=apart),
        )  # fmt: skip
        self._made = 0
        self._latencies: list[float] = []
        self._failed = 0

    async def run(self) -> None:
        """Warm up, wait for the word, create, and tell."""
        for project in range(PROJECTS):
            await self._create(project)
        await self._as_many(_WARM)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        self._latencies, self._failed = [], 0
        start, used = time.perf_counter(), time.process_time()
        await (self._steady() if self._task.rate else self._as_many(self._task.seconds))
        done = Done(
            latencies=self._latencies, seconds=time.perf_counter() - start, cpu=time.process_time() - used,
            failed=self._failed,
        )  # fmt: skip
        print(msgspec.json.encode(done).decode(), flush=True)
        await self._cloud.store.close()

    async def _create(self, project: int, asked: float | None = None) -> None:
        self._made += 1
        name = f"project-{self._task.number}-{project}"
        hints = {}
        if self._task.apart:
            hints = {"group": f"group-{os.getpid()}-{self._made // PROJECTS // GROUP}", "policy": "anti-affinity"}
        spec = ContainerSpec(image="busybox:1.36", cpu=1.0, memory=512, command=("serve",), hints=hints)
        actor = Actor(user_id="user", project_id=name, request_id=f"req-{self._made}")
        asked = asked or time.perf_counter()
        made = await containers.create(self._cloud, actor, Draft(name=f"web-{self._made}", spec=spec), run=True)
        self._latencies.append(time.perf_counter() - asked)
        self._failed += made.host is None

    async def _as_many(self, seconds: float) -> None:
        end = time.perf_counter() + seconds

        async def lane() -> None:
            while time.perf_counter() < end:
                await self._create(self._made % PROJECTS)

        await asyncio.gather(*(lane() for _ in range(AT_ONCE)))

    async def _steady(self) -> None:
        """One every so often, however long those before it take; one that is late is late for who asked."""
        start, count = time.perf_counter(), int(self._task.rate * self._task.seconds)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                due = start + number / self._task.rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                group.create_task(self._create(number % PROJECTS, due))


async def _child(task: Task) -> None:
    await Creator(task).run()


if __name__ == "__main__":
    asyncio.run(_child(msgspec.json.decode(sys.argv[1], type=Task)))
