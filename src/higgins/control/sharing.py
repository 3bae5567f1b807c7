"""Hosts shared with others of the cloud (Nova): what Higgins holds of each is told to Placement, in steps.

Placement is not asked for each container. For each host Higgins holds a part there that is somewhat larger than what
its workloads claim, and a claim must fit into what is held. The part grows and shrinks by whole steps, so that most
creates and deletes have nothing to tell. Where what is held does not suffice, the transaction is given up, more is
asked for, and it runs again; where Placement has no more, the host does not fit for a while.

The rule that makes it true at any moment: what the database says is held is never more than Placement knows. So it is
raised after Placement has agreed, and lowered before Placement is told.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud
from higgins.control.keeper import Keeper, Later, Written, ask, asked
from higgins.control.placement.claims import RoomNeeded
from higgins.model.errors import HostUnavailable
from higgins.model.shares import Amount, Offer, Shares
from higgins.store.schema import host, share

T = TypeVar("T")

#: Seconds for which a host of which Placement has no more is not asked for again.
REFUSED = timedelta(seconds=10)
#: Seconds that a create waits for Placement's answer.
_PATIENCE = 20.0
_LOOK = 0.05


def target(used: float, held: int, step: int) -> int:
    """Pure: how much is to be held where ``used`` is claimed. At least half a step is free, and at most two are.

    In between what is held stays: that is what keeps containers that come and go from being told one by one.
    """
    least = math.ceil(used - 1e-6)
    if least + step / 2 <= held <= least + 2 * step:
        return held
    return math.ceil((least + step / 2) / step) * step


def keeper(cloud: Cloud, shares: Shares) -> Keeper:
    """To be run in every process of the control plane."""
    return Keeper(cloud, share, _Sharing(cloud, shares).work)


async def with_room(cloud: Cloud, run: Callable[[], Awaitable[T]]) -> T:
    """What ``run`` gives once what is held of hosts suffices for it; it is run from the start each time."""
    while True:
        try:
            return await run()
        except RoomNeeded as needed:
            await _grow(cloud, needed)


async def _grow(cloud: Cloud, needed: RoomNeeded) -> None:
    """Ask for more of a host, and wait until Placement said yes or no. Raises HostUnavailable where it says nothing."""

    def want(conn: Connection) -> None:
        extra = {
            "extra_cpu": share.c.extra_cpu + math.ceil(needed.cpu),
            "extra_memory": share.c.extra_memory + needed.memory,
            "extra_disk": share.c.extra_disk + needed.disk,
        }
        _make_missing(conn, cloud)
        ask(conn, cloud, share, share.c.host_id == needed.host_id, **extra)

    await cloud.store.write(want)
    query = sa.select(share.c.due_at, share.c.trouble).where(share.c.host_id == needed.host_id)
    until = asyncio.get_running_loop().time() + _PATIENCE
    while asyncio.get_running_loop().time() < until:
        row = await cloud.store.read(lambda conn: conn.execute(query).one_or_none())
        if row is None or row.due_at is None:
            return
        if row.trouble:
            raise HostUnavailable(f"No more can be claimed of hosts now: {row.trouble}")
        await asyncio.sleep(_LOOK)
    raise HostUnavailable("No more can be claimed of hosts now: Placement is slow; try again later.")


def level(conn: Connection, cloud: Cloud) -> None:
    """Have what is held of every host follow what is claimed of it."""
    steps = cloud.settings.placement_steps
    if steps is None:
        return
    _make_missing(conn, cloud)
    for row in conn.execute(sa.select(host)).all():
        if _targets(row, Amount(), steps) != _held(row):
            ask(conn, cloud, share, share.c.host_id == row.id, share.c.due_at.is_(None))


def _make_missing(conn: Connection, cloud: Cloud) -> None:
    known = sa.select(share.c.host_id).where(share.c.host_id.is_not(None))
    for row in conn.execute(sa.select(host.c.id, host.c.uuid, host.c.name).where(host.c.id.not_in(known))).all():
        conn.execute(
            sa.insert(share).values(
                host_id=row.id, uuid=row.uuid, name=row.name, extra_cpu=0, extra_memory=0, extra_disk=0,
                **asked(conn, cloud, share),
            )
        )  # fmt: skip


def forget(conn: Connection, cloud: Cloud, host_id: int) -> None:
    """The host goes: so does what is held of it."""
    ask(conn, cloud, share, share.c.host_id == host_id, host_id=None)


def _held(row: Any) -> Amount:
    return Amount(row.held_cpu or 0, row.held_memory or 0, row.held_disk or 0)


def _targets(row: Any, extra: Amount, steps: tuple[int, int, int]) -> Amount:
    held = _held(row)
    return Amount(
        target(row.cpu_used + extra.cpu, held.cpu, steps[0]),
        target(row.memory_used + extra.memory, held.memory, steps[1]),
        target(row.disk_used + extra.disk, held.disk, steps[2]),
    )


def _least(row: Any, extra: Amount) -> Amount:
    return Amount(
        math.ceil(row.cpu_used + extra.cpu - 1e-6), row.memory_used + extra.memory, row.disk_used + extra.disk
    )


class _Sharing:
    """``shares`` is Placement."""

    def __init__(self, cloud: Cloud, shares: Shares) -> None:
        self._cloud = cloud
        self._shares = shares

    async def work(self, rows: Sequence[Row[Any]]) -> list[Written | Later]:
        return [await self._one(row) for row in rows]

    async def _one(self, row: Row[Any]) -> Written:
        if row.host_id is None:
            await self._shares.let_go(name=row.name, uuid=row.uuid)
            return _forget
        extra = Amount(row.extra_cpu, row.extra_memory, row.extra_disk)
        found = await self._cloud.store.write(lambda conn: self._lower(conn, row.host_id, extra))
        if found is None:
            return _nothing
        offer, amounts, enough = found
        held = await self._shares.hold(name=row.name, uuid=row.uuid, offer=offer, amounts=amounts)
        now = self._cloud.now()
        refused = None if held is not None and _larger(held, enough) == held else now + REFUSED
        return lambda conn, fresh: _write(conn, fresh, held, refused)

    def _lower(self, conn: Connection, host_id: int, extra: Amount) -> tuple[Offer, list[Amount], Amount] | None:
        """What to ask for, best first (room to spare, just enough, what is claimed already), and what is enough.

        What will not be held any more is no longer to be claimed, from now on.
        """
        row = conn.execute(sa.select(host).where(host.c.id == host_id).with_for_update()).one_or_none()
        steps, settings = self._cloud.settings.placement_steps, self._cloud.settings
        if row is None or steps is None:
            return None
        held, wanted = _held(row), _targets(row, extra, steps)
        lowered = Amount(min(held.cpu, wanted.cpu), min(held.memory, wanted.memory), min(held.disk, wanted.disk))
        _set(conn, host_id, lowered)
        total = Amount(int(row.cpus), row.memory, row.disk)
        offer = Offer(
            total=total,
            cpu_ratio=settings.cpu_allocation_ratio,
            memory_ratio=settings.memory_allocation_ratio,
            disk_ratio=settings.disk_allocation_ratio,
        )
        enough = _least(row, extra)
        asked_for = [wanted, _larger(enough, lowered), lowered, _least(row, Amount())]
        return offer, list(dict.fromkeys(asked_for)), enough


def _larger(one: Amount, other: Amount) -> Amount:
    return Amount(max(one.cpu, other.cpu), max(one.memory, other.memory), max(one.disk, other.disk))


def _set(conn: Connection, host_id: int, held: Amount) -> None:
    values = {"held_cpu": held.cpu, "held_memory": held.memory, "held_disk": held.disk}
    conn.execute(sa.update(host).where(host.c.id == host_id).values(values))


def _write(conn: Connection, row: Row[Any], held: Amount | None, refused: Any) -> None:
    if row.host_id is not None and held is not None:
        _set(conn, row.host_id, held)
    values: dict[str, Any] = {"refused_until": refused}
    if row.due_at is None:  # nothing more was asked for meanwhile
        values |= {"extra_cpu": 0, "extra_memory": 0, "extra_disk": 0}
    conn.execute(sa.update(share).where(share.c.id == row.id).values(values))


def _forget(conn: Connection, row: Row[Any]) -> None:
    conn.execute(sa.delete(share).where(share.c.id == row.id))


def _nothing(conn: Connection, row: Row[Any]) -> None:
    """The host is gone; what is held of it goes when that is asked for."""
