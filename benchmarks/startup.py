"""From ``higgins up`` to its first answer, and what the idle process holds."""

import time
from pathlib import Path

from tests.system.cloud import HigginsUp

from benchmarks.cloud import running_cloud, running_engine
from benchmarks.table import Table, milliseconds, p50

#: Seconds after which the process counts as idle: its first full comparison is over by then.
SETTLED = 5


def measure(count: int) -> Table:
    """Start it ``count`` times on a database that is there already."""
    with running_engine() as engine, running_cloud(engine.options) as cloud:
        times = [_restart(cloud) for _ in range(count)]
        time.sleep(SETTLED)
        assert cloud.process is not None
        memory = resident(cloud.process.pid)
    rows = [
        ("`higgins up` to the first answer, p50", milliseconds(p50(times)), "2000 ms"),
        ("idle, resident memory", f"{memory / 2**20:.0f} MiB", "150 MiB"),
    ]
    return Table("Start", ("what", "measured", "at most"), rows)


def _restart(cloud: HigginsUp) -> float:
    cloud.stop()
    start = time.perf_counter()
    cloud.start()
    cloud.get("/containers")
    return time.perf_counter() - start


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
