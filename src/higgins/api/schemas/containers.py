"""What a container may be created with, changed to, and asked to do; each field with the version that brought it."""

import base64
import binascii
import shlex
from typing import Any

from higgins.api.microversion import Version
from higgins.api.schemas import common
from higgins.api.schemas.common import ALL_PROJECTS, EDGE, EXEC_ID, FLAG, IDENT, NAME, PAGING
from higgins.api.schemas.fields import Field, Fields, Object
from higgins.api.schemas.kinds import (
    Address,
    Base64,
    Checked,
    ListOf,
    MapOf,
    Number,
    Optional,
    Text,
    Utf8,
    Whole,
    Word,
)
from higgins.model.container import MOST_GROUPS

ARGUMENT = Text(0, 32768)
ENVIRONMENT = MapOf(Text(0, 32768), Text(1, 255, r"[^=]+", "names of variables without '=' are wanted"))
LABELS = MapOf(Text(0, 4096))
PULL_POLICY = Word("never", "always", "ifnotpresent", "Never", "Always", "IfNotPresent", fold=str.lower)
HOSTNAME = Text(1, 63, r"[a-zA-Z0-9._-]+", "1 to 63 letters, digits, '-', '.' and '_' are wanted")


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"the command cannot be split into words ({error})") from None


#: A command as text, which is split into words as a shell does it.
COMMAND_TEXT = Checked(Text(0, 32768), _split)
COMMAND_LIST = ListOf(ARGUMENT)


def _restart(value: dict[str, Any]) -> dict[str, Any]:
    count = value.get("MaximumRetryCount") or 0
    if value["Name"] in ("always", "unless-stopped") and count:
        raise ValueError(f"a retry count has no meaning with {value['Name']}")
    return {"name": value["Name"], "maximum_retry_count": count if value["Name"] == "on-failure" else 0}


RESTART_POLICY = Checked(
    Object(
        Field("Name", Word("no", "always", "on-failure", "unless-stopped"), required=True),
        Field("MaximumRetryCount", Optional(Whole(0))),
    ),
    _restart,
)


def _net(value: dict[str, Any]) -> dict[str, Any]:
    if bool(value.get("network")) == bool(value.get("port")):
        raise ValueError("either a network or a port is wanted")
    return value


NET = Checked(
    Object(
        Field("network", Optional(Text(0, 255))),
        Field("port", Optional(Text(0, 255))),
        Field("v4-fixed-ip", Optional(Address(4))),
        Field("v6-fixed-ip", Optional(Address(6))),
    ),
    _net,
)


def _mount(value: dict[str, Any]) -> dict[str, Any]:
    kind = value.get("type") or "volume"
    if not value.get("source") and value.get("size") is None:
        raise ValueError("a source or a size is wanted")
    if kind == "bind":
        try:
            base64.b64decode((value.get("source") or "").encode("ascii"), validate=True)
        except (ValueError, binascii.Error):
            raise ValueError("the source of a bind mount is the file's content in base64") from None
    elif len(value.get("source") or "") > 255:
        raise ValueError("the source of a volume is its name or uuid")
    return value | {"type": kind}


MOUNT = Checked(
    Object(
        Field("type", Word("volume", "bind")),
        Field("source", Text(0, 2**24)),
        Field("destination", Text(1, 255, r"/[^\x00]*", "an absolute path is wanted"), required=True),
        Field("size", Optional(Whole(1, 65536))),
    ),
    _mount,
)


def _port(value: dict[str, Any]) -> tuple[str, ...]:
    ports = []
    for name in value:
        number, _, protocol = name.partition("/")
        protocol = protocol or "tcp"
        if not number.isascii() or not number.isdigit() or len(number) > 5 or not 1 <= int(number) <= 65535:
            raise ValueError("ports as 80/tcp are wanted")
        if protocol not in ("tcp", "udp"):
            raise ValueError("tcp or udp is wanted as a port's protocol")
        ports.append(f"{int(number)}/{protocol}")
    return tuple(ports)


EXPOSED_PORTS = Checked(MapOf(Optional(Object()), Text(1, 16), 256), _port)
HEALTHCHECK = Object(
    Field("cmd", Text(1, 4096), required=True),
    Field("interval", Optional(Number(1, 86400)), doc="Seconds."),
    Field("retries", Optional(Whole(1, 1000))),
    Field("timeout", Optional(Number(1, 86400)), doc="Seconds."),
)
SECURITY_GROUPS = ListOf(Text(1, 255), MOST_GROUPS)
HINTS = MapOf(Text(0, 255), high=64)

