"""``higgins status`` and ``higgins status upgrade check``: the state of the cloud, read from its database."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
from cryptography.fernet import Fernet
from oslo_config import cfg

from higgins.cli.options import database_url, settings_of
from higgins.control import status
from higgins.control.cloud import Cloud
from higgins.control.status import Check, HostStatus, Report, Stuck
from higgins.model.errors import Conflict, HigginsError
from higgins.store.database import open_store
from higgins.store.migrate import serves

#: Of ``higgins status``.
STATUS: list[cfg.Opt] = [cfg.BoolOpt("json", default=False, help="Print JSON, for programs.")]

#: What an upgrade check's exit code tells, as that of OpenStack's services does.
_CODES = {"Success": 0, "Warning": 1, "Failure": 2}


@asynccontextmanager
async def opened(conf: cfg.ConfigOpts, *, migrated: bool = True) -> AsyncIterator[Cloud]:
    """The control plane's database as it is, for what needs no secret of it. Raises Conflict or TooOld."""
    store = open_store(database_url(conf), threads=2)
    try:
        if migrated and not await asyncio.to_thread(serves, store.engine):
            raise Conflict("The database has not this version's tables: run higgins db upgrade.")
        cloud = Cloud(store, Fernet.generate_key(), settings_of(conf))
        await cloud.keep_time()
        yield cloud
    finally:
        await store.close()


def run(conf: cfg.ConfigOpts) -> int:
    """Print how the cloud is; the exit code: 0 also where something is wrong."""

    async def work() -> Report:
        async with opened(conf) as cloud:
            return await status.report(cloud)

    try:
        found = asyncio.run(work())
    except (HigginsError, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    print(msgspec.json.format(msgspec.json.encode(found)).decode() if conf.json else told(found))
    return 0


def upgrade_check(conf: cfg.ConfigOpts) -> int:
    """Print what speaks against an upgrade; the exit code: 0 nothing, 1 warnings, 2 failures, 255 no answer."""

    async def work() -> list[Check]:
        async with opened(conf, migrated=False) as cloud:
            return await status.upgrade_checks(cloud)

    try:
        found = asyncio.run(work())
    except (HigginsError, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 255
    if conf.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        print("\n".join(table(("CHECK", "RESULT", "DETAILS"), [(one.name, one.result, one.details) for one in found])))
    return max(_CODES[one.result] for one in found)


def told(found: Report) -> str:
    """Pure: a report for people."""
    lines = [f"Higgins {found.version}, {found.database}", ""]
    lines += _hosts(found.hosts)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(found.statuses.items())) or "none"
    lines += ["", f"Containers: {counts}", f"Waiting for their hosts: {found.backlog}; moving: {found.moving}"]
    if found.stuck:
        lines += ["", f"Stuck ({found.stuck_total}):", *_stuck(found.stuck)]
    if found.differences:
        lines += ["", "Does not add up:"]
        lines += [f"  {one.kind} {one.name}: {one.says}" for one in found.differences]
    return "\n".join(lines)


def _hosts(hosts: list[HostStatus]) -> list[str]:
    head_ = ("HOST", "ZONE", "STATE", "SILENT", "VERSION", "ENGINE", "WORKLOADS", "CPU", "MEMORY", "WAITING")
    rows = [
        (
            one.name, one.zone, one.state, duration(one.silent_for), one.version or "-", one.engine or "-",
            str(one.containers), f"{one.cpu_used:g}/{one.cpus:g}", f"{one.memory_used}/{one.memory}", str(one.waiting),
        )
        for one in hosts
    ]  # fmt: skip
    return table(head_, rows) if rows else ["No host has joined."]


def _stuck(stuck: list[Stuck]) -> list[str]:
    rows = [
        (one.uuid, one.name, one.project_id, one.host or "-", one.status, duration(one.since), one.reason)
        for one in stuck
    ]
    return table(("WORKLOAD", "NAME", "PROJECT", "HOST", "STATUS", "SINCE", "WHY"), rows)


def duration(seconds: float) -> str:
    """Pure: ``0:01:30`` of 90."""
    return str(timedelta(seconds=int(seconds)))


def table(head_: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Pure: lines whose columns are below one another."""
    lines = [tuple(head_), *map(tuple, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head_))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
