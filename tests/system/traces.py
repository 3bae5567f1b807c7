"""What workloads leave behind on a host: to be compared before and after."""

import re
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

from tests.engines import DEADLINE, wait_until
from tests.system.behind import BehindTheBack
from tests.system.cloud import HigginsUp

#: Tables whose rows come and go with containers; the others are records that are kept.
_TABLES = ("workload", "container", "port", "cloud_port", "volume")
#: Sums that are kept in step with them.
_CLAIMS = {
    "host": "name, cpu_used, memory_used, disk_used, containers",
    "project": "id, containers, cpu, memory, disk",
}
_DIRECTORIES = ("sandboxes", "volumes", "mounts", "files", "logs", "cinder")

#: Where Docker prepares the files of a new container. One that is killed meanwhile leaves this mounted for ever; no
#: request to it takes it away, so that Higgins has no part in it.
_LEFT_BY_DOCKER = re.compile(r"/overlay2/[0-9a-f]{64}-init/merged ")


def traces(up: HigginsUp, engine: BehindTheBack) -> dict[str, set[str]]:
    """By kind, what is there now. Higgins runs, so that its own rules are to be there: they are waited for."""
    wait_until(lambda: "inet higgins" in _said("nft", "list", "tables"), "Higgins has no rules")
    return unfiltered(up, engine) | {"rules": set(_said("nft", "list", "ruleset").splitlines())}


def unfiltered(up: HigginsUp, engine: BehindTheBack) -> dict[str, set[str]]:
    """The same of Higgins that makes no rules: somebody else filters."""
    mounted = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "containers of the engine": engine.containers(),
        "interfaces": {name for _, name in socket.if_nameindex()},
        "mounts": {line.split()[4] for line in mounted if not _LEFT_BY_DOCKER.search(line)},
        # The machine's loop devices are seen in every namespace.
        "loop devices": {line for line in _said("losetup", "--noheadings", "--output", "BACK-FILE").splitlines()
                         if str(up.data) in line},
        "files": {str(path) for name in _DIRECTORIES for path in (up.data / name).rglob("*")},
        "rows": _rows(up.data / "higgins.db"),
    }  # fmt: skip


def additions(before: dict[str, set[str]], now: dict[str, set[str]]) -> dict[str, list[str]]:
    """By kind, what is there now and was not before. What went since then was on its way when it was looked at."""
    return {kind: sorted(now[kind] - before[kind]) for kind in before if now[kind] - before[kind]}


def left_over(up: HigginsUp, engine: BehindTheBack, before: dict[str, set[str]]) -> dict[str, list[str]]:
    """What has come since ``before`` and stays. The last of it goes a moment after the container, and is waited for."""
    deadline = time.monotonic() + DEADLINE
    while (found := additions(before, traces(up, engine))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _rows(database: Path) -> set[str]:
    connection = sqlite3.connect(database, timeout=DEADLINE)
    try:
        found = {f"{table} {row[0]}" for table in _TABLES for row in connection.execute(f"SELECT uuid FROM {table}")}
        for table, columns in _CLAIMS.items():
            rows = connection.execute(f"SELECT {columns} FROM {table}")
            found |= {f"{table} {row}" for row in rows if any(row[1:])}
        return found
    finally:
        connection.close()
