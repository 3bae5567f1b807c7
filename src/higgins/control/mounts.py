"""Volumes that a container is created with: found by name, or made for it.

A volume is charged to its project's disk as long as it has it, and claimed of its host's as long as data lies there.
Those of Cinder are neither: its own quota counts them. How they come to hosts is in ``attachments``.
"""

import uuid as uuids
from typing import Any

import sqlalchemy as sa
from msgspec import structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import attachments
from higgins.control.attachments import Stored
from higgins.control.cloud import Actor, Cloud
from higgins.model.container import ContainerSpec, Mount
from higgins.model.errors import NotFound
from higgins.store.schema import volume

#: GiB of a named volume that is made without a size.
_DEFAULT_SIZE = 1


class Resolved:
    """The spec with its mounts' volumes named, the rows to insert, and the hosts that hold existing ones."""

    def __init__(self, spec: ContainerSpec, rows: list[dict[str, Any]], hosts: frozenset[int], used: list[str]) -> None:
        self.spec = spec
        self.rows = rows
        self.hosts = hosts
        self.used = used

    @property
    def attaches(self) -> bool:
        """Whether the host must be one that volumes of Cinder can be attached to."""
        return any("cinder" in row for row in self.rows)


def resolve(
    conn: Connection,
    cloud: Cloud,
    actor: Actor,
    spec: ContainerSpec,
    *,
    stored: Stored,
    made: dict[str, dict[str, Any]] | None = None,
) -> Resolved:
    """Find or prepare each mount's volume; ``stored`` is what Cinder knows of them.

    ``source`` names a volume of the project (uuid or name); with a ``size`` it is made when it is not there, and kept.
    ``size`` alone makes one that goes with the container. ``bind`` puts a file's content there, kept encrypted.
    A mount whose ``volume`` is a key of the members' own shares what is in ``made``: a capsule's members do.
    """
    rows: dict[str, dict[str, Any]] = {} if made is None else made
    if not spec.mounts:
        return Resolved(spec, list(rows.values()), frozenset(), [])
    mounts: list[Mount] = []
    hosts: set[int] = set()
    for mount in spec.mounts:
        named = mount.type != "bind" and mount.source is not None
        found = _find(conn, actor, mount.source or "") if named else None
        if found is not None:
            if found.host_id is not None:
                hosts.add(found.host_id)
            mounts.append(structs.replace(mount, volume=found.uuid))
            continue
        theirs = stored.volumes.get(mount.source or "") if named else None
        shared = attachments.in_use(conn, actor.project_id, theirs) if theirs is not None else None
        if shared is not None:
            if shared.host_id is not None:
                hosts.add(shared.host_id)
            mounts.append(structs.replace(mount, volume=shared.uuid))
            continue
        if named and mount.size is None and theirs is None:
            raise NotFound("volume", mount.source or "")
        key = mount.volume or (f"name:{mount.source}" if named else str(uuids.uuid4()))
        if theirs is not None:
            key = f"cinder:{theirs.id}"  # whether by its name or its id
        if key not in rows:
            rows[key] = _new(cloud, actor, mount, stored)
        # The content is in the volume's row, encrypted; the spec keeps only where it goes.
        mounts.append(structs.replace(mount, volume=rows[key]["uuid"], source=mount.source if named else None))
    used = [mount.volume for mount in mounts if mount.volume]
    return Resolved(structs.replace(spec, mounts=tuple(mounts)), list(rows.values()), frozenset(hosts), used)


def _find(conn: Connection, actor: Actor, ident: str) -> Row[Any] | None:
    return conn.execute(
        sa.select(volume).where(
            volume.c.project_id == actor.project_id,
            volume.c.driver == "local",
            volume.c.workload_id.is_(None),  # what goes with a container is nothing for another to rely on
            sa.not_(volume.c.deleting),
            sa.or_(volume.c.uuid == ident, volume.c.name == ident),
        )
    ).first()


def _new(cloud: Cloud, actor: Actor, mount: Mount, stored: Stored) -> dict[str, Any]:
    bind = mount.type == "bind"
    if cloud.storage is not None and not bind:
        return _of_cinder(actor, mount, stored)
    return {
        "uuid": str(uuids.uuid4()),
        "name": None if bind else mount.source,
        "project_id": actor.project_id,
        "size": 0 if bind else mount.size or _DEFAULT_SIZE,
        "content": cloud.secrets.encrypt((mount.source or "").encode()).decode() if bind else None,
        "created_at": cloud.now(),
        # Whether it goes with the container; the caller puts the workload's number here.
        "own": bind or mount.source is None,
    }


