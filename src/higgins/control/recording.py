"""What is written down beside every change: the action that asked for it and the event that it was."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.store.database import touch_events
from higgins.store.schema import action, event, into

_FINISH = sa.update(action).where(
    action.c.container_uuid.in_(sa.bindparam("uuids", expanding=True)),
    action.c.finish_time.is_(None),
    action.c.generation <= sa.bindparam("settled"),
)


def record_action(
    conn: Connection, cloud: Cloud, actor: Actor, uuid: str, name: str, *, generation: int | None = None
) -> None:
    """Write that ``actor`` asked for an action. With a ``generation`` it is over when that has settled, else now."""
    row = action_row(cloud, actor, uuid, name, generation=generation or 0)
    if generation is None:
        row |= {"finish_time": row["start_time"], "result": "Success"}
    conn.execute(into(action), row)


def action_row(cloud: Cloud, actor: Actor, uuid: str, name: str, *, generation: int) -> dict[str, Any]:
    """The columns of an action that is under way."""
    return {
        "container_uuid": uuid,
        "request_id": actor.request_id,
        "action": name,
        "project_id": actor.project_id,
        "user_id": actor.user_id,
        "generation": generation,
        "start_time": cloud.now(),
    }


def finish_actions(conn: Connection, cloud: Cloud, uuids: list[str], generation: int, error: str | None) -> None:
    """The host has settled ``generation``: whatever was asked up to it is over."""
    result = {"result": "Error" if error else "Success", "message": "Error" if error else None}
    conn.execute(_FINISH, {"uuids": uuids, "settled": generation, "finish_time": cloud.now(), **result})


def record_event(
    conn: Connection, cloud: Cloud, *, project_id: str, uuid: str, name: str, status: str, reason: str | None
) -> None:
    """Write that a container changed its status, for whoever listens."""
    row = event_row(cloud, project_id=project_id, uuid=uuid, name=name, status=status, reason=reason)
    conn.execute(into(event), row)
    touch_events(conn)


def event_row(
    cloud: Cloud, *, project_id: str, uuid: str, name: str, status: str, reason: str | None
) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "container_uuid": uuid,
        "name": name,
        "status": status,
        "status_reason": reason,
        "at": cloud.now(),
    }
