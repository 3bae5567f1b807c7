"""Counting again: whether claims, quotas, cores, ports and volumes are what the workloads say that they should be.

Each is kept in step in the transactions that change it, so a difference is a fault of Higgins or of a hand in the
database. The count is one transaction that changes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.placement.claims import SEVERAL
from higgins.control.rows import addresses_of, spec_decoder
from higgins.control.wiring import ports_by_workload
from higgins.store.schema import container, core, host, project, volume, workload

#: Sums of cores are floats.
_SLACK = 1e-4


class Difference(Struct, frozen=True):
    """Something that is not as it should be: of what kind, which one, and how."""

    kind: str  # claim | quota | core | port | volume | place
    name: str
    says: str


class _Count(Struct):
    """What workloads need together."""

    containers: int = 0
    cpu: float = 0.0
    memory: int = 0
    disk: int = 0

    def add(self, row: Row[Any], containers: int) -> None:
        self.containers += containers
        self.cpu += row.cpu
        self.memory += row.memory
        self.disk += row.disk


class _Rows(Struct):
    """All that is compared, read in one transaction."""

    hosts: dict[int, Any]
    workloads: list[Any]
    members: dict[int, list[Any]]
    cores: list[Any]
    volumes: dict[str, Any]
    projects: list[Any]


def audit(conn: Connection) -> list[Difference]:
    """All differences, in no particular order."""
    members: dict[int, list[Any]] = defaultdict(list)
    for row in conn.execute(sa.select(container)):
        members[row.workload_id].append(row)
    rows = _Rows(
        hosts={row.id: row for row in conn.execute(sa.select(host))},
        workloads=list(conn.execute(sa.select(workload)).all()),
        members=members,
        cores=list(conn.execute(sa.select(core)).all()),
        volumes={row.uuid: row for row in conn.execute(sa.select(volume))},
        projects=list(conn.execute(sa.select(project)).all()),
    )
    found = [one for check in _CHECKS for one in check(rows)]
    return [*found, *_ports(conn, rows)]


def _claims(rows: _Rows) -> Iterator[Difference]:
    """Every host's claims are the sum of what it holds and of what comes to it."""
    sums: dict[int, _Count] = defaultdict(_Count)
    tenants: dict[int, set[str]] = defaultdict(set)
    for one in rows.workloads:
        for number in {one.host_id, one.next_host_id} - {None}:
            sums[number].add(one, 1)
            tenants[number].add(one.project_id)
    for volume_row in rows.volumes.values():
        if volume_row.host_id is not None:
            sums[volume_row.host_id].disk += volume_row.size
    for number, row in rows.hosts.items():
        held = sums[number]
        for name, kept in (
            ("containers", row.containers),
            ("cpu", row.cpu_used),
            ("memory", row.memory_used),
            ("disk", row.disk_used),
        ):
            if abs(kept - getattr(held, name)) > _SLACK:
                yield Difference(
                    "claim", row.name, f"{kept:g} of {name} are claimed, and {getattr(held, name):g} are held"
                )
        there = tenants[number]
        if (row.tenant is None) != (not there) or (row.tenant not in (None, SEVERAL) and there != {row.tenant}):
            yield Difference(
                "claim", row.name, f"it counts as that of {row.tenant!r}, and holds workloads of {sorted(there)}"
            )


def _cores(rows: _Rows) -> Iterator[Difference]:
    """Cores are had where their workload is, and hosts count them right."""
    places = {one.id: {one.host_id, one.next_host_id} for one in rows.workloads}
    counts: dict[int, int] = defaultdict(int)
    for row in rows.cores:
        counts[row.host_id] += 1
        if row.host_id not in places.get(row.workload_id, set()):
            name = rows.hosts[row.host_id].name
            yield Difference("core", name, f"core {row.number} belongs to a workload that is not there")
    for number, row in rows.hosts.items():
        if row.cores_used != counts[number]:
            yield Difference("core", row.name, f"{row.cores_used} cores are claimed, and {counts[number]} are given")


def _quotas(rows: _Rows) -> Iterator[Difference]:
    """What each project is charged for is the sum of what it has."""
    sums: dict[str, _Count] = defaultdict(_Count)
    for one in rows.workloads:
        members = sum(1 for member in rows.members[one.id] if member.role != "init")
        sums[one.project_id].add(one, members)
    for volume_row in rows.volumes.values():
        if not volume_row.deleting:
            sums[volume_row.project_id].disk += volume_row.size
    for row in rows.projects:
        used = sums.pop(row.id, _Count())
        for name in ("containers", "cpu", "memory", "disk"):
            charged, has = getattr(row, name), getattr(used, name)
            if abs(charged - has) > _SLACK:
                yield Difference("quota", row.id, f"{charged:g} of {name} are charged, and {has:g} are used")
    for project_id in sums:
        yield Difference("quota", project_id, "it has workloads and is charged for nothing")


def _places(rows: _Rows) -> Iterator[Difference]:
    """Containers say the host that their workload is on."""
    for one in rows.workloads:
        there = rows.hosts[one.host_id].name if one.host_id is not None else None
        for member in rows.members[one.id]:
            if member.host != there:
                yield Difference("place", member.uuid, f"it says host {member.host}, and its workload is on {there}")
        if not rows.members[one.id]:
            yield Difference("place", one.uuid, "it has no containers")


def _volumes(rows: _Rows) -> Iterator[Difference]:
    """The volumes of a workload are there, kept, and where it is."""
    mounted: set[str] = set()
    for one in rows.workloads:
        for member in rows.members[one.id]:
            for mount in spec_decoder.decode(member.spec).mounts:
                if mount.volume is None:
                    continue
                mounted.add(mount.volume)
                found = rows.volumes.get(mount.volume)
                if found is None or found.deleting:
                    yield Difference("volume", mount.volume, f"container {member.uuid} mounts it, and it is gone")
                elif found.host_id != one.host_id and one.host_id is not None:
                    yield Difference("volume", mount.volume, f"it lies elsewhere than workload {one.uuid} is")
    for row in rows.volumes.values():
        if row.workload_id is not None and row.uuid not in mounted:
            yield Difference("volume", row.uuid, "it was made for a workload that does not mount it")


def _ports(conn: Connection, rows: _Rows) -> Iterator[Difference]:
    """Placed workloads have ports, and their containers show the addresses of these."""
    ports = ports_by_workload(conn)
    for one in rows.workloads:
        mine = ports.get(one.id, [])
        if one.host_id is not None and not mine:
            yield Difference("port", one.uuid, "it is on a host and has no port")
        shown = addresses_of(mine)
        for member in rows.members[one.id]:
            if msgspec.json.decode(member.addresses) != shown:
                yield Difference("port", member.uuid, "its addresses are not those of its ports")


_CHECKS: tuple[Callable[[_Rows], Iterator[Difference]], ...] = (_claims, _cores, _quotas, _places, _volumes)
