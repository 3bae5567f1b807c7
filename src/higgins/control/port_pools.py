"""Ports made ahead: some for each project, network, security groups and host of which a container was lately.

A pool is a row of ``port_pool``; the ports in it are rows of ``cloud_port`` that are no workload's: *wanted* until
their keeper (``port_keeping``) had the service make them, then *spare*. A workload takes one in the transaction that
places it, by an update that only one can make, and has a port at once. What a workload had is never put back
(docs/decisions/0016). Nothing here calls the service.

How large a pool is to be is decided here, once nobody has taken from it for a moment, and once in a while.
"""

import hashlib
import uuid as uuids
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud
from higgins.control.keeper import Keeper, Written, ask, asked, topic
from higgins.control.requests import PortAsk
from higgins.control.rows import to_json
from higgins.store.database import touch_topic
from higgins.store.schema import cloud_port, host, port_pool

#: Seconds after the last one was taken before more are made, so that making them is in nobody's way.
QUIET = 0.5
#: How long none are made for a project that the service allows no more, or that has no more addresses.
REST = timedelta(minutes=10)
#: Ports that are looked at when one is taken: others may take the first ones meanwhile.
_LOOKS = 4
#: Tries to remove a port after which nobody waits for it any more.
_TRIES = 5


def key_of(project_id: str, wanted: PortAsk) -> str:
    """Pure: what the ports of a pool have in common, beside the host.

    Of the network also which subnets it has: a port that was made before one of them has no address there.
    """
    parts = (project_id, wanted.network, sorted(set(wanted.groups)), sorted(set(wanted.subnets)))
    return hashlib.sha256(to_json(parts).encode()).hexdigest()


def size(most: int, *, idle: float, keep: float, used: bool, fit: bool, resting: bool) -> int:
    """Pure: how many ports a pool is to have.

    ``idle`` seconds ago somebody wanted one like these, and they are kept for ``keep``. ``used``: the project has a
    container on the network; ``fit``: something may be placed on the host.
    """
    return most if used and fit and not resting and idle < keep else 0


def take(conn: Connection, cloud: Cloud, wanted: PortAsk, *, project_id: str, host_id: int, **values: Any) -> bool:
    """Give a workload a port that was made for such: write ``values`` into its row. False where there is none.

    Whoever wants a certain port or address gets none. The pool is filled again, or there will be one.
    """
    if not cloud.settings.port_pool or wanted.port is not None or wanted.addresses:
        return False
    key = key_of(project_id, wanted)
    mine = sa.and_(port_pool.c.host_id == host_id, port_pool.c.key == key)
    later = {"used_at": cloud.now(), "due_at": cloud.now() + timedelta(seconds=QUIET)}
    again = sa.update(port_pool).where(mine).values(asks=port_pool.c.asks + 1, tries=0, **later)
    touch_topic(conn, topic(port_pool))
    if conn.execute(again).rowcount == 0:
        conn.execute(
            sa.insert(port_pool).values(
                host_id=host_id, key=key, project_id=project_id, network=wanted.network, asked=to_json(wanted),
                asks=1, tries=0, **later,
            )
        )  # fmt: skip
        return False
    spare = sa.select(cloud_port.c.id).join(port_pool, port_pool.c.id == cloud_port.c.pool_id)
    found = conn.execute(spare.where(mine, cloud_port.c.state == "spare").order_by(cloud_port.c.id).limit(_LOOKS))
    values |= {"state": "taken", "pool_id": None}
    return any(
        ask(conn, cloud, cloud_port, cloud_port.c.id == number, cloud_port.c.state == "spare", **values)
        for number in found.scalars().all()
    )


def leave(conn: Connection, cloud: Cloud, workload_id: int, *, states: Sequence[str]) -> None:
    """A workload goes: where it is the last of its project on a network, what was made ahead there goes with it.

    Before it does: then the network can be deleted once the container is gone. ``states`` are those of ports in use.
    """
    mine, other = cloud_port.alias(), cloud_port.alias()
    others = sa.exists().where(
        other.c.network == port_pool.c.network, other.c.project_id == port_pool.c.project_id,
        other.c.workload_id != workload_id, other.c.state.in_(states),
    )  # fmt: skip
    joined = sa.and_(mine.c.network == port_pool.c.network, mine.c.project_id == port_pool.c.project_id)
    query = sa.select(port_pool.c.id).distinct().join(mine, joined).where(mine.c.workload_id == workload_id, ~others)
    _dissolve(conn, cloud, list(conn.execute(query).scalars()), workload_id=workload_id)


def forget(conn: Connection, cloud: Cloud, host_id: int) -> None:
    """The host goes: so do the ports that were bound to it."""
    query = sa.select(port_pool.c.id).where(port_pool.c.host_id == host_id)
    _dissolve(conn, cloud, list(conn.execute(query).scalars()))


