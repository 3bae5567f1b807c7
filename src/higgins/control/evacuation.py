"""Workloads that leave a host: one that is drained, or one that is lost.

From a host that is *drained* a workload moves in order: its new place is claimed, its old host ends it and removes it,
and only when that is reported does the new host get it, as another incarnation. A host that is *lost* reports nothing:
what may be placed elsewhere goes at once. Should the lost host come back, its reports about the workload count for
nothing, and what it is told to hold does not have it: it removes it as it removes whatever has no owner.

Each workload moves in a transaction of its own, and whatever could not move is tried again with the next round. Ports
keep their addresses. A workload with a volume that lies on the host stays: its data cannot follow.
"""

from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct, structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import (
    attachments,
    cloud_ports,
    containers,
    detaching,
    mounts,
    quotas,
    recording,
    sharing,
    wiring,
)
from higgins.control.cloud import Actor, Cloud
from higgins.control.fencing import lost_after, told_enough, unfit
from higgins.control.link import Known
from higgins.control.placement.choosing import Chosen, place
from higgins.control.placement.claims import take_cores
from higgins.control.placement.needs import need_of
from higgins.control.rows import known_of, spec_decoder, to_json
from higgins.model.container import ContainerSpec, Goal, Status, TaskState
from higgins.model.errors import HostUnavailable, Invalid, NotFound
from higgins.store.database import touch_host
from higgins.store.schema import certificate, container, host, volume, workload

#: Who moves what is moved without anybody's request.
_HIGGINS = Actor(user_id="higgins", project_id="", is_admin=True)
MOVES = "It moves to another host."
_ATTACHED = "its volume is attached to a host that does not answer and is not forced down"


class Staying(Struct, frozen=True):
    """A workload that does not leave its host, and why."""

    uuid: str
    name: str
    reason: str


class Round(Struct):
    """What a round did: the workloads that go or went, and those that stay."""

    moving: list[str] = msgspec.field(default_factory=list)
    staying: list[Staying] = msgspec.field(default_factory=list)


async def drain(cloud: Cloud, name: str) -> Round:
    """Place nothing on a host any more, and have what may move leave it; what stays, and why. Raises NotFound."""
    return await leave(cloud, await _mark(cloud, name, True))


async def undrain(cloud: Cloud, name: str) -> None:
    """The host takes workloads again. What is leaving it leaves it."""
    await _mark(cloud, name, False)


async def _mark(cloud: Cloud, name: str, draining: bool) -> int:
    def work(conn: Connection) -> int:
        number = conn.execute(sa.select(host.c.id).where(host.c.name == name)).scalar_one_or_none()
        if number is None:
            raise NotFound("host", name)
        conn.execute(sa.update(host).where(host.c.id == number).values(draining=draining, updated_at=cloud.now()))
        touch_host(conn, number)
        return int(number)

    return await cloud.store.write(work)


async def everywhere(cloud: Cloud, *, lost: bool) -> Round:
    """A round over all hosts that are drained, those that an operator forced down, and, where ``lost``, the silent."""
    conditions: list[sa.ColumnElement[bool]] = [host.c.draining]
    if cloud.settings.evacuate != "never":
        conditions.append(gone(cloud) if lost else host.c.forced_down)
    holding = sa.select(workload.c.host_id).where(workload.c.host_id.is_not(None))
    query = sa.select(host.c.id).where(sa.or_(*conditions), host.c.id.in_(holding)).order_by(host.c.id)
    numbers = await cloud.store.read(lambda conn: list(conn.execute(query).scalars()))
    await forget(cloud, lost=lost)
    await detach(cloud, lost=lost)
    total = Round()
    for number in numbers:
        one = await leave(cloud, number, lost=lost)
        total.moving += one.moving
        total.staying += one.staying
    return total


def silent(cloud: Cloud) -> sa.ColumnElement[bool]:
    """A host that is down: by its lease, or since an operator says so."""
    return sa.or_(host.c.forced_down, host.c.seen_at < cloud.now() - timedelta(seconds=cloud.settings.host_lease))


def gone(cloud: Cloud) -> sa.ColumnElement[bool]:
    """A host that is lost: silent for so long that it has ended by itself what may be placed elsewhere.

    One that was revoked was answered until then, though it counts as down at once. One that has not heard of a shorter
    lease, or that more is to leave it, does not know.
    """
    since = cloud.now() - timedelta(seconds=lost_after(cloud.settings))
    revoked = sa.exists().where(certificate.c.host_id == host.c.id, certificate.c.revoked_at >= since)
    return sa.or_(host.c.forced_down, sa.and_(host.c.seen_at < since, sa.not_(revoked), told_enough(cloud.settings)))


