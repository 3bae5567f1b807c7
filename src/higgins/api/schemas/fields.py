"""Fields: a name, a kind, and the microversions in which it may be given. A schema is a tuple of fields, as data."""

from dataclasses import dataclass
from typing import Any

from higgins.api.microversion import MAXIMUM, MINIMUM, Version
from higgins.api.schemas.kinds import Kind, Schema, merged, wrong
from higgins.model.errors import ParamTooNew, SchemaInvalid


@dataclass(frozen=True, slots=True)
class Field:
    """One thing a request may carry, from version ``since`` to ``until``.

    A field whose kind changed is there twice, with ranges that do not overlap. ``default`` is what the code gets where
    the field is not given; without one it does not find the name at all.
    """

    name: str
    kind: Kind
    required: bool = False
    since: Version = MINIMUM
    until: Version = MAXIMUM
    default: Any = ...
    doc: str = ""
    #: Without a gate the versions only tell when the field came: Zun takes it in all of them.
    gated: bool = True

    def serves(self, version: Version) -> bool:
        return not self.gated or self.since <= version <= self.until


Fields = tuple[Field, ...]

#: What says no more than leaving a field out.
_NOTHING: tuple[Any, ...] = (None, False, "", [], {}, "None", "False", "false")


class Object(Kind):
    """An object of known fields and no others, within a larger body."""

    def __init__(self, *fields: Field) -> None:
        self.fields = fields

    def parse(self, value: Any, where: str) -> dict[str, Any]:
        return read(self.fields, value, MAXIMUM, where)

    def schema(self) -> Schema:
        return describe(self.fields)


def read(fields: Fields, data: Any, version: Version, where: str = "", *, lax: bool = False) -> dict[str, Any]:
    """The values in ``data`` that ``version`` knows, parsed; ``lax`` passes over names nobody knows."""
    if not isinstance(data, dict):
        raise wrong(where or "body", "an object is wanted")
    here = {field.name: field for field in fields if field.serves(version)}
    prefix = f"{where}." if where else ""
    for name, value in data.items():
        if name not in here and not (lax and all(field.name != name for field in fields)):
            _unexpected(fields, name, value, version, prefix)
    values: dict[str, Any] = {}
    for name, field in here.items():
        if name in data:
            values[name] = field.kind.parse(data[name], prefix + name)
        elif field.required:
            raise SchemaInvalid(f"Field '{prefix}{name}' is required.")
        elif field.default is not ...:
            values[name] = field.default
    return values


def _unexpected(fields: Fields, name: str, value: Any, version: Version, prefix: str) -> None:
    """Refuse a name that is not known, unless it is a later version's and given as nothing, as the real client does."""
    since = min((field.since for field in fields if field.name == name), default=None)
    if since is None:
        shown = name[:64].encode("ascii", "backslashreplace").decode()
        raise SchemaInvalid(f"Unknown parameters: {prefix}{shown}")
    if version > since:
        raise SchemaInvalid(f"Field '{prefix}{name}' is not known any more in this version.")
    if value not in _NOTHING:
        raise ParamTooNew(f"Field '{prefix}{name}' is not known in this version; it came with microversion {since}.")


def describe(fields: Fields) -> Schema:
    """The fields as the JSON Schema of an object, of all versions together."""
    kinds: dict[str, list[Schema]] = {}
    docs: dict[str, str] = {}
    for field in fields:
        kinds.setdefault(field.name, []).append(field.kind.schema())
        if field.since > MINIMUM or field.doc:
            came = f"Since microversion {field.since}. " if field.since > MINIMUM else ""
            docs[field.name] = (came + field.doc).strip()
    properties = {
        name: merged(schemas) | ({"description": docs[name]} if name in docs else {}) for name, schemas in kinds.items()
    }
    required = list(dict.fromkeys(field.name for field in fields if field.required))
    return {"type": "object", "properties": properties, "additionalProperties": False} | (
        {"required": required} if required else {}
    )
