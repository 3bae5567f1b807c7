"""Hosts: how they join, what they are told, what they report, and what an operator does with them."""

import asyncio
import uuid as uuids
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import assignments as assigning
from higgins.control import attachments, delivery, detaching, observing, port_pools, sharing
from higgins.control.cloud import Cloud
from higgins.control.fencing import WORN, told_all
from higgins.control.link import Assignments, HostReport, Observation
from higgins.control.lookup import page
from higgins.control.query import ListQuery
from higgins.control.rows import host_of, to_json
from higgins.images.base import Parts
from higgins.model.container import Status
from higgins.model.errors import Conflict, NotFound
from higgins.model.resources import Host
from higgins.store.database import touch_host
from higgins.store.schema import certificate, container, host, volume, workload

#: The one service that runs on a host; Zun's name, which its clients and operators know.
BINARY = "zun-compute"

SORT_KEYS = frozenset({"id", "uuid", "hostname", "name", "created_at"})


class LocalLink:
    """The control plane as an agent in the same process reaches it: the verbs of ``ControlLink``."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def register(self, report: HostReport) -> int:
        return await register(self._cloud, report)

    async def assignments(self, host: int, since: int, timeout: float) -> Assignments | None:
        return await assignments(self._cloud, host, since, timeout)

    async def observe(self, host: int, observations: list[Observation]) -> None:
        await observing.observe(self._cloud, host, observations)

    async def volumes_deleted(self, host: int, uuids: list[str]) -> None:
        await volumes_deleted(self._cloud, host, uuids)

    async def image(self, host: int, uuid: str, timeout: float) -> Parts | None:
        return await delivery.contents(self._cloud, host, uuid, timeout)

    def layer(self, host: int, uuid: str, digest: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return delivery.layer(self._cloud, host, uuid, digest)


def reported(cloud: Cloud, report: HostReport) -> dict[str, Any]:
    """The columns that a report sets."""
    return {
        "zone": report.zone,
        "info": to_json(report.info),
        "cpus": report.cpus,
        "memory": report.memory,
        "disk": report.disk,
        "cores": sum(map(len, report.info.cores)),
        "address": report.address or None,
        "seen_at": _seen_at(cloud),
        "updated_at": cloud.now(),
        **_rules(cloud),  # an agent that has just begun asks for all there is
    }


def _seen_at(cloud: Cloud) -> sa.ColumnElement[datetime]:
    """Now, unless another replica heard the host later: whose machine slept is behind until it has asked the time."""
    now = sa.literal(cloud.now(), host.c.seen_at.type)
    return sa.case((host.c.seen_at > now, host.c.seen_at), else_=now)


async def register(cloud: Cloud, report: HostReport) -> int:
    """A host introduces itself, for the first time or again; its number."""

    def work(conn: Connection) -> int:
        values = reported(cloud, report)
        found = conn.execute(sa.select(host.c.id).where(host.c.name == report.name)).scalar_one_or_none()
        if found is not None:
            conn.execute(sa.update(host).where(host.c.id == found).values(values))
            touch_host(conn, found)  # schedulers read again what it is
            return int(found)
        values |= {"seen_at": cloud.now(), "created_at": cloud.now()}
        result = conn.execute(sa.insert(host).values(uuid=str(uuids.uuid4()), name=report.name, **values))
        return int(result.inserted_primary_key[0])  # type: ignore[index]

    return await cloud.store.write(work)


async def seen(cloud: Cloud, *host_ids: int) -> None:
    """These hosts are alive; not those that were revoked since, whose last questions may be under way.

    Those that were thought dead shall say again how their containers are.
    """

    def work(conn: Connection) -> None:
        now = cloud.now()
        mine = sa.and_(host.c.id.in_(host_ids), host.c.revoked_at.is_(None))
        held = sa.select(host.c.id, host.c.seen_at).where(mine).order_by(host.c.id).with_for_update()
        before = conn.execute(held).all()
        conn.execute(sa.update(host).where(mine).values(seen_at=_seen_at(cloud), report_count=host.c.report_count + 1))
        for number, seen_at in before:
            if now - seen_at > timedelta(seconds=cloud.settings.host_lease):
                ask_again(conn, number)

    await cloud.store.write(work)


def ask_again(conn: Connection, host_id: int) -> None:
    """Have a host report anew on all containers that became Unknown while it was silent."""
    unknown = sa.select(container.c.workload_id).where(container.c.status == Status.UNKNOWN)
    result = conn.execute(
        sa.update(workload)
        .where(workload.c.host_id == host_id, workload.c.id.in_(unknown))
        .values(generation=workload.c.generation + 1)
    )
    if result.rowcount:
        touch_host(conn, host_id)


async def assignments(cloud: Cloud, host_id: int, since: int, timeout: float) -> Assignments | None:
    """All that a host holds once its revision is not ``since``; None after ``timeout`` seconds. Renews its lease."""
    if since < 0:
        await seen(cloud, host_id)

    def work(conn: Connection) -> tuple[Assignments | None, bool, bool, bool]:
        asks = assigning.asking(conn, host_id)
        # Not only where it is higher: the database may have been restored.
        told = assigning.assignments(conn, cloud, asks) if asks.revision != since else None
        # That it is alive is not written with each question: it asks anew after each change, which may be often.
        worn = cloud.now() - asks.seen_at > timedelta(seconds=cloud.settings.host_lease * WORN)
        return told, worn, not told_all(cloud.settings, asks), told is None and _unheard(conn, host_id)

    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    beat: asyncio.Task[None] | None = None
    with cloud.store.wakeups.listen(f"host:{host_id}") as listener:
        try:
            while True:
                told, worn, changed, unheard = await cloud.store.read(work)
                if changed:
                    await cloud.store.write(lambda conn: _new_rules(conn, cloud, host_id))
                    continue
                if unheard:
                    await cloud.store.write(lambda conn: _heard(conn, host_id, since))
                if told is not None:
                    if beat is not None and beat.done():
                        await beat
                    elif worn:
                        await seen(cloud, host_id)
                    return told
                if worn and beat is None:  # there is time: with other hosts that have nothing to be told
                    beat = asyncio.create_task(_beat(cloud, host_id))
                if not await listener.wait(until - loop.time()):
                    if beat is not None:
                        await beat
                    return None
        finally:
            if beat is not None:
                beat.cancel()


async def _beat(cloud: Cloud, host_id: int) -> None:
    """Renew the lease of a host together with others. Nothing is answered to it before: see ``fencing``."""

    async def serve(numbers: list[int]) -> list[None]:
        await seen(cloud, *sorted(set(numbers)))
        return [None] * len(numbers)

    await cloud.beats.ask(host_id, serve)


def _rules(cloud: Cloud) -> dict[str, Any]:
    """The columns that say by which rules a host takes itself for lost; see ``fencing``."""
    return {"told_lease": cloud.settings.host_lease, "told_evacuate": cloud.settings.evacuate}


def _new_rules(conn: Connection, cloud: Cloud, host_id: int) -> None:
    """A host is to be told all anew, because an operator has changed when it is lost or what leaves it then.

    Until it has heard that nothing leaves it by itself, unless it was told nothing yet. Its workloads are held before
    it is, as others hold them.
    """
    mine = sa.select(workload.c.id).where(workload.c.host_id == host_id).order_by(workload.c.id)
    numbers = conn.execute(mine.with_for_update()).scalars().all()
    known = sa.select(host.c.told_evacuate).where(host.c.id == host_id).with_for_update()
    if conn.execute(known).scalar_one_or_none() is not None:
        conn.execute(sa.update(workload).where(workload.c.id.in_(numbers)).values(unheard=True))
    conn.execute(sa.update(host).where(host.c.id == host_id).values(_rules(cloud)))
    touch_host(conn, host_id)


#: What there is of a workload that its host may not have heard of.
_NEWS = sa.or_(workload.c.unheard, workload.c.detaching == detaching.UNHEARD)
_UNHEARD = sa.select(workload.c.id).where(workload.c.host_id == sa.bindparam("host"), _NEWS).limit(1)


def _unheard(conn: Connection, host_id: int) -> bool:
    return conn.execute(_UNHEARD, {"host": host_id}).first() is not None


def _heard(conn: Connection, host_id: int, since: int) -> None:
    """A host that has all there is at its revision ``since`` knows which workloads it ends once it is lost.

    They are held before it is looked whether there is more by now, as whoever changes one holds it: see ``fencing``.
    """
    query = sa.select(workload.c.id).where(workload.c.host_id == host_id, _NEWS)
    numbers = conn.execute(query.order_by(workload.c.id).with_for_update()).scalars().all()
    still = sa.select(host.c.id).where(host.c.id == host_id, host.c.revision == since).with_for_update()
    if conn.execute(still).first() is not None:
        known = sa.case((workload.c.detaching.is_not(None), detaching.HEARD))
        heard = sa.update(workload).where(workload.c.id.in_(numbers))
        conn.execute(heard.values(unheard=False, detaching=known))


async def volumes_deleted(cloud: Cloud, host_id: int, uuids: list[str]) -> None:
    """The data of these volumes is gone from the host; so go their rows, and what they claimed of its disk."""
    gone = sa.select(volume.c.id, volume.c.size).where(
        volume.c.uuid.in_(uuids), volume.c.host_id == host_id, volume.c.deleting, volume.c.driver == "local"
    )

    def work(conn: Connection) -> None:
        attachments.let_go(conn, cloud, host_id, uuids)
        rows = conn.execute(gone.order_by(volume.c.id).with_for_update()).all()
        conn.execute(sa.delete(volume).where(volume.c.id.in_([row.id for row in rows])))
        freed = sum(row.size for row in rows)
        if freed:
            conn.execute(sa.update(host).where(host.c.id == host_id).values(disk_used=host.c.disk_used - freed))

    await cloud.store.write(work)


async def find(cloud: Cloud, query: ListQuery) -> list[Host]:
    """A page of hosts. ``hostname`` sorts as ``name``."""
    key = "name" if query.sort_key == "hostname" else query.sort_key
    asked = ListQuery(limit=query.limit, marker=query.marker, sort_key=key, sort_dir=query.sort_dir)

    def work(conn: Connection) -> list[Host]:
        conditions, order = page(host, asked, SORT_KEYS, conn, "compute_node")
        now = cloud.now()
        rows = conn.execute(sa.select(host).where(*conditions).order_by(*order).limit(query.limit)).all()
        return [host_of(row, now, cloud.settings.host_lease) for row in rows]

    return await cloud.store.read(work)


async def get(cloud: Cloud, ident: str) -> Host:
    """A host by uuid or name."""

    def work(conn: Connection) -> Host:
        row = conn.execute(sa.select(host).where(sa.or_(host.c.uuid == ident, host.c.name == ident))).first()
        if row is None:
            raise NotFound("compute_node", ident)
        return host_of(row, cloud.now(), cloud.settings.host_lease)

    return await cloud.store.read(work)


async def enable(cloud: Cloud, name: str, binary: str) -> Host:
    return await _set(cloud, name, binary, disabled=False, disabled_reason=None)


async def disable(cloud: Cloud, name: str, binary: str, reason: str | None) -> Host:
    """Nothing new is placed there; what runs there runs on."""
    return await _set(cloud, name, binary, disabled=True, disabled_reason=reason)


async def force_down(cloud: Cloud, name: str, binary: str, forced_down: bool) -> Host:
    changed = await _set(cloud, name, binary, forced_down=forced_down)
    if not forced_down:
        await cloud.store.write(lambda conn: ask_again(conn, changed.id))
    return changed


async def delete(cloud: Cloud, name: str, binary: str) -> None:
    """Forget a host that holds nothing any more."""

    def work(conn: Connection) -> None:
        row = _service(conn, name, binary)
        here = sa.or_(workload.c.host_id == row.id, workload.c.next_host_id == row.id)
        holds = sa.select(workload.c.id).where(here).limit(1)
        if conn.execute(holds).first() is not None:
            raise Conflict(f"Host {name} still holds containers.")
        attachments.let_go(conn, cloud, row.id)
        conn.execute(sa.delete(volume).where(volume.c.host_id == row.id, volume.c.deleting))
        if conn.execute(sa.select(volume.c.id).where(volume.c.host_id == row.id).limit(1)).first() is not None:
            raise Conflict(f"Host {name} still holds volumes.")
        sharing.forget(conn, cloud, row.id)
        port_pools.forget(conn, cloud, row.id)
        conn.execute(sa.delete(certificate).where(certificate.c.host_id == row.id))
        conn.execute(sa.delete(host).where(host.c.id == row.id))

    await cloud.store.write(work)


async def zones(cloud: Cloud) -> list[str]:
    """The availability zones that hosts are in."""
    query = sa.select(host.c.zone).distinct().order_by(host.c.zone)
    return await cloud.store.read(lambda conn: list(conn.execute(query).scalars()))


def _service(conn: Connection, name: str, binary: str) -> Row[tuple[object, ...]]:
    row = conn.execute(sa.select(host).where(host.c.name == name)).one_or_none()
    if row is None or binary != BINARY:
        raise NotFound("zun_service", f"{binary} on host {name}")
    return row


async def _set(cloud: Cloud, name: str, binary: str, **values: object) -> Host:
    def work(conn: Connection) -> Host:
        row = _service(conn, name, binary)
        conn.execute(sa.update(host).where(host.c.id == row.id).values(**values, updated_at=cloud.now()))
        touch_host(conn, row.id)  # schedulers read again how it is
        fresh = conn.execute(sa.select(host).where(host.c.id == row.id)).one()
        return host_of(fresh, cloud.now(), cloud.settings.host_lease)

    return await cloud.store.write(work)