CREATE: Fields = (
    Field("image", common.IMAGE, required=True),
    Field("name", Optional(NAME)),
    Field("command", Optional(COMMAND_TEXT), until=Version(1, 19)),
    Field("command", Optional(COMMAND_LIST), since=Version(1, 20), doc="Before that a string."),
    Field("cpu", Optional(Number(0, 1024)), doc="Cores."),
    Field("memory", Optional(Whole(1)), doc="MiB."),
    Field("disk", Optional(Whole(0)), doc="GiB."),
    Field("workdir", Optional(Text(0, 255))),
    Field("environment", Optional(ENVIRONMENT)),
    Field("labels", Optional(LABELS)),
    Field("image_pull_policy", Optional(PULL_POLICY)),
    Field("image_driver", common.IMAGE_DRIVER),
    Field("restart_policy", Optional(RESTART_POLICY)),
    Field("interactive", Optional(FLAG)),
    Field("tty", Optional(FLAG), doc="Before microversion 1.36 a terminal came with interactive."),
    Field("security_groups", Optional(SECURITY_GROUPS)),
    Field("hints", Optional(HINTS)),
    Field("nets", Optional(ListOf(NET, 32)), since=Version(1, 2)),
    Field("auto_remove", Optional(FLAG), since=Version(1, 3)),
    Field("runtime", Optional(Text(1, 32, r"[a-zA-Z0-9_.-]+")), since=Version(1, 5)),
    Field("hostname", Optional(HOSTNAME), since=Version(1, 9)),
    Field("mounts", Optional(ListOf(MOUNT, 64)), since=Version(1, 11)),
    Field("availability_zone", Optional(Text(1, 255))),
    Field("auto_heal", Optional(FLAG)),
    Field("privileged", Optional(FLAG), since=Version(1, 21)),
    Field("healthcheck", Optional(HEALTHCHECK), since=Version(1, 22)),
    Field("exposed_ports", Optional(EXPOSED_PORTS), since=Version(1, 24)),
    Field("cpu_policy", Optional(Word("dedicated", "shared")), since=Version(1, 28)),
    Field("registry", Optional(Text(2, 255)), since=Version(1, 31)),
    Field("host", Optional(Text(1, 255)), since=Version(1, 39)),
    Field("entrypoint", Optional(COMMAND_LIST), since=Version(1, 40)),
)
#: ``mounts[].type`` came later than ``mounts``.
MOUNT_TYPE_SINCE = Version(1, 23)
CREATE_QUERY: Fields = (
    Field("run", FLAG, default=False),
    Field("dry_run", FLAG, since=Version(1, 45), default=False, doc="Tell where it would go; make nothing."),
)

UPDATE: Fields = (
    Field("name", Optional(NAME), since=Version(1, 14)),
    Field("cpu", Optional(Number(0, 1024))),
    Field("memory", Optional(Whole(1))),
    Field("auto_heal", Optional(FLAG)),
)
RESIZE_CONTAINER: Fields = (Field("cpu", Optional(Number(0, 1024))), Field("memory", Optional(Whole(1))))

LIST: Fields = (
    *PAGING,
    ALL_PROJECTS,
    *(Field(name, Text(1, 255)) for name in ("name", "image", "project_id", "user_id", "host", "task_state", "status")),
    Field("memory", Text(1, 16)),
    Field("auto_remove", FLAG),
)
FILTERS = ("name", "image", "project_id", "user_id", "memory", "host", "task_state", "status", "auto_remove")

SHOW: Fields = (
    ALL_PROJECTS,
    Field("wait", Text(1, 16), since=Version(1, 41), doc="Answer once the status is this, or the time is over."),
    Field("timeout", Number(0, 300), since=Version(1, 41), default=30.0, doc="Seconds to wait at most."),
)
DELETE: Fields = (
    Field("force", FLAG, since=Version(1, 7), default=False),
    Field("stop", FLAG, since=Version(1, 12), default=False),
    ALL_PROJECTS,
)

TIMEOUT: Fields = (Field("timeout", Optional(Whole(0, 86400), word=True), default=None, doc="Seconds."),)
KILL: Fields = (Field("signal", common.SIGNAL, default=None),)
REBUILD: Fields = (
    Field("image", Optional(common.IMAGE, word=True), default=None),
    Field("image_driver", common.IMAGE_DRIVER, default=None),
)
LOGS: Fields = (
    Field("stdout", FLAG, default=True),
    Field("stderr", FLAG, default=True),
    Field("timestamps", FLAG, default=False),
    Field("tail", common.TAIL, default=None),
    Field("since", common.MOMENT, default=None),
    Field("follow", FLAG, since=Version(1, 44), default=False, doc="Stream what comes as plain text."),
)
EXECUTE: Fields = (
    Field("command", Checked(Text(1, 32768), _split), required=True, doc="Split into words as a shell does it."),
    Field("run", FLAG, default=True),
    Field("interactive", FLAG, default=False),
)
RESIZE: Fields = (Field("h", EDGE, required=True), Field("w", EDGE, required=True))
EXECUTE_RESIZE: Fields = (Field("exec_id", EXEC_ID, required=True), *RESIZE)
TOP: Fields = (Field("ps_args", common.PS_ARGS, default=None),)
PATH: Fields = (Field("path", Text(1, 4096), required=True),)
PUT_ARCHIVE: Fields = (
    *PATH,
    Field("data", Utf8(), required=True, until=Version(1, 24)),
    Field("data", Base64(), required=True, since=Version(1, 25)),
)
COMMIT: Fields = (
    Field("repository", common.REPOSITORY, required=True),
    Field("tag", Optional(common.TAG, word=True), default=None),
)
NETWORK_ATTACH: Fields = (
    Field("network", Optional(IDENT, word=True), default=None),
    Field("port", Optional(IDENT, word=True), default=None),
    Field("fixed_ip", Optional(Address(), word=True), default=None),
)
NETWORK_DETACH: Fields = (
    Field("network", Optional(IDENT, word=True), default=None),
    Field("port", Optional(IDENT, word=True), since=Version(1, 17), default=None),
)
SECURITY_GROUP: Fields = (Field("name", Text(1, 255), required=True),)
RENAME: Fields = (Field("name", NAME, required=True),)
