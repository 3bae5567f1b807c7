"""What a container uses, and its processes: CRI's counters, and what /proc and the control groups tell beside them."""

import asyncio
import os
import pwd
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import InvalidState
from higgins.runtimes.base import Processes, Stats

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: Seconds between the two looks that a percentage is made of.
_WINDOW = 0.2
TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


def cpu_percent(before: cri.CpuUsage, after: cri.CpuUsage) -> float:
    """Of one core; 0 where no time has passed."""
    passed = after.timestamp - before.timestamp
    used = after.usage_core_nano_seconds.value - before.usage_core_nano_seconds.value
    return max(0.0, 100 * used / passed) if passed > 0 else 0.0


def network_bytes(net_dev: str) -> tuple[int, int]:
    """Received and sent, from a ``/proc/<pid>/net/dev``, without the loopback."""
    received = sent = 0
    for line in net_dev.splitlines()[2:]:
        name, _, counters = line.partition(":")
        if name.strip() != "lo":
            numbers = counters.split()
            received, sent = received + int(numbers[0]), sent + int(numbers[8])
    return received, sent


def block_bytes_v1(io_service_bytes: str) -> tuple[int, int]:
    """Read and written, from ``blkio.throttle.io_service_bytes``."""
    lines = [line.split() for line in io_service_bytes.splitlines()]
    read = sum(int(parts[2]) for parts in lines if len(parts) == 3 and parts[1] == "Read")
    written = sum(int(parts[2]) for parts in lines if len(parts) == 3 and parts[1] == "Write")
    return read, written


def block_bytes_v2(io_stat: str) -> tuple[int, int]:
    """Read and written, from ``io.stat``."""
    counters = [part.partition("=") for line in io_stat.splitlines() for part in line.split()[1:]]
    read = sum(int(value) for key, _, value in counters if key == "rbytes")
    written = sum(int(value) for key, _, value in counters if key == "wbytes")
    return read, written


def sample(pid: int, before: cri.ContainerStats, after: cri.ContainerStats, memory_limit: int) -> Stats:
    """One sample of a container whose first process is ``pid``."""
    received, sent = network_bytes((_PROC / str(pid) / "net/dev").read_text())
    read, written = _block_bytes((_PROC / str(pid) / "cgroup").read_text())
    return Stats(
        cpu_percent=cpu_percent(before.cpu, after.cpu),
        memory_used=after.memory.working_set_bytes.value,
        memory_limit=memory_limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        block_read=read,
        block_write=written,
        net_rx=received,
        net_tx=sent,
    )


async def window() -> None:
    """Let the time between two looks pass."""
    await asyncio.sleep(_WINDOW)


def processes(pid: int) -> Processes:
    """All processes in the process namespace that ``pid`` is in, as ``ps -ef`` shows them."""
    namespace = (_PROC / str(pid) / "ns/pid").readlink()
    rows = (_row(entry) for entry in _pids() if _in_namespace(entry, namespace))
    return Processes(TITLES, tuple(row for row in rows if row is not None))


def _pids() -> Iterable[Path]:
    return sorted((one for one in _PROC.iterdir() if one.name.isdigit()), key=lambda one: int(one.name))


def _in_namespace(entry: Path, namespace: Path) -> bool:
    try:
        return (entry / "ns/pid").readlink() == namespace
    except FileNotFoundError:  # ended meanwhile
        return False


def _row(entry: Path) -> tuple[str, ...] | None:
    try:
        status = (entry / "stat").read_text()
        command = (entry / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        owner = entry.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
        return None
    name, _, rest = status.partition("(")[2].rpartition(")")
    # proc(5): the fields after the name begin with the state, which is the third.
    fields = rest.split()
    ticks = os.sysconf("SC_CLK_TCK")
    used = (int(fields[11]) + int(fields[12])) // ticks
    started = time.time() - float((_PROC / "uptime").read_text().split()[0]) + int(fields[19]) / ticks
    age = max(1.0, time.time() - started)
    return (
        _user(owner),
        entry.name,
        fields[1],
        str(int(100 * used / age)),
        time.strftime("%H:%M", time.localtime(started)),
        _terminal(int(fields[4])),
        f"{used // 3600:02}:{used // 60 % 60:02}:{used % 60:02}",
        command or f"[{name}]",
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    return f"pts/{minor}" if 136 <= major < 144 else "?"


def _block_bytes(cgroup: str) -> tuple[int, int]:
    """By the lines of a ``/proc/<pid>/cgroup``; 0 where the controller is not there."""
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        v1 = _CGROUPS / "blkio" / path.lstrip("/") / "blkio.throttle.io_service_bytes"
        v2 = _CGROUPS / path.lstrip("/") / "io.stat"
        if controllers == "blkio" and v1.exists():
            return block_bytes_v1(v1.read_text())
        if not controllers and v2.exists():
            return block_bytes_v2(v2.read_text())
    return 0, 0


@contextmanager
def gone_means_ended(uuid: str) -> Iterator[None]:
    """A process whose files in /proc are gone has ended since it was asked for."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError) as error:
        raise InvalidState(uuid, "look into", "stopped") from error