def _of_cinder(actor: Actor, mount: Mount, stored: Stored) -> dict[str, Any]:
    """One that is there, by what mounts call it, or one to be made. It takes nothing of the host's disk."""
    uuid = str(uuids.uuid4())
    theirs = stored.volumes.get(mount.source or "")
    stored.used = True
    attached = {
        "cinder_id": theirs.id if theirs else None,
        "name": theirs.name if theirs else mount.source or f"higgins-{uuid}",
        "size": theirs.size if theirs else mount.size or _DEFAULT_SIZE,
        "made": theirs is None,
        "own": theirs is None and mount.source is None,
        "multiattach": theirs is not None and theirs.multiattach,
        "trust": stored.trust,
    }
    return {"uuid": uuid, "project_id": actor.project_id, "size": 0, "own": attached["own"], "cinder": attached}


def insert(conn: Connection, cloud: Cloud, rows: list[dict[str, Any]], workload_id: int, host_id: int | None) -> None:
    for row in rows:
        if "cinder" in row:
            attachments.insert(
                conn, cloud, row["cinder"], uuid=row["uuid"], project_id=row["project_id"], host_id=host_id,
                workload_id=workload_id if row["own"] else None,
            )  # fmt: skip
            continue
        values = {key: value for key, value in row.items() if key != "own"}
        values |= {"workload_id": workload_id if row["own"] else None, "host_id": host_id, "deleting": False}
        conn.execute(sa.insert(volume).values(values))


def place(conn: Connection, cloud: Cloud, uuids_: list[str], host_id: int) -> None:
    """Volumes that lay nowhere yet now lie on this host."""
    if uuids_:
        there = sa.update(volume).where(volume.c.uuid.in_(uuids_), volume.c.host_id.is_(None)).values(host_id=host_id)
        if conn.execute(there).rowcount:
            attachments.placed(conn, cloud, uuids_)


def unplaced(conn: Connection, resolved: list[str], rows: list[dict[str, Any]]) -> int:
    """GiB of volumes that lie on no host yet: of those that are there already by uuid, and of the rows to insert."""
    size = sum(row["size"] for row in rows)
    if resolved:
        there = sa.select(sa.func.coalesce(sa.func.sum(volume.c.size), 0))
        size += conn.execute(there.where(volume.c.uuid.in_(resolved), volume.c.host_id.is_(None))).scalar_one()
    return int(size)


def own_size(conn: Connection, workload_id: int) -> int:
    """GiB of the volumes that go with a workload."""
    query = sa.select(sa.func.coalesce(sa.func.sum(volume.c.size), 0)).where(volume.c.workload_id == workload_id)
    return int(conn.execute(query).scalar_one())


def hosts_of(conn: Connection, specs: list[ContainerSpec]) -> frozenset[int]:
    """The hosts that the volumes of a workload lie on. Files do not count: they can be written anywhere."""
    wanted = [mount.volume for spec in specs for mount in spec.mounts if mount.volume]
    if not wanted:
        return frozenset()
    query = sa.select(volume.c.host_id).where(
        volume.c.uuid.in_(wanted), volume.c.host_id.is_not(None), volume.c.content.is_(None)
    )
    return frozenset(number for number in conn.execute(query).scalars() if number is not None)


def move(
    conn: Connection, cloud: Cloud, workload_id: int, specs: list[ContainerSpec], host_id: int
) -> list[ContainerSpec]:
    """Have a workload's files written on another host: as new volumes, the old ones go. The specs with the new ones.

    Its volumes of Cinder are attached there, once they have left where they were.
    """
    mine = sa.select(volume).where(
        volume.c.workload_id == workload_id, volume.c.content.is_not(None), volume.c.host_id.is_not(None)
    )
    new: dict[str, str] = attachments.move(conn, cloud, workload_id, host_id)
    for row in conn.execute(mine).all():
        new[row.uuid] = str(uuids.uuid4())
        values = {"project_id": row.project_id, "size": row.size, "content": row.content, "host_id": host_id}
        conn.execute(
            sa.insert(volume).values(
                uuid=new[row.uuid], workload_id=workload_id, deleting=False, created_at=cloud.now(), **values
            )
        )
        gone = sa.update(volume).where(volume.c.id == row.id)
        conn.execute(gone.values(workload_id=None, deleting=True, content=None))
    return [
        structs.replace(
            spec,
            mounts=tuple(structs.replace(one, volume=new.get(one.volume or "", one.volume)) for one in spec.mounts),
        )
        for spec in specs
    ]


def drop(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """The workload's own volumes go: those with data on a host are marked until the host has deleted it.

    The volumes of Cinder that nobody else uses go from the host; what was made for the workload goes altogether.
    """
    for row in attachments.of_workload(conn, workload_id):
        if not attachments.shared(conn, row, workload_id):
            attachments.release(conn, cloud, row)
    mine = volume.c.workload_id == workload_id
    conn.execute(sa.delete(volume).where(mine, volume.c.host_id.is_(None)))
    conn.execute(sa.update(volume).where(mine).values(workload_id=None, deleting=True, content=None))
