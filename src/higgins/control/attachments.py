"""Volumes of Cinder: how they come to the host of a workload, and away from it again.

A row of ``attachment`` belongs to one volume row and so to one host. It is *wanted* with its workload; a keeper has
Cinder make the volume, if that is to be made, and attach it, and the row is *ready*: only now is the host told of the
volume. When no workload uses it any more it is *leaving*: the host unmounts and disconnects it, and says so, and it has
*left*: the keeper ends the attachment, has a volume that went with its container deleted, and the row goes. With the
last row that was made by a trust the trust is *over*, and given back.

Never are two hosts attached at once, whatever Cinder allows: a file system is written by one kernel. So a row waits
for every earlier row of the same volume to be gone. A host that is silent is not believed to have let go of anything;
one that an operator forced down is: that is his word that it is fenced.
"""

import logging
import uuid as uuids
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.control.keeper import ask, asked
from higgins.control.rows import spec_decoder
from higgins.model.block_storage import BlockStorage, StoredVolume
from higgins.model.container import ContainerSpec, Mount
from higgins.model.errors import Conflict, HigginsError, OutcomeUnknown
from higgins.store.database import touch_host
from higgins.store.schema import attachment, container, host, volume, workload

LOG = logging.getLogger(__name__)

WANTED, READY, REFUSED, LEAVING, LEFT, OVER = "wanted", "ready", "refused", "leaving", "left", "over"
#: Statuses of a volume that is being let go of, which may be by a container of ours that was just deleted.
_IN_USE = frozenset({"in-use", "detaching", "reserved", "attaching"})


class Stored(Struct):
    """What was looked up for a create: volumes by what its mounts call them, and the trust for their sake, if any.

    ``used`` by the transaction that followed, in a row that gives it back some day.
    """

    volumes: dict[str, StoredVolume] = msgspec.field(default_factory=dict)
    trust: str = ""
    used: bool = False


# what creates ask for


@asynccontextmanager
async def looked_up(
    cloud: Cloud, actor: Actor, specs: Sequence[ContainerSpec], *, trusting: bool = True
) -> AsyncIterator[Stored]:
    """What Cinder knows of the volumes that mounts name, and the caller's trust where one will be needed.

    Nothing where Cinder has no part in it. A trust that nothing was made with is given back.
    """
    storage = cloud.storage
    mounts = [mount for spec in specs for mount in spec.mounts if mount.type != "bind"]
    if storage is None or not mounts:
        yield Stored()
        return
    local = await cloud.store.read(lambda conn: _local(conn, actor, mounts))
    stored = Stored()
    for name in {mount.source for mount in mounts if mount.source is not None} - local:
        found = await storage.find(actor.token, name)
        if found is not None:
            stored.volumes[name] = found
    theirs = [mount for mount in mounts if mount.source not in local]
    if trusting and any(mount.source in stored.volumes or mount.size is not None for mount in theirs):
        stored.trust = await storage.entrust(
            actor.token, user_id=actor.user_id, project_id=actor.project_id, roles=actor.roles
        )
    try:
        yield stored
    except OutcomeUnknown:
        raise  # it may be in use
    except BaseException:
        await _unused(storage, stored)
        raise
    if not stored.used:
        await _unused(storage, stored)


async def _unused(storage: BlockStorage, stored: Stored) -> None:
    if stored.trust:
        try:
            await storage.give_back(stored.trust)
        except HigginsError as error:
            LOG.warning("Trust %s, which nothing uses, could not be given back: %s", stored.trust, error)


def _local(conn: Connection, actor: Actor, mounts: Sequence[Mount]) -> set[str]:
    """The names that mean volumes of the project which lie on a host's disk."""
    names = {mount.source for mount in mounts if mount.source is not None}
    mine = (volume.c.project_id == actor.project_id, volume.c.driver == "local", volume.c.workload_id.is_(None))
    named = sa.or_(volume.c.uuid.in_(names), volume.c.name.in_(names))
    rows = conn.execute(sa.select(volume.c.uuid, volume.c.name).where(*mine, sa.not_(volume.c.deleting), named)).all()
    return {text for row in rows for text in (row.uuid, row.name) if text in names}