def _done_unsaid(cloud: Cloud, heard: sa.ColumnElement[bool], *, lost: bool) -> sa.ColumnElement[bool]:
    """A host on which what it was told has come to be, though it does not say so.

    An operator forced it down, or, where ``lost`` and workloads may be moved, it is ``gone`` and has ``heard`` of it:
    that it does, cut off or not.
    """
    if lost and cloud.settings.evacuate != "never":
        return sa.or_(host.c.forced_down, sa.and_(gone(cloud), heard))
    return host.c.forced_down


async def forget(cloud: Cloud, *, lost: bool) -> int:
    """What is to be deleted and lies on a lost host is deleted, though nobody there says so; how many that were.

    Addresses are free after that. A host that comes back removes what has no owner any more.
    """
    down = _done_unsaid(cloud, workload.c.unheard.is_not(True), lost=lost)
    here = sa.select(workload.c.id).join(host, host.c.id == workload.c.host_id)
    query = here.where(workload.c.deleting, down)
    numbers = await cloud.store.read(lambda conn: list(conn.execute(query.order_by(workload.c.id)).scalars()))
    count = 0
    for number in numbers:

        def work(conn: Connection, number: int = number) -> bool:
            mine = sa.select(workload).where(workload.c.id == number, workload.c.deleting)
            row = conn.execute(mine.with_for_update()).one_or_none()
            if row is None:
                return False
            quotas.hold(conn, row.project_id)
            still = here.where(workload.c.id == number, down).with_for_update(of=host)
            if conn.execute(still).first() is None:
                return False
            containers.remove_workload(conn, cloud, number)
            touch_host(conn, row.host_id)
            return True

        count += await cloud.store.write(work)
    return count


async def detach(cloud: Cloud, *, lost: bool) -> None:
    """Ports that were detached are given up though their host, which is lost, does not say that it is without them.

    Those too of which it has told a process of an older version.
    """
    down = _done_unsaid(cloud, workload.c.detaching == detaching.HEARD, lost=lost)
    done = sa.or_(workload.c.observed == workload.c.generation, down)
    query = sa.select(workload.c.id).join(host, host.c.id == workload.c.host_id)
    query = query.where(workload.c.detaching.is_not(None), done).order_by(workload.c.id)
    for number in await cloud.store.read(lambda conn: list(conn.execute(query).scalars())):

        def work(conn: Connection, number: int = number) -> None:
            conn.execute(sa.select(workload.c.id).where(workload.c.id == number).with_for_update())
            if conn.execute(query.where(workload.c.id == number)).first() is not None:
                detaching.end(conn, cloud, number)

        await cloud.store.write(work)


async def leave(cloud: Cloud, host_id: int, *, lost: bool = True) -> Round:
    """Have the workloads of one host leave it, as far as they may."""
    numbers, staying = await cloud.store.read(lambda conn: _look(conn, cloud, host_id))
    done = Round(staying=staying)
    for number in numbers:

        def work(conn: Connection, number: int = number) -> str | Staying | None:
            return _leave(conn, cloud, number, host_id, lost)

        try:
            came = await sharing.with_room(cloud, partial(cloud.store.write, work))
        except HostUnavailable as error:  # by Placement's fault; others may have a place that is held already
            came = await cloud.store.read(lambda conn, number=number, error=error: _unmoved(conn, number, str(error)))  # type: ignore[misc]
        match came:
            case str(uuid):
                done.moving.append(uuid)
            case Staying() as one:
                done.staying.append(one)
    return done


def _unmoved(conn: Connection, number: int, reason: str) -> Staying | None:
    """That a workload could not be moved now; None where it is gone meanwhile."""
    row = conn.execute(sa.select(workload).where(workload.c.id == number)).one_or_none()
    return None if row is None else Staying(row.uuid, row.name or _members(conn, number)[0].name, reason)


def _look(conn: Connection, cloud: Cloud, host_id: int) -> tuple[list[int], list[Staying]]:
    """Which workloads of a host may leave it, or have to be told why not, and which may not whatever else there is."""
    columns = (host.c.name, host.c.forced_down, silent(cloud).label("down"))
    old = conn.execute(sa.select(*columns).where(host.c.id == host_id)).one_or_none()
    if old is None:
        return [], []
    mine = sa.select(workload).where(workload.c.host_id == host_id, sa.not_(workload.c.deleting))
    going: list[int] = []
    staying: list[Staying] = []
    for row in conn.execute(mine.order_by(workload.c.id)).all():
        members = _members(conn, row.id)
        reason = _unfit(conn, cloud, row, members, down=old.down, fenced=old.forced_down)
        if reason is None or (reason == _ATTACHED and _untold(members, _fastened(old.name))):
            going.append(row.id)
        else:
            staying.append(Staying(row.uuid, row.name or members[0].name, reason))
    return going, staying


