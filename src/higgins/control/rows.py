"""Rows to read models and back: the one place where a container's columns and its JSON become a ``Container``."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Row

from higgins.control.link import Known
from higgins.model.container import ContainerSpec, Status, TaskState
from higgins.model.resources import Container, Host, HostInfo

encode = msgspec.json.encode
spec_decoder = msgspec.json.Decoder(ContainerSpec)
known_decoder = msgspec.json.Decoder(Known)
_addresses = msgspec.json.Decoder(dict[str, list[dict[str, Any]]])
_TASKS = frozenset(TaskState)
_info = msgspec.json.Decoder(HostInfo)


def to_json(value: Any) -> str:
    return encode(value).decode()


def known_of(row: Row[Any]) -> Known:
    return known_decoder.decode(row.known) if row.known else Known()


def ago(moment: datetime, now: datetime) -> str:
    """How long since, in the words that Zun's clients show: ``3 minutes``, ``an hour``."""
    seconds = max(0, int((now - moment).total_seconds()))
    for size, one, many in (
        (86400, "a day", "days"),
        (3600, "an hour", "hours"),
        (60, "a minute", "mins"),
        (1, "a second", "seconds"),
    ):
        count = seconds // size
        if count == 1:
            return one
        if count:
            return f"{count} {many}"
    return "0 seconds"


def status_detail(status: str, known: Known, now: datetime) -> str | None:
    """``Up 3 mins``, ``Exited(0) 2 mins ago``: what happened to it, and when."""
    match status:
        case Status.RUNNING | Status.PAUSED if known.started_at:
            up = f"Up {ago(known.started_at, now)}"
            if status == Status.PAUSED:
                return f"{up} (paused)"
            return f"{up} ({known.health})" if known.health else up
        case Status.STOPPED if known.finished_at:
            failed = " (error)" if known.exit_code else ""
            return f"Exited({known.exit_code}) {ago(known.finished_at, now)} ago{failed}"
        case Status.CREATED | Status.RESTARTING | Status.DEAD:
            return str(status)
    return None


def task_of(step: str | None) -> TaskState | None:
    """The task state of that name; None for none, and for what a host of another version calls something new."""
    return TaskState(step) if step in _TASKS else None


def container_of(row: Row[Any], workload: str, now: datetime) -> Container:
    """A ``Container`` of a row of the container table."""
    known = known_of(row)
    return Container(
        uuid=row.uuid,
        workload=workload,
        role=row.role,
        name=row.name,
        project_id=row.project_id,
        user_id=row.user_id,
        host=row.host,
        spec=spec_decoder.decode(row.spec),
        status=Status(row.status),
        status_reason=row.status_reason,
        status_detail=status_detail(row.status, known, now),
        task_state=task_of(row.task_state),
        addresses=_addresses.decode(row.addresses) if row.addresses != "{}" else {},
        started_at=known.started_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def host_of(row: Row[Any], now: datetime, lease: float) -> Host:
    """A ``Host`` of a row; it is up when it was seen within ``lease`` seconds and nobody forced it down."""
    return Host(
        **{name: getattr(row, name) for name in Host.__struct_fields__ if name not in ("info", "up")},
        info=_info.decode(row.info),
        up=not row.forced_down and now - row.seen_at <= timedelta(seconds=lease),
    )


def addresses_of(ports: Iterable[Any]) -> dict[str, list[dict[str, Any]]]:
    """The ``addresses`` of a container: by network, as the API shows them. Takes rows of port joined with network."""
    result: dict[str, list[dict[str, Any]]] = {}
    for port in ports:
        result.setdefault(port.network_uuid, []).append(
            {
                "addr": port.address,
                "version": 4,
                "port": port.uuid,
                "subnet_id": port.network_uuid,
                "preserve_on_delete": False,
            }
        )
    return result