def in_use(conn: Connection, project_id: str, found: StoredVolume) -> Row[Any] | None:
    """The volume row by which containers of the project use it now, for one more to share. Conflict if none may.

    What is just being let go of is no hindrance: the new container waits for it.
    """
    mine = sa.select(volume, attachment.c.multiattach).join(attachment, attachment.c.volume_id == volume.c.id)
    rows = conn.execute(mine.where(attachment.c.cinder_id == found.id)).all()
    for row in rows:
        if row.deleting:
            continue
        if not row.multiattach or row.project_id != project_id:
            raise Conflict(f"Volume {found.name} is in use by {_user(conn, row) or 'another container'}.")
        return row
    if found.status == "available" or (found.multiattach and found.status == "in-use"):
        return None
    if rows and found.status in _IN_USE:
        return None
    raise Conflict(f"Volume {found.name} is {found.status} in Cinder; one that is available is wanted.")


def _user(conn: Connection, row: Row[Any]) -> str | None:
    query = sa.select(container.c.name).where(_mounts(row.uuid), container.c.project_id == row.project_id)
    name = conn.execute(query.limit(1)).scalar()
    return f"container {name}" if name else None


def _mounts(uuid: str) -> sa.ColumnElement[bool]:
    return container.c.spec.contains(f'"volume":"{uuid}"')


def placed(conn: Connection, cloud: Cloud, names: Sequence[str]) -> None:
    """The volumes with these uuids have a host now."""
    ask(conn, cloud, attachment, attachment.c.volume_id.in_(_ids(names)), attachment.c.state == WANTED)


def retry(conn: Connection, cloud: Cloud, spec: str) -> None:
    """The owner of a container tries again what Cinder refused. ``spec`` as it is in its row."""
    if mounted := _uuids(spec):
        refused = (attachment.c.volume_id.in_(_ids(mounted)), attachment.c.state == REFUSED)
        ask(conn, cloud, attachment, *refused, state=WANTED, reason=None)


def _ids(names: Collection[str]) -> sa.Select[tuple[int]]:
    return sa.select(volume.c.id).where(volume.c.uuid.in_(names))


# what becomes of them


def of_workload(conn: Connection, workload_id: int) -> list[Row[Any]]:
    """The volume rows of Cinder's that the members of a workload mount."""
    specs = conn.execute(sa.select(container.c.spec).where(container.c.workload_id == workload_id)).scalars()
    mounted = {uuid for spec in specs for uuid in _uuids(spec)}
    if not mounted:
        return []
    return list(conn.execute(sa.select(volume).where(volume.c.uuid.in_(mounted), volume.c.driver == "cinder")).all())


def _uuids(spec: str) -> set[str]:
    if '"mounts":[{' not in spec:
        return set()
    return {mount.volume for mount in spec_decoder.decode(spec).mounts if mount.volume}


def shared(conn: Connection, row: Row[Any], workload_id: int) -> bool:
    """Whether another workload mounts the volume too."""
    others = (container.c.project_id == row.project_id, container.c.workload_id != workload_id)
    return conn.execute(sa.select(container.c.id).where(_mounts(row.uuid), *others).limit(1)).first() is not None


def companions(conn: Connection, workload_id: int) -> list[Row[Any]]:
    """The other workloads that mount its volumes where it is: they can only move together, and to one host."""
    found: dict[int, Row[Any]] = {}
    for row in of_workload(conn, workload_id):
        users = sa.select(container.c.workload_id).where(_mounts(row.uuid), container.c.project_id == row.project_id)
        others = (workload.c.id.in_(users), workload.c.id != workload_id, sa.not_(workload.c.deleting))
        found |= {one.id: one for one in conn.execute(sa.select(workload).where(*others))}
    return [found[number] for number in sorted(found)]


def ahead(conn: Connection, workload_id: int, host_id: int) -> frozenset[int]:
    """Where its volumes go from this host, or went, with other workloads that mount them: there it is to go, too."""
    going = {one.next_host_id for one in companions(conn, workload_id) if one.next_host_id is not None}
    mine = [row.id for row in of_workload(conn, workload_id)]
    same = sa.select(attachment.c.cinder_id).where(attachment.c.volume_id.in_(mine))
    there = sa.select(volume.c.host_id).join(attachment, attachment.c.volume_id == volume.c.id)
    there = there.where(attachment.c.cinder_id.in_(same), sa.not_(volume.c.deleting), volume.c.host_id != host_id)
    return frozenset(going | set(conn.execute(there).scalars()))