def _unfit(
    conn: Connection, cloud: Cloud, row: Row[Any], members: list[Any], *, down: bool, fenced: bool
) -> str | None:
    """Why a workload may not leave. One whose next place is claimed goes there, whatever becomes of its host.

    Yet a volume of Cinder goes nowhere as long as a silent host may write to it.
    """
    if row.next_host_id is None and (reason := _unwilling(conn, cloud, row, members, down=down)) is not None:
        return reason
    return _ATTACHED if down and not fenced and attachments.of_workload(conn, row.id) else None


def _unwilling(conn: Connection, cloud: Cloud, row: Row[Any], members: list[Any], *, down: bool) -> str | None:
    """Why it stays wherever else there is room: its own reason, or that of one it shares a volume with."""
    policy = cloud.settings.evacuate if down else "restart_policy"
    reason = _unfit_alone(conn, row, members, policy)
    if reason is not None:
        return reason
    for other in attachments.companions(conn, row.id):
        theirs = _members(conn, other.id)
        if other.next_host_id is None and (why := _unfit_alone(conn, other, theirs, policy)) is not None:
            return f"it shares a volume with {other.name or theirs[0].name}, which stays: {why}"
    return None


def _unfit_alone(conn: Connection, row: Row[Any], members: list[Any], policy: str) -> str | None:
    specs = [spec_decoder.decode(one.spec) for one in members]
    return unfit(row, specs, local=_local(conn, specs), policy=policy)


def _leave(conn: Connection, cloud: Cloud, number: int, host_id: int, lost: bool) -> str | Staying | None:
    """One workload: its uuid where it goes, or why it stays; None where there is nothing to be said of it any more.

    It is held, and its project, in the order in which others hold them. The host is held too: if it speaks just now it
    does so before this, and is not lost, or after it, and what it says is about a workload that it has lost.
    """
    mine = sa.select(workload).where(workload.c.id == number, workload.c.host_id == host_id)
    row = conn.execute(mine.with_for_update()).one_or_none()
    if row is None or row.deleting:
        return None
    quotas.hold(conn, row.project_id)
    columns = (
        host.c.name, host.c.draining, host.c.forced_down, silent(cloud).label("down"), gone(cloud).label("gone"),
    )  # fmt: skip
    old = conn.execute(sa.select(*columns).where(host.c.id == host_id).with_for_update()).one()
    lost = old.forced_down or (old.gone and lost)
    if not (old.draining or lost):
        return None
    members = _members(conn, number)
    name = row.name or members[0].name
    reason = _unfit(conn, cloud, row, members, down=old.down, fenced=old.forced_down)
    if reason is None and old.down and not lost:
        reason = "its host does not answer"
    if reason is None and old.down and not old.forced_down and row.unheard:
        reason = "its host does not answer and never heard that it may be moved, so it may still run it"
    if reason is not None:
        if reason == _ATTACHED and lost:
            _tell(conn, cloud, members, _fastened(old.name))
        return Staying(row.uuid, name, reason)
    if row.next_host_id is None:
        chosen, reason = _place(conn, cloud, row, members)
        if chosen is None:
            if old.down:
                _tell(conn, cloud, members, f"Host {old.name} does not answer. {reason}")
            return Staying(row.uuid, name, reason)
        _go(conn, cloud, row, members, chosen)
    if lost:  # nobody there says when it is gone
        arrive(conn, cloud, conn.execute(sa.select(workload).where(workload.c.id == number)).one())
    return str(row.uuid)


def _fastened(name: str) -> str:
    return f"Host {name} does not answer. Its volume stays there until the operator says that it is off."


def _untold(members: list[Any], reason: str) -> list[Any]:
    return [one for one in members if one.status == Status.UNKNOWN and one.status_reason != reason]


def _tell(conn: Connection, cloud: Cloud, members: list[Any], reason: str) -> None:
    """Say to the owner of a lost workload why it is not elsewhere yet."""
    for one in _untold(members, reason):
        update = sa.update(container).where(container.c.id == one.id)
        conn.execute(update.values(status_reason=reason, updated_at=cloud.now()))


def _members(conn: Connection, workload_id: int) -> list[Any]:
    query = sa.select(container).where(container.c.workload_id == workload_id).order_by(container.c.position)
    return list(conn.execute(query).all())


