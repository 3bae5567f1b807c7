"""Where a workload goes: pure filters and a weigher over the hosts, then a claim that cannot overcommit.

The claim is a conditional update of the host's row in the transaction that assigns the workload, so any number of
schedulers may decide at once: the one whose update finds no room any more takes the next host.
"""

from typing import Any

import sqlalchemy as sa
from msgspec import Struct, field
from sqlalchemy.engine import Connection

from higgins.control.cloud import Settings
from higgins.model.resources import Host
from higgins.store.schema import host as host_table


class Need(Struct, frozen=True, kw_only=True):
    """What a workload needs of its host: cores, MiB, GiB, and whatever it insists on."""

    cpu: float
    memory: int
    disk: int
    runtimes: frozenset[str] = frozenset()
    zone: str | None = None
    host: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    volume_hosts: frozenset[int] = frozenset()
    dedicated: bool = False


def refusal(host: Host, need: Need, settings: Settings) -> str | None:
    """Why this host cannot take it, in words; None if it can."""
    if host.disabled:
        return "it is disabled"
    if not host.up:
        return "it is down"
    if need.host is not None and need.host not in (host.name, host.uuid):
        return f"host {need.host} was asked for"
    if need.zone is not None and need.zone != host.zone:
        return f"it is in zone {host.zone}, and zone {need.zone} was asked for"
    if need.volume_hosts and need.volume_hosts != {host.id}:
        return "a volume of the container lies on another host"
    missing = sorted(need.runtimes - set(host.info.runtimes))
    if missing:
        return f"it has no runtime {missing[0]}"
    if need.dedicated and not host.info.cpu_pinning:
        return "it gives no dedicated CPUs"
    for key, value in need.labels.items():
        if host.info.labels.get(key) != value:
            return f"its label {key} is not {value}"
    for what, free, wanted in (
        ("CPU", host.cpus * settings.cpu_allocation_ratio - host.cpu_used, need.cpu),
        ("memory", host.memory * settings.memory_allocation_ratio - host.memory_used, need.memory),
        ("disk", host.disk * settings.disk_allocation_ratio - host.disk_used, need.disk),
    ):
        if wanted > free + 1e-6:
            return f"it has too little {what} left"
    return None


def _load(host: Host, need: Need, settings: Settings) -> float:
    cpu = (host.cpu_used + need.cpu) / max(host.cpus * settings.cpu_allocation_ratio, 1e-6)
    memory = (host.memory_used + need.memory) / max(host.memory * settings.memory_allocation_ratio, 1e-6)
    return max(cpu, memory)


def choose(hosts: list[Host], need: Need, settings: Settings) -> tuple[list[Host], dict[str, str]]:
    """The hosts that can take it, best first (emptiest when spreading, fullest when packing); why the others cannot."""
    refused: dict[str, str] = {}
    fit: list[Host] = []
    for host in hosts:
        reason = refusal(host, need, settings)
        if reason is None:
            fit.append(host)
        else:
            refused[host.name] = reason
    fit.sort(key=lambda host: (_load(host, need, settings), host.name), reverse=not settings.spread)
    return fit, refused


def claim(conn: Connection, host: Host, need: Need, settings: Settings) -> bool:
    """Take what is needed from the host; False if somebody else was faster and it has no room any more."""
    t = host_table.c
    result = conn.execute(
        sa.update(host_table)
        .where(
            t.id == host.id,
            t.cpu_used + need.cpu <= t.cpus * settings.cpu_allocation_ratio + 1e-6,
            t.memory_used + need.memory <= t.memory * settings.memory_allocation_ratio,
            t.disk_used + need.disk <= t.disk * settings.disk_allocation_ratio,
        )
        .values(_sums(need, 1))
    )
    return result.rowcount == 1


def release(conn: Connection, host_id: int, *, cpu: float, memory: int, disk: int) -> None:
    """Give back what was claimed."""
    need = Need(cpu=cpu, memory=memory, disk=disk)
    conn.execute(sa.update(host_table).where(host_table.c.id == host_id).values(_sums(need, -1)))


def _sums(need: Need, sign: int) -> dict[str, Any]:
    t = host_table.c
    return {
        "cpu_used": t.cpu_used + sign * need.cpu,
        "memory_used": t.memory_used + sign * need.memory,
        "disk_used": t.disk_used + sign * need.disk,
        "containers": t.containers + sign,
    }
