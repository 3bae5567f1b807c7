"""How Go reads JSON into a struct, as strict about types as its ``encoding/json``: gophercloud's capsules.

A null leaves a field as it is, a field that is not there is passed over, and a value of another type is an error. Times
have one layout; a fraction of a second may follow it.
"""

import datetime
import re
from collections.abc import Callable
from typing import Any

Reader = Callable[[Any], Any]

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")
_ZONED = re.compile(rf"(?:{_TIME.pattern})[+-]\d\d:\d\d")


class UnmarshalTypeError(Exception):
    """A value is not of the type of its field: here gophercloud tries its other struct."""


class ParseError(Exception):
    """A time that has not the layout, which nothing catches."""


def scalar(*kinds: type) -> Reader:
    def read(value: Any) -> Any:
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise UnmarshalTypeError(f"{value!r} is no {kinds}")
        return value

    return read


string, boolean, integer, float64 = scalar(str), scalar(bool), scalar(int), scalar(int, float)


def listed(item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if value is not None and not isinstance(value, list):
            raise UnmarshalTypeError(f"{value!r} is no list")
        return [item(one) for one in value or ()]

    return read


def mapped(item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if value is not None and not isinstance(value, dict):
            raise UnmarshalTypeError(f"{value!r} is no map")
        return {key: item(one) for key, one in (value or {}).items()}

    return read


def time(*layouts: re.Pattern[str]) -> Reader:
    def read(value: Any) -> Any:
        text = string(value)
        if text and not any(layout.fullmatch(text) for layout in layouts):
            raise ParseError(text)
        return datetime.datetime.fromisoformat(text) if text else None

    return read


#: Those that are read with or without an offset, and those of capsules from 1.32 on, which have none.
either, bare = time(_TIME, _ZONED), time(_TIME)


def struct(**fields: Reader) -> Reader:
    def read(value: Any) -> Any:
        if value is not None and not isinstance(value, dict):
            raise UnmarshalTypeError(f"{value!r} is no object")
        return {name: field(value[name]) for name, field in fields.items() if value and name in value}

    return read


anything: Reader = lambda value: value  # noqa: E731
ADDRESS = struct(preserve_on_delete=boolean, addr=string, port=string, version=float64, subnet_id=string)
CONTAINER = struct(
    addresses=mapped(listed(ADDRESS)), uuid=string, user_id=string, project_id=string, cpu=float64, memory=string,
    image=string, labels=mapped(string), created_at=either, updated_at=either, started_at=either, name=string,
    links=listed(anything), auto_remove=boolean, host=string, workdir=string, disk=integer, image_pull_policy=string,
    task_state=string, hostname=string, environment=mapped(string), status=string, auto_heal=boolean,
    status_detail=string, status_reason=string, image_driver=string, command=listed(string), runtime=string,
    interactive=boolean, restart_policy=mapped(string), ports=listed(integer), security_groups=listed(string),
)  # fmt: skip
_SHARED = {
    "uuid": string, "user_id": string, "project_id": string, "cpu": float64, "memory": string, "status": string,
    "status_reason": string, "links": listed(anything), "addresses": mapped(listed(ADDRESS)),
    "containers": listed(CONTAINER), "host": string,
}  # fmt: skip
CAPSULE = struct(
    **_SHARED, meta_name=string, created_at=either, updated_at=either, capsule_version=string, restart_policy=string,
    meta_labels=mapped(string), containers_uuids=listed(string), volumes_info=mapped(listed(string)),
)  # fmt: skip
CAPSULE_132 = struct(
    **_SHARED, name=string, created_at=bare, updated_at=bare, restart_policy=mapped(string), labels=mapped(string)
)


def capsule(value: Any) -> tuple[Any, bool]:
    """A capsule, and whether it is of the kind that came with 1.32: the older kind is tried first."""
    try:
        return CAPSULE(value), False
    except UnmarshalTypeError:
        return CAPSULE_132(value), True