def release(conn: Connection, cloud: Cloud, row: Row[Any]) -> None:
    """Nobody uses a volume row any more. What its host was never told of, or cannot hold any more, has left already."""
    conn.execute(
        sa.update(volume)
        .where(volume.c.id == row.id)
        .values(workload_id=None, deleting=True, name=None, updated_at=cloud.now())
    )
    mine = conn.execute(sa.select(attachment).where(attachment.c.volume_id == row.id)).one()
    if mine.state != READY or row.host_id is None or _fenced(conn, row.host_id):
        _left(conn, cloud, row.id)
        return
    conn.execute(sa.update(attachment).where(attachment.c.id == mine.id).values(state=LEAVING))
    touch_host(conn, row.host_id)


def _fenced(conn: Connection, host_id: int) -> bool:
    return bool(conn.execute(sa.select(host.c.forced_down).where(host.c.id == host_id)).scalar_one_or_none())


def _left(conn: Connection, cloud: Cloud, volume_id: int) -> None:
    conn.execute(sa.update(volume).where(volume.c.id == volume_id).values(host_id=None))
    ask(conn, cloud, attachment, attachment.c.volume_id == volume_id, state=LEFT, connection=None, reason=None)


def let_go(conn: Connection, cloud: Cloud, host_id: int, names: Sequence[str] | None = None) -> None:
    """A host has let go of the volumes with these uuids; if it is gone, of all (None) that are leaving it."""
    mine = sa.select(volume.c.id).join(attachment, attachment.c.volume_id == volume.c.id)
    mine = mine.where(volume.c.host_id == host_id, volume.c.deleting, attachment.c.state == LEAVING)
    if names is not None:
        mine = mine.where(volume.c.uuid.in_(names))
    for number in conn.execute(mine.order_by(volume.c.id)).scalars().all():
        _left(conn, cloud, number)


def fenced(conn: Connection, cloud: Cloud) -> None:
    """What was leaving hosts that are forced down has left them."""
    leaving = sa.select(volume.c.host_id).join(attachment, attachment.c.volume_id == volume.c.id)
    down = leaving.join(host, host.c.id == volume.c.host_id).where(attachment.c.state == LEAVING, host.c.forced_down)
    for number in conn.execute(down.distinct()).scalars().all():
        if number is not None:
            let_go(conn, cloud, number)


def move(conn: Connection, cloud: Cloud, workload_id: int, host_id: int) -> dict[str, str]:
    """A workload goes to another host: its volumes are wanted there, and leave where they were; the new for the old.

    One that another workload took there before is shared with that again.
    """
    new: dict[str, str] = {}
    for row in of_workload(conn, workload_id):
        old = conn.execute(sa.select(attachment).where(attachment.c.volume_id == row.id)).one()
        stays = shared(conn, row, workload_id)
        there = sa.select(volume.c.uuid).join(attachment, attachment.c.volume_id == volume.c.id)
        there = there.where(
            attachment.c.cinder_id == old.cinder_id, volume.c.host_id == host_id, volume.c.project_id == row.project_id,
            sa.not_(volume.c.deleting),
        )  # fmt: skip
        taken = None if old.cinder_id is None else conn.execute(there).scalar()
        if taken is not None:
            new[row.uuid] = taken
            if not stays:
                release(conn, cloud, row)
            continue
        # What was never made is made anew; whatever an earlier try made of it goes with the old row.
        follows = old.cinder_id is not None and not stays
        values = {
            name: getattr(old, name) for name in ("cinder_id", "name", "size", "made", "own", "multiattach", "trust")
        }
        values["made"] = old.made and old.state != READY  # what a host had is not blank
        new[row.uuid] = str(uuids.uuid4())
        insert(
            conn, cloud, values, uuid=new[row.uuid], project_id=row.project_id, host_id=host_id,
            workload_id=row.workload_id,
        )  # fmt: skip
        if follows:
            conn.execute(sa.update(attachment).where(attachment.c.id == old.id).values(own=False))
        if not stays:
            release(conn, cloud, row)
    return new


def insert(
    conn: Connection,
    cloud: Cloud,
    values: dict[str, Any],
    *,
    uuid: str,
    project_id: str,
    host_id: int | None,
    workload_id: int | None,
) -> None:
    """A new use of a volume, which mounts know by ``uuid``; a host, once there is one, shall have it."""
    row = {"project_id": project_id, "host_id": host_id, "workload_id": workload_id, "created_at": cloud.now()}
    made = conn.execute(sa.insert(volume).values(uuid=uuid, size=0, driver="cinder", deleting=False, **row))
    due = {"asks": 0, "tries": 0} if host_id is None else asked(conn, cloud, attachment)
    number = made.inserted_primary_key[0]  # type: ignore[index]
    conn.execute(sa.insert(attachment).values(volume_id=number, state=WANTED, **values, **due))
