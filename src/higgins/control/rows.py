"""Rows to read models and back: the one place where a container's columns and its JSON become a ``Container``."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.link import Known
from higgins.model.container import ContainerSpec, RestartPolicy, Status, TaskState
from higgins.model.resources import Container, Host, HostInfo
from higgins.store.schema import container


class CapsuleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a capsule's row keeps besides its members."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    restart_policy: RestartPolicy = RestartPolicy("always")


encode = msgspec.json.encode
spec_decoder = msgspec.json.Decoder(ContainerSpec)
known_decoder = msgspec.json.Decoder(Known)
_addresses = msgspec.json.Decoder(dict[str, list[dict[str, Any]]])
_TASKS = {str(task): task for task in TaskState}
_STATUSES = {str(status): status for status in Status}
_UNKNOWN = Known()
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
    return None if step is None else _TASKS.get(step)


#: What of a row a ``Container`` is made of.
_USED = (
    "uuid", "role", "name", "project_id", "user_id", "host", "spec", "status", "status_reason", "task_state", "known",
    "addresses", "created_at", "updated_at",
)  # fmt: skip
#: For lists: no more columns than that, in this order.
COLUMNS = container.c[_USED]
_used = attrgetter(*_USED)


#: The same as a JSON array of MariaDB's.
_packed = sa.func.json_array(*COLUMNS)
_unpacked = msgspec.json.Decoder(
    tuple[
        str, str, str, str, str, str | None, str, str, str | None, str | None, str | None, str, datetime,
        datetime | None,
    ]
)  # fmt: skip


def listed(conn: Connection, query: sa.Select[Any]) -> Sequence[Sequence[Any]]:
    """The rows of a query for ``COLUMNS``. MariaDB's driver takes them apart in Python, column by column, which took
    longer than all else that a list takes: so it is given each as one column."""
    if conn.dialect.name != "mariadb":
        return conn.execute(query).all()
    return [_unpacked.decode(text) for text in conn.execute(query.with_only_columns(_packed)).scalars()]


def container_of(row: Row[Any], workload: str, now: datetime) -> Container:
    """A ``Container`` of a row of the container table."""
    return _container(_used(row), workload, now)


def plain_of(row: Sequence[Any], now: datetime) -> Container:
    """A plain ``Container`` of a row of ``COLUMNS``. They are taken by place: a list has thousands of attributes."""
    return _container(row, row[0], now)


def _container(used: Iterable[Any], workload: str, now: datetime) -> Container:
    (
        uuid, role, name, project_id, user_id, host, spec, status, status_reason, task_state, told, addresses,
        created_at, updated_at,
    ) = used  # fmt: skip
    known = known_decoder.decode(told) if told else _UNKNOWN
    return Container(
        uuid=uuid,
        workload=workload,
        role=role,
        name=name,
        project_id=project_id,
        user_id=user_id,
        host=host,
        spec=spec_decoder.decode(spec),
        status=_STATUSES[status],
        status_reason=status_reason,
        status_detail=status_detail(status, known, now),
        task_state=task_of(task_state),
        addresses=_addresses.decode(addresses) if addresses != "{}" else {},
        started_at=known.started_at,
        created_at=created_at,
        updated_at=updated_at,
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
