"""What a container uses, and its processes: CRI's counters, and what /proc and the control groups tell beside them."""

import asyncio
import os
import shlex
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import EngineError
from higgins.runtimes.base import Processes, Stats

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: Seconds between the two looks that a percentage is made of.
_WINDOW = 0.2


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


async def processes(pid: int, ps_args: str | None) -> Processes:
    """What ``ps`` of the host shows of the processes in the process namespace that ``pid`` is in.

    Raises ``EngineError`` where it takes the arguments amiss, or shows no PID to tell the container's processes by.
    """
    namespace = (_PROC / str(pid) / "ns/pid").readlink()
    pids = {entry.name for entry in _PROC.iterdir() if entry.name.isdigit() and _in_namespace(entry, namespace)}
    ps = await asyncio.create_subprocess_exec("ps", *ps_words(ps_args, pids), stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    out, err = await ps.communicate()
    # It fails as well where none of the processes is there any more.
    if ps.returncode != 0 and not out:
        raise EngineError(f"Processes cannot be shown with {ps_args}: {err.decode(errors='replace').strip()}")
    return only(out.decode(errors="replace"), pids)


def ps_words(ps_args: str | None, pids: Collection[str]) -> list[str]:
    """Arguments that show these processes and never another, whatever a tenant asks for.

    ``-q`` outdoes every other choice of processes but a second ``-q``; ``=`` gives columns false titles.
    """
    if ps_args and set(ps_args) & set("q="):
        raise EngineError("Processes cannot be chosen, nor columns renamed, in the arguments of ps.")
    try:
        words = shlex.split(ps_args or "-ef")
    except ValueError as error:
        raise EngineError(f"Processes cannot be shown with {ps_args}: {error}.") from error
    return [*words, "-q", ",".join(sorted(pids, key=int))]


def only(shown: str, pids: Collection[str]) -> Processes:
    """The rows of ``ps`` output that are about these processes. Its last column may have spaces."""
    head, *lines = shown.splitlines()
    titles = tuple(head.split())
    if "PID" not in titles:
        raise EngineError("Processes can only be shown with a PID column.")
    rows = (tuple(line.split(None, len(titles) - 1)) for line in lines)
    return Processes(titles, tuple(row for row in rows if row[titles.index("PID")] in pids))


def _in_namespace(entry: Path, namespace: Path) -> bool:
    try:
        return (entry / "ns/pid").readlink() == namespace
    except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
        return False


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
        raise EngineError(f"Container {uuid} has ended.") from error
