"""What a host costs while nothing happens on it, by how many containers run there, and how long a comparison takes."""

import asyncio
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.system.cloud import HigginsUp

from benchmarks.cloud import BridgedEngine, started_containerd
from benchmarks.startup import resident
from benchmarks.table import Table, milliseconds
from benchmarks.wire import Connection, Target

#: How many containers run at each measurement.
COUNTS = (0, 100, 300)
#: Seconds after which a host that got its last container counts as idle, and the longest that all may take to run.
SETTLED, PATIENCE = 15, 1800
#: A host that takes them all.
CONFIG = """\
[containers]
cpu_allocation_ratio = 100
memory_allocation_ratio = 10
disk_allocation_ratio = 100
"""
_COMPARED = re.compile(r"^higgins_compare_seconds_(sum|count) (\S+)$", re.MULTILINE)
_ENGINES = ("dockerd", "containerd")
_TICKS = 100.0  # USER_HZ, of /proc/<pid>/stat: proc(5)


def measure(engine: str, seconds: float) -> Table:
    """On ``docker`` or ``containerd``, ``seconds`` of idling at each count.

    Nothing is taken down: hundreds of containers take minutes for that, and all of it ends with the namespaces that
    the measurement has for itself.
    """
    home = Path(tempfile.mkdtemp(prefix="dense"))
    config = home / "higgins.conf"
    config.write_text(CONFIG)
    if engine == "docker":
        docker = BridgedEngine(home)
        docker.start()
        options = docker.options
    else:
        options = started_containerd(home).options
    (home / "cloud").mkdir()
    cloud = HigginsUp(home / "cloud", [*options, "--config-file", str(config)])
    cloud.start()
    head = ("containers", "resident memory", "CPU a minute", "the engine's CPU a minute", "one comparison", "made in")
    return Table(f"Density, {engine}", head, asyncio.run(_fill(cloud, seconds)))


async def _fill(cloud: HigginsUp, seconds: float) -> list[tuple[str, ...]]:
    """Up to each count, and what the process then holds and uses."""
    target = Target(cloud)
    connection = await target.connect()
    await connection.send(target.request("PUT", "/v1/quotas/demo", {"containers": -1, "cpu": -1, "memory": -1}))
    rows = []
    there = 0
    for count in COUNTS:
        begun = time.perf_counter()
        await _until_running(target, connection, range(there, count))
        made = f"{time.perf_counter() - begun:.0f} s" if count > there else ""
        there = count
        await asyncio.sleep(SETTLED)
        rows.append((str(count), *await _idle(cloud, seconds), made))
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    connection.close()
    return rows


async def _until_running(target: Target, connection: Connection, numbers: range) -> None:
    bodies = (
        {"name": f"dense-{number}", "image": "busybox", "command": ["sleep", "100000"], "cpu": 0.1, "memory": "64"}
        for number in numbers
    )
    uuids = []
    for body in bodies:
        answer = await connection.send(target.request("POST", "/v1/containers?run=true", body))
        if answer.status != 202:
            raise RuntimeError(f"{answer.status}: {answer.body!r}")
        uuids.append(answer.json()["uuid"])
    async with asyncio.timeout(PATIENCE):
        for uuid in uuids:
            show = target.request("GET", f"/v1/containers/{uuid}")
            while (status := (shown := (await connection.send(show)).json())["status"]) != "Running":
                if status == "Error":
                    raise RuntimeError(str(shown["status_reason"]))
                await asyncio.sleep(0.1)


async def _idle(cloud: HigginsUp, seconds: float) -> tuple[str, ...]:
    """Memory, CPU of Higgins and of the engine a minute, and the mean of the comparisons meanwhile."""
    assert cloud.process is not None
    pid = cloud.process.pid
    took, times = _compared(cloud)
    own, engine, begun = _cpu(pid), _engine_cpu(), time.perf_counter()
    await asyncio.sleep(seconds)
    minutes = (time.perf_counter() - begun) / 60
    own, engine = (_cpu(pid) - own) / minutes, (_engine_cpu() - engine) / minutes
    took_now, times_now = _compared(cloud)
    one = milliseconds((took_now - took) / (times_now - times)) if times_now > times else ""
    return f"{resident(pid) / 2**20:.0f} MiB", f"{own:.2f} s", f"{engine:.2f} s", one


def _compared(cloud: HigginsUp) -> tuple[float, float]:
    """Seconds in full comparisons so far, and their number."""
    figures = dict(_COMPARED.findall(cloud.metrics()))
    return float(figures["sum"]), float(figures["count"])


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _engine_cpu() -> float:
    """Of all engines here. The shims of containers are not counted: each is idle with its container."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() in _ENGINES:
                total += _cpu(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total
