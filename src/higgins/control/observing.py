"""What a host saw becomes what the API shows. Fenced: of an older generation, or of a lost workload, nothing counts."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct, structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import cloud_ports, containers, detaching, evacuation, quotas, recording
from higgins.control.cloud import Cloud
from higgins.control.link import Known, Observation
from higgins.control.rows import known_decoder, task_of, to_json
from higgins.model.container import Goal, Status
from higgins.store.database import touch_host
from higgins.store.schema import container, workload

# Made once: to put these together anew would take as long as to run them.
_WORKLOADS = (
    sa.select(workload)
    .where(workload.c.uuid.in_(sa.bindparam("uuids", expanding=True)), workload.c.host_id == sa.bindparam("host"))
    .order_by(workload.c.id)
    .with_for_update()
)
_MEMBERS = sa.select(container).where(container.c.workload_id.in_(sa.bindparam("workloads", expanding=True)))
_SHOW = sa.update(container).where(container.c.id == sa.bindparam("number"))
_SETTLED = sa.update(workload).where(workload.c.id == sa.bindparam("number"))


class Shown(Struct, frozen=True):
    """A status as the API shows it."""

    status: Status
    reason: str | None
    task: str | None


def shown(known: Known, goal: Goal, before: Status, *, deleting: bool, settled: bool, error: str) -> Shown:
    """Pure: what is known of a container, in the words of the API.

    ``before`` stays while a step is under way that has a status of its own (Creating, Rebuilding, Restarting,
    Deleting); ``error`` is what keeps the whole workload from going on.
    """
    task = known.step or None
    if deleting:
        return Shown(Status.DELETING, known.reason or error or None, task or "container_deleting")
    if error and known.state not in ("running", "paused"):
        return Shown(Status.ERROR, error, task)
    match known.state:
        case "running":
            if before in (Status.RESTARTING, Status.REBUILDING) and not settled:
                return Shown(before, None, task)
            return Shown(Status.RUNNING, known.reason or None, task)
        case "paused":
            return Shown(Status.PAUSED, None, task)
        case "created":
            if goal == Goal.RUNNING and not settled:
                return Shown(before, None, task or "container_starting")
            return Shown(Status.CREATED, known.reason or None, task)
        case "exited":
            if before in (Status.RESTARTING, Status.REBUILDING) and not settled:
                return Shown(before, None, task)
            if goal == Goal.RUNNING and not known.ended:
                return Shown(Status.RESTARTING, known.reason or None, task)
            return Shown(Status.STOPPED, known.reason or None, task)
        case "dead":
            return Shown(Status.DEAD, known.reason or None, task)
        case "error":
            return Shown(Status.ERROR, known.reason or "The container could not be brought up.", task)
        case "gone":
            reason = known.reason or "The container was removed from its engine outside Higgins."
            return Shown(Status.ERROR, reason, task)
    return Shown(before, known.reason or None, task)


async def observe(cloud: Cloud, host_id: int, observations: list[Observation]) -> None:
    """Take in a batch of observations of one host, in one transaction."""

    newest = {one.workload: one for one in observations}  # what is said of a workload counts once

    def work(conn: Connection) -> None:
        rows = _held(conn, host_id, newest)
        members: dict[int, list[Row[Any]]] = {row.id: [] for row in rows}
        for member in conn.execute(_MEMBERS, {"workloads": list(members)}).all():
            members[member.workload_id].append(member)
        for row in rows:
            _apply(conn, cloud, row, members[row.id], newest[row.uuid])

    await cloud.store.write(work)


def _held(conn: Connection, host_id: int, seen: Mapping[str, Observation]) -> Sequence[Row[Any]]:
    """The workloads that are spoken of. They, and projects to which something is given back, are held until the end.

    So no verb raises a generation between the look at it and what is written because of it; and all at first and in
    order, so that two batches, or a batch and a create, do not hold what the other one wants.
    """
    rows = conn.execute(_WORKLOADS, {"uuids": list(seen), "host": host_id}).all()
    for project_id in sorted({row.project_id for row in rows if seen[row.uuid].gone}):
        quotas.hold(conn, project_id)
    return rows


def _apply(conn: Connection, cloud: Cloud, row: Row[Any], members: Sequence[Row[Any]], seen: Observation) -> None:
    if row.generation != seen.generation:
        return
    if seen.gone:
        if row.deleting:
            if not cloud_ports.retire(conn, cloud, row.id):
                containers.remove_workload(conn, cloud, row.id)
                touch_host(conn, row.host_id)
        elif row.next_host_id is not None:
            evacuation.arrive(conn, cloud, row)
        return
    if row.next_host_id is not None and not row.deleting:
        return  # how it comes to its end here is nothing that its owner did
    failed: str | None = None
    for member in members:
        known = seen.members.get(member.uuid)
        if known is None and not seen.error:
            continue
        failed = _member(conn, cloud, member, known, seen, deleting=row.deleting) or failed
    if row.kind == "capsule":
        _capsule(conn, cloud, row, seen)
    if seen.settled:
        conn.execute(_SETTLED, {"number": row.id, "observed": seen.generation})
        recording.finish_actions(conn, cloud, [row.uuid, *(member.uuid for member in members)], seen.generation, failed)
        if row.detaching is not None:
            detaching.end(conn, cloud, row.id)


def _member(
    conn: Connection, cloud: Cloud, row: Row[Any], known: Known | None, seen: Observation, *, deleting: bool
) -> str | None:
    """Write what is known of one container; why it is in Error if it is."""
    if known is None:
        known = known_decoder.decode(row.known) if row.known else Known()
    known = structs.replace(known, step=task_of(known.step) or "", reason=_text(known.reason))
    view = shown(
        known, Goal(row.goal), Status(row.status), deleting=deleting, settled=seen.settled, error=_text(seen.error)
    )
    task = view.task if not seen.settled else (known.step or None)
    if not seen.settled and task is None:
        task = row.task_state
    values: dict[str, Any] = {
        "known": to_json(known), "status": view.status, "status_reason": view.reason, "task_state": task,
    }  # fmt: skip
    if view.status != row.status or view.reason != row.status_reason:
        values["updated_at"] = cloud.now()
        recording.record_event(
            conn, cloud, project_id=row.project_id, uuid=row.uuid, name=row.name, status=view.status,
            reason=view.reason,
        )  # fmt: skip
    conn.execute(_SHOW, {"number": row.id, **values})
    if (
        not deleting
        and row.auto_remove
        and row.role == "plain"
        and view.status == Status.STOPPED
        and known.state == "exited"
    ):
        _auto_remove(conn, cloud, row)
    return view.reason if view.status == Status.ERROR else None


def _text(words: str) -> str:
    """What an engine said, without what no database keeps."""
    return words.replace("\0", "").encode(errors="replace").decode()


def _auto_remove(conn: Connection, cloud: Cloud, row: Row[Any]) -> None:
    """It ended and was to go then."""
    conn.execute(
        sa.update(workload)
        .where(workload.c.id == row.workload_id)
        .values(deleting=True, unheard=True, generation=workload.c.generation + 1)
    )
    conn.execute(
        sa.update(container)
        .where(container.c.id == row.id)
        .values(goal=Goal.DELETED, status=Status.DELETED, task_state="container_deleting", updated_at=cloud.now())
    )
    host_id = conn.execute(sa.select(workload.c.host_id).where(workload.c.id == row.workload_id)).scalar_one()
    if host_id is not None:
        touch_host(conn, host_id)


def capsule_status(members: list[tuple[str, str]], deleting: bool) -> Status:
    """Pure: the status of a capsule by its members' (role, status)."""
    if deleting:
        return Status.DELETING
    statuses = [status for _, status in members]
    mains = [status for role, status in members if role != "init"]
    if Status.ERROR in statuses:
        return Status.ERROR
    if mains and all(status == Status.STOPPED for status in mains):
        return Status.STOPPED
    if any(status in (Status.RUNNING, Status.RESTARTING, Status.STOPPED) for status in mains):
        return Status.RUNNING
    if mains and all(status == Status.UNKNOWN for status in mains):
        return Status.UNKNOWN
    return Status.CREATING


def _capsule(conn: Connection, cloud: Cloud, row: Row[Any], seen: Observation) -> None:
    members = conn.execute(
        sa.select(container.c.role, container.c.status, container.c.status_reason)
        .where(container.c.workload_id == row.id)
        .order_by(container.c.position)
    ).all()
    status = capsule_status([(member.role, member.status) for member in members], row.deleting)
    reason = next((one.status_reason for one in members if one.status == Status.ERROR and one.status_reason), None)
    reason = _text(seen.error) or reason
    if status != row.status or reason != row.status_reason:
        conn.execute(
            sa.update(workload)
            .where(workload.c.id == row.id)
            .values(status=status, status_reason=reason, updated_at=cloud.now())
        )
        recording.record_event(
            conn, cloud, project_id=row.project_id, uuid=row.uuid, name=row.name or "", status=status, reason=reason
        )