def give_up(conn: Connection, cloud: Cloud, project_id: str) -> bool:
    """A project can have no more ports: it gets back those that nobody has taken. Whether any are about to go."""
    pools = sa.select(port_pool.c.id).where(port_pool.c.project_id == project_id)
    numbers = list(conn.execute(pools).scalars())
    rest(conn, cloud, numbers)
    _release(conn, cloud, cloud_port.c.pool_id.in_(numbers))
    going = sa.select(cloud_port.c.id).where(
        cloud_port.c.project_id == project_id, cloud_port.c.workload_id.is_(None), cloud_port.c.state == "removing",
        cloud_port.c.tries < _TRIES,
    )  # fmt: skip
    return conn.execute(going.limit(1)).first() is not None


def rest(conn: Connection, cloud: Cloud, numbers: Sequence[int]) -> None:
    """Make none for these pools for a while."""
    update = sa.update(port_pool).where(port_pool.c.id.in_(numbers))
    conn.execute(update.values(rests_until=cloud.now() + REST))


def _dissolve(conn: Connection, cloud: Cloud, numbers: Sequence[int], *, workload_id: int | None = None) -> None:
    if numbers:
        _release(conn, cloud, cloud_port.c.pool_id.in_(numbers), workload_id=workload_id)
        conn.execute(sa.delete(port_pool).where(port_pool.c.id.in_(numbers)))


def _release(conn: Connection, cloud: Cloud, which: sa.ColumnElement[bool], *, workload_id: int | None = None) -> None:
    """These ports are in no pool any more, and are removed; with a workload, which then goes after them."""
    ask(conn, cloud, cloud_port, which, state="removing", pool_id=None, workload_id=workload_id)


class PortPools:
    """The work on ``port_pool``. ``check_every``: seconds between two looks whether a pool has the size that it
    should have, without anybody taking from it."""

    def __init__(self, cloud: Cloud, *, check_every: float) -> None:
        self._cloud = cloud
        self._check_every = timedelta(seconds=check_every)

    def keeper(self) -> Keeper:
        return Keeper(self._cloud, port_pool, self.work)

    async def work(self, rows: Sequence[Row[Any]]) -> Sequence[Written]:
        return [self._level] * len(rows)

    def _level(self, conn: Connection, row: Row[Any]) -> None:
        if row.due_at is not None:  # somebody took one just now: once it is quiet
            return
        query = sa.select(cloud_port.c.id).where(cloud_port.c.pool_id == row.id).order_by(cloud_port.c.id)
        there = list(conn.execute(query).scalars())
        resting = row.rests_until is not None and row.rests_until > self._cloud.now()
        wanted = size(
            self._cloud.settings.port_pool,
            idle=(self._cloud.now() - row.used_at).total_seconds(),
            keep=self._cloud.settings.port_pool_time,
            used=self._used(conn, row),
            fit=self._fit(conn, row),
            resting=resting,
        )
        if not wanted and not resting:
            _dissolve(conn, self._cloud, [row.id])
            return
        if surplus := there[wanted:]:
            _release(conn, self._cloud, cloud_port.c.id.in_(surplus))
        for _ in range(wanted - len(there)):
            conn.execute(sa.insert(cloud_port).values(self._new(conn, row)))
        due = self._cloud.now() + self._check_every
        conn.execute(sa.update(port_pool).where(port_pool.c.id == row.id).values(due_at=due))

    def _used(self, conn: Connection, row: Row[Any]) -> bool:
        query = sa.select(cloud_port.c.id).where(
            cloud_port.c.project_id == row.project_id, cloud_port.c.network == row.network,
            cloud_port.c.workload_id.is_not(None), cloud_port.c.state != "removing",
        )  # fmt: skip
        return conn.execute(query.limit(1)).first() is not None

    def _fit(self, conn: Connection, row: Row[Any]) -> bool:
        t, lease = host.c, timedelta(seconds=self._cloud.settings.host_lease)
        shut = sa.or_(t.disabled, t.draining, t.forced_down, t.seen_at < self._cloud.now() - lease)
        return conn.execute(sa.select(t.id).where(t.id == row.host_id, ~shut)).first() is not None

    def _new(self, conn: Connection, row: Row[Any]) -> dict[str, Any]:
        """A port that is to be made. It bears the row's uuid as its device until a workload has it."""
        uuid = str(uuids.uuid4())
        return {
            "uuid": uuid,
            "wire": str(uuids.uuid4()),
            "pool_id": row.id,
            "device": uuid,
            "project_id": row.project_id,
            "position": 0,
            "state": "wanted",
            "late": False,
            "given": False,
            "network": row.network,
            "asked": row.asked,
            **asked(conn, self._cloud, cloud_port),
        }
