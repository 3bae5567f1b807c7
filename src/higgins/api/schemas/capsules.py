"""What a capsule's template may say."""

from typing import Any

import msgspec

from higgins.api.microversion import Version
from higgins.api.schemas import common
from higgins.api.schemas.common import FLAG, NAME
from higgins.api.schemas.containers import COMMAND_LIST, ENVIRONMENT, LABELS, PULL_POLICY, SECURITY_GROUPS
from higgins.api.schemas.fields import Field, Fields, Object, describe, read
from higgins.api.schemas.kinds import Checked, Kind, ListOf, Number, Optional, Schema, Text, Whole, Word, wrong


def _either(value: dict[str, Any]) -> dict[str, Any]:
    if ("volumeID" in value) == ("size" in value):
        raise ValueError("either volumeID or size is wanted")
    return value


REQUESTS = Object(
    Field("cpu", Number(0, 1024)),
    Field("memory", Checked(Number(0, 2**31 - 1), int)),
)
PORTS = ListOf(
    Object(
        Field("containerPort", Whole(1, 65535), required=True),
        Field("name", Text(0, 255)),
        Field("hostPort", Whole(0, 65535)),
        Field("protocol", Word("TCP", "UDP")),
    ),
    256,
)
VOLUME_MOUNTS = ListOf(
    Object(
        Field("name", Text(1, 255), required=True),
        Field("mountPath", Text(1, 255, r"/[^\x00]*", "an absolute path is wanted"), required=True),
        Field("readOnly", FLAG),
    ),
    64,
)
CONTAINER: Fields = (
    Field("image", common.IMAGE, required=True),
    Field("name", Optional(Text(1, 255))),
    Field("command", Optional(COMMAND_LIST)),
    Field("args", Optional(COMMAND_LIST)),
    Field("workDir", Optional(Text(0, 255))),
    Field("workingDir", Optional(Text(0, 255)), doc="As workDir; so a pod's template says it."),
    Field("env", Optional(ENVIRONMENT)),
    Field("imagePullPolicy", Optional(PULL_POLICY)),
    Field("stdin", FLAG, since=Version(1, 37), gated=False),
    Field("tty", FLAG, since=Version(1, 37), gated=False),
    Field("resources", Optional(Object(Field("requests", REQUESTS)))),
    Field("ports", Optional(PORTS), since=Version(1, 35), gated=False),
    Field("volumeMounts", Optional(VOLUME_MOUNTS)),
)
CINDER = Checked(
    Object(Field("volumeID", Text(1, 255)), Field("size", Whole(1, 65536)), Field("autoRemove", FLAG)),
    _either,
)
VOLUME = Object(Field("name", Text(1, 255), required=True), Field("cinder", CINDER, required=True))


class Versioned(Kind):
    """Objects in a template: their fields are read for the request's version, see ``read_template``."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def parse(self, value: Any, where: str) -> Any:
        return value

    def schema(self) -> Schema:
        return describe(self.fields)


RESTART = Word("Always", "OnFailure", "Never")
METADATA: Fields = (
    Field("name", Optional(NAME)),
    Field("labels", Optional(LABELS)),
    Field("annotations", Optional(LABELS), since=Version(1, 38), gated=False),
)
SPEC: Fields = (
    Field("containers", ListOf(Versioned(CONTAINER), 32), required=True),
    Field("initContainers", ListOf(Versioned(CONTAINER), 32), since=Version(1, 34), gated=False),
    Field("volumes", Optional(ListOf(VOLUME, 64))),
    Field("restartPolicy", Optional(RESTART), since=Version(1, 16), gated=False),
    Field("securityGroups", Optional(SECURITY_GROUPS), since=Version(1, 49)),
)
TEMPLATE: Fields = (
    Field("kind", Word("capsule", "Capsule"), required=True),
    Field("capsuleVersion", Word("beta", "Beta")),
    Field("capsule_version", Word("beta", "Beta")),
    Field("metadata", Versioned(METADATA), required=True),
    Field("spec", Versioned(SPEC), required=True),
    Field("availabilityZone", Optional(Text(1, 255))),
    Field("restartPolicy", Optional(RESTART), doc="The old place of spec.restartPolicy."),
)


class _Template(Kind):
    """An object, or a string that holds one as JSON."""

    def parse(self, value: Any, where: str) -> Any:
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                raise wrong(where, "a template, as an object or as JSON in a string, is wanted") from None
        if not isinstance(value, dict):
            raise wrong(where, "an object is wanted")
        return value

    def schema(self) -> Schema:
        return {"anyOf": [describe(TEMPLATE), {"type": "string"}]}


CREATE: Fields = (Field("template", _Template(), required=True),)


def read_template(template: Any, version: Version) -> dict[str, Any]:
    """The template with every part read for ``version``."""
    told = read(TEMPLATE, template, version, "template")
    told["metadata"] = read(METADATA, told["metadata"], version, "template.metadata")
    spec = told["spec"] = read(SPEC, told["spec"], version, "template.spec")
    for part in ("containers", "initContainers"):
        spec[part] = [
            read(CONTAINER, item, version, f"template.spec.{part}[{number}]")
            for number, item in enumerate(spec.get(part, ()))
        ]
    if not spec["containers"]:
        raise wrong("template.spec.containers", "at least one container is wanted")
    names = [volume["name"] for volume in spec.get("volumes") or ()]
    for item in (*spec["containers"], *spec["initContainers"]):
        for mount in item.get("volumeMounts") or ():
            if mount["name"] not in names:
                raise wrong("template.spec.containers.volumeMounts", f"there is no volume named {mount['name']}")
    return told