def _local(conn: Connection, specs: list[ContainerSpec]) -> str | None:
    """A volume of the workload whose data lies on a host's disk."""
    wanted = [mount.volume for spec in specs for mount in spec.mounts if mount.volume]
    if not wanted:
        return None
    query = sa.select(volume.c.name, volume.c.uuid).where(
        volume.c.uuid.in_(wanted), volume.c.host_id.is_not(None), volume.c.content.is_(None), volume.c.driver == "local"
    )
    row = conn.execute(query.order_by(volume.c.id)).first()
    return (row.name or row.uuid) if row is not None else None


def _place(conn: Connection, cloud: Cloud, row: Row[Any], members: list[Any]) -> tuple[Chosen | None, str]:
    """Claim its next host. Nobody of its company counts where it leaves: they leave too, or it goes ahead of them."""
    try:
        need = need_of(
            conn, row.project_id, [spec_decoder.decode(one.spec) for one in members],
            cpu=row.cpu, memory=row.memory, disk=row.disk,
            inits=sum(one.role == "init" for one in members), workload_id=row.id,
            attaches=bool(attachments.of_workload(conn, row.id)),
            volumes=attachments.ahead(conn, row.id, row.host_id),
        )  # fmt: skip
    except Invalid as error:  # asked of an older version, which took it for nothing
        return None, str(error)
    companions = {number: count for number, count in need.companions.items() if number != row.host_id}
    need = structs.replace(need, companions=companions, apart=need.apart | {row.host_id})
    return place(conn, cloud, need)


def _go(conn: Connection, cloud: Cloud, row: Row[Any], members: list[Any], chosen: Chosen) -> None:
    """Its place is claimed; its old host is told to end it."""
    take_cores(conn, chosen.id, row.id, chosen.cores)
    specs = [spec_decoder.decode(one.spec) for one in members]
    known = unfit(row, specs, local=None, policy=cloud.settings.evacuate) is None  # its host ends it in any case
    conn.execute(
        sa.update(workload)
        .where(workload.c.id == row.id)
        .values(
            next_host_id=chosen.id,
            generation=row.generation + 1,
            unheard=bool(row.unheard) or not known,
            updated_at=cloud.now(),
        )
    )
    for one in members:
        conn.execute(
            sa.update(container)
            .where(container.c.id == one.id)
            .values(
                goal=goal_there(one),
                status=Status.REBUILDING,
                status_reason=MOVES,
                task_state=TaskState.REBUILDING,
                updated_at=cloud.now(),
            )
        )
        recording.record_event(
            conn, cloud, project_id=one.project_id, uuid=one.uuid, name=one.name, status=Status.REBUILDING,
            reason=MOVES,
        )  # fmt: skip
    recording.record_action(
        conn, cloud, structs.replace(_HIGGINS, project_id=row.project_id), row.uuid, "migrate",
        generation=row.generation + 1,
    )  # fmt: skip
    touch_host(conn, row.host_id)


def goal_there(row: Row[Any]) -> str:
    """Pure: what it shall be on its new host, where nothing is known of it. What had ended is made and not started."""
    ended = row.goal == Goal.STOPPED or (row.goal in (Goal.RUNNING, Goal.PAUSED) and known_of(row).ended)
    return Goal.CREATED if ended else str(row.goal)


def arrive(conn: Connection, cloud: Cloud, row: Row[Any]) -> None:
    """Nothing of a workload that moves is left where it was, or what is left counts for nothing: it is on its new host.

    ``row`` is held. The containers are made anew there, as another incarnation; what was ordered before is done.
    """
    old, new = row.host_id, row.next_host_id
    there = conn.execute(sa.select(host.c.name).where(host.c.id == new)).scalar_one()
    containers.let_go(conn, row, old)
    conn.execute(
        sa.update(workload)
        .where(workload.c.id == row.id)
        .values(host_id=new, next_host_id=None, generation=row.generation + 1, unheard=False, updated_at=cloud.now())
    )
    members = _members(conn, row.id)
    specs = mounts.move(conn, cloud, row.id, [spec_decoder.decode(one.spec) for one in members], new)
    for one, spec in zip(members, specs, strict=True):
        done = max(known_of(one).order_done, containers.order_of(one).seq if one.orders else 0)
        conn.execute(
            sa.update(container)
            .where(container.c.id == one.id)
            .values(
                host=there,
                incarnation=one.incarnation + 1,
                known=to_json(Known(order_done=done)),
                spec=to_json(spec),
                updated_at=cloud.now(),
            )
        )
    cloud_ports.want_again(conn, cloud, row.id, states=cloud_ports.HERE)
    if row.detaching is not None:
        detaching.end(conn, cloud, row.id)
    for number in (old, new):
        touch_host(conn, number)
    wiring.tell_neighbours(conn, cloud, row.id)
