"""Rows to read models and back: the one place where a container's columns and its JSON become a ``Container``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.link import Known
from higgins.model.container import ContainerSpec, RestartPolicy, Status, TaskState
from higgins.model.resources import Container, Host, HostInfo
from higgins.store.mariadb import packed
from higgins.store.schema import container, workload

T = TypeVar("T")
#: A row as a driver gives it.
Listed = tuple[Any, ...]
#: Rows of which it is kept what was made, at 3 KB each: five of the longest lists.
_MOST_MADE = 5000
_NOTHING = (datetime.min, None)


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


_UNITS = ((86400, "a day", "days"), (3600, "an hour", "hours"), (60, "a minute", "mins"), (1, "a second", "seconds"))


def ago(moment: datetime, now: datetime) -> str:
    """How long since, in the words that Zun's clients show: ``3 minutes``, ``an hour``."""
    passed = now - moment
    seconds = passed.days * 86400 + passed.seconds
    for size, one, many in _UNITS:
        if seconds >= size:
            count = seconds // size
            return one if count == 1 else f"{count} {many}"
    return "0 seconds"


def _reads_until(moment: datetime, now: datetime) -> datetime:
    """When ``ago`` says something else."""
    seconds = max(0, int((now - moment).total_seconds()))
    size = next((size for size, _, _ in _UNITS if seconds >= size), 1)
    return moment + timedelta(seconds=size * (seconds // size + 1))


def _since(status: str, known: Known) -> datetime | None:
    """From when ``status_detail`` counts."""
    match status:
        case Status.RUNNING | Status.PAUSED:
            return known.started_at
        case Status.STOPPED:
            return known.finished_at
    return None


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
#: All that lists and a look at one read: the uuid of the workload, which is a plain container's own, and these.
COLUMNS = (container.c.uuid.label("workload_uuid"), *container.c[_USED])
WITH_WORKLOAD = (workload.c.uuid.label("workload_uuid"), *container.c[_USED])
_used = attrgetter(*_USED)


_unpacked = msgspec.json.Decoder(
    tuple[
        str, str, str, str, str, str, str | None, str, str, str | None, str | None, str | None, str, datetime,
        datetime | None,
    ]
)  # fmt: skip


def listed(conn: Connection, query: sa.Select[Any], wanted: Mapping[str, Any] | None = None) -> Iterable[Listed]:
    """The rows of a query for ``COLUMNS``, as the driver gives them: a list has thousands of values."""
    packs = conn.dialect.name == "mariadb"
    cursor: Any = conn.execute(packed(query) if packs else query, wanted).cursor
    return cursor  # type: ignore[no-any-return]


def _values(row: Listed) -> Sequence[Any]:
    """The columns of a row, whatever the driver gave."""
    if len(row) == 1:
        return _unpacked.decode(row[0])
    if isinstance(row[-2], str):  # SQLite has no type for a moment
        return *row[:-2], *(moment and datetime.fromisoformat(moment) for moment in row[-2:])
    return row


def container_of(row: Row[Any], workload: str, now: datetime) -> Container:
    """A ``Container`` of a row of the container table."""
    return _container(_used(row), workload, now)


def listed_of(row: Listed, now: datetime) -> Container:
    """A ``Container`` of a row of ``listed``."""
    workload_uuid, *used = _values(row)
    return _container(used, workload_uuid, now)


class Making(Generic[T]):
    """What is made of the containers of lists, by row, for when they are read again: most read as they did before.

    How long something was ago is part of it, so it is made anew when that reads otherwise.
    """

    def __init__(self, make: Callable[[Container], T]) -> None:
        self._make = make
        self._made: dict[Listed, tuple[datetime, T]] = {}

    def of(self, row: Listed, now: datetime) -> T:
        """What is made of a row of ``listed``; in any thread."""
        until, made = self._made.get(row, _NOTHING)
        if made is None or now >= until:
            item = listed_of(row, now)
            made = self._make(item)
            if len(self._made) >= _MOST_MADE:
                self._made.clear()
            self._made[row] = (datetime.max if item.since is None else _reads_until(item.since, now)), made
        return made


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
        since=_since(status, known),
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
