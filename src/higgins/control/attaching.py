"""The keeper of attachments: has Cinder do what rows of ``attachment`` want of it; see ``attachments``."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.attachments import LEAVING, LEFT, OVER, READY, REFUSED, WANTED
from higgins.control.cloud import Cloud
from higgins.control.keeper import Keeper, Later, LeaseLost, Written, ask, still_ours
from higgins.control.rows import to_json
from higgins.model.block_storage import BlockStorage
from higgins.model.resources import HostInfo
from higgins.openstack.errors import ServiceRefused
from higgins.store.database import touch_host
from higgins.store.schema import attachment, host, volume

#: Refusals that may pass, before the owner is told that it failed: about four minutes.
_TRIES = 8

_info = msgspec.json.Decoder(HostInfo)


def keeper(cloud: Cloud, storage: BlockStorage) -> Keeper:
    """To be run in every process of the control plane."""
    return Keeper(cloud, attachment, Attaching(cloud, storage).work, troubled=_troubled)


def _troubled(conn: Connection, row: Row[Any]) -> None:
    """The owner is told through the host, which knows what else there is to tell."""
    host_id = conn.execute(sa.select(volume.c.host_id).where(volume.c.id == row.volume_id)).scalar_one_or_none()
    if host_id is not None and row.state == WANTED:
        touch_host(conn, host_id)


class _Place(Struct, frozen=True):
    """Where a volume is wanted: by which uuid, and what Cinder has to know of the host. ``blocked``: by another row."""

    use: str
    connector: dict[str, Any]
    blocked: str = ""


class Attaching:
    """``storage`` is Cinder. What a try did before it failed is found by the next one."""

    def __init__(self, cloud: Cloud, storage: BlockStorage) -> None:
        self._cloud = cloud
        self._storage = storage

    async def work(self, rows: Sequence[Row[Any]]) -> list[Written | Later]:
        return [await self._one(row) for row in rows]

    async def _one(self, row: Row[Any]) -> Written | Later:
        match row.state:
            case "wanted":
                return await self._bring(row)
            case "left":
                return await self._take_away(row)
            case "over":
                await self._storage.give_back(row.trust)
                return _forget
        return _nothing

    async def _bring(self, row: Row[Any]) -> Written | Later:
        place = await self._cloud.store.read(lambda conn: _place(conn, row))
        if place is None:
            return _nothing
        if place.blocked:
            return Later(place.blocked)
        storage = self._storage
        try:
            ident = row.cinder_id
            if ident is None:
                await self._still_ours(row)
                ident = await storage.make(row.trust, use=place.use, name=row.name, size=row.size)
                mine = (attachment.c.id == row.id, attachment.c.holder == row.holder)
                made = sa.update(attachment).where(*mine).values(cinder_id=ident)
                await self._cloud.store.write(lambda conn: _execute(conn, made))
            await self._still_ours(row)
            connection = await storage.attach(row.trust, ident, use=place.use, connector=place.connector)
            await self._still_ours(row)
        except LeaseLost:
            await self._take_back(row, place.use, ident)
            raise
        except ServiceRefused as error:
            said_before = row.trouble == str(error) and row.tries + 1 >= _TRIES
            if not error.final and not said_before:
                raise
            reason = str(error)
            return lambda conn, now: _refused(conn, now, reason)
        secret = self._cloud.secrets.encrypt(to_json(connection).encode()).decode()
        return lambda conn, now: _ready(conn, now, secret)

    async def _still_ours(self, row: Row[Any]) -> None:
        await still_ours(self._cloud, attachment, [row])

    async def _take_back(self, row: Row[Any], use: str, ident: str | None) -> None:
        """What was done too late stays only if there is a row yet: whoever has that finds it."""
        query = sa.select(attachment.c.id).where(attachment.c.id == row.id)
        if ident is None or await self._cloud.store.read(lambda conn: conn.execute(query).first()) is not None:
            return
        await self._storage.detach(row.trust, ident, use=use)
        if row.own:
            await self._storage.delete(row.trust, use=use, ident=ident)

    async def _take_away(self, row: Row[Any]) -> Written:
        use = await self._cloud.store.read(lambda conn: _use(conn, row))
        await self._still_ours(row)
        if row.cinder_id is not None:
            await self._storage.detach(row.trust, row.cinder_id, use=use)
        if row.own or (row.made and row.cinder_id is None):
            await self._still_ours(row)
            await self._storage.delete(row.trust, use=use, ident=row.cinder_id)
        cloud = self._cloud
        return lambda conn, now: _gone(conn, cloud, now)


def _execute(conn: Connection, statement: sa.Update) -> None:
    conn.execute(statement)


def _nothing(conn: Connection, row: Row[Any]) -> None:
    """There was nothing to do, or something else is to be done by now."""


def _use(conn: Connection, row: Row[Any]) -> str:
    return str(conn.execute(sa.select(volume.c.uuid).where(volume.c.id == row.volume_id)).scalar_one())


def _place(conn: Connection, row: Row[Any]) -> _Place | None:
    query = sa.select(volume.c.uuid, host.c.name, host.c.info).join(host, host.c.id == volume.c.host_id)
    mine = conn.execute(query.where(volume.c.id == row.volume_id)).one_or_none()
    if mine is None:
        return None
    connector = _info.decode(mine.info).connector
    if not connector:
        return _Place(mine.uuid, {}, f"Host {mine.name} says no more how volumes are attached to it.")
    return _Place(mine.uuid, connector, _before(conn, row))


def _before(conn: Connection, row: Row[Any]) -> str:
    """Why another row of the same volume goes before this one, in words."""
    if row.cinder_id is None:
        return ""
    others = (attachment.c.cinder_id == row.cinder_id, attachment.c.id != row.id)
    first = sa.or_(
        attachment.c.state.in_((READY, LEAVING, LEFT)),
        sa.and_(attachment.c.state == WANTED, attachment.c.id < row.id),
    )
    query = sa.select(host.c.name).select_from(attachment).join(volume, volume.c.id == attachment.c.volume_id)
    found = conn.execute(query.outerjoin(host, host.c.id == volume.c.host_id).where(*others, first)).first()
    if found is None:
        return ""
    where = f"attached to host {found.name}" if found.name else "being detached"
    return f"Volume {row.name} is still {where}; that is awaited."


def _refused(conn: Connection, row: Row[Any], reason: str) -> None:
    if row.state == WANTED:
        conn.execute(sa.update(attachment).where(attachment.c.id == row.id).values(state=REFUSED, reason=reason))
        _tell_host(conn, row)


def _ready(conn: Connection, row: Row[Any], secret: str) -> None:
    """One that left meanwhile is taken away by what is due for it then."""
    if row.state == WANTED:
        conn.execute(sa.update(attachment).where(attachment.c.id == row.id).values(state=READY, connection=secret))
        _tell_host(conn, row)


def _tell_host(conn: Connection, row: Row[Any]) -> None:
    host_id = conn.execute(sa.select(volume.c.host_id).where(volume.c.id == row.volume_id)).scalar_one()
    if host_id is not None:
        touch_host(conn, host_id)


def _gone(conn: Connection, cloud: Cloud, row: Row[Any]) -> None:
    """Nothing is left of it; who waits for the volume is next, and with the last use of its trust that is over."""
    if row.cinder_id is not None:
        ask(conn, cloud, attachment, attachment.c.cinder_id == row.cinder_id, attachment.c.state == WANTED)
    same = sa.select(attachment.c.id).where(attachment.c.trust == row.trust).order_by(attachment.c.id)
    if conn.execute(same.with_for_update()).scalars().all() == [row.id]:
        ask(conn, cloud, attachment, attachment.c.id == row.id, state=OVER, cinder_id=None)
        return
    _forget(conn, row)


def _forget(conn: Connection, row: Row[Any]) -> None:
    conn.execute(sa.delete(attachment).where(attachment.c.id == row.id))
    conn.execute(sa.delete(volume).where(volume.c.id == row.volume_id))
