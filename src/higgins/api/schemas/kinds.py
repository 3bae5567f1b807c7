"""Kinds of values: each can read one (or say what is wrong with it) and describe itself as JSON Schema.

They accept what Zun accepts: numbers and booleans also as text, because the same parameter may come in a query string
or in a JSON body, and the word ``None`` where the real client writes it for "not given".
"""

import base64
import binascii
import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from higgins.model.errors import SchemaInvalid

#: Neither belongs in a name or value, and no database keeps both.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LARGEST = 2**31 - 1
_TRUE = frozenset({"true", "1", "on", "yes", "t", "y"})
_FALSE = frozenset({"false", "0", "off", "no", "f", "n"})

Schema = dict[str, Any]


def wrong(where: str, what: str) -> SchemaInvalid:
    """The refusal of a value: names the field and says what it is to be."""
    return SchemaInvalid(f"Invalid value for field '{where[:128]}': {what}.")


class Kind:
    """A kind of value."""

    def parse(self, value: Any, where: str) -> Any:
        """The value as the code wants it; raises ``SchemaInvalid`` naming ``where``."""
        raise NotImplementedError

    def schema(self) -> Schema:
        """It as JSON Schema, for the OpenAPI document."""
        raise NotImplementedError


class Text(Kind):
    """A string of a length, perhaps matching a pattern as a whole."""

    def __init__(self, low: int = 0, high: int = 255, pattern: str | None = None, what: str = "") -> None:
        self.low, self.high, self.pattern = low, high, pattern
        self._match = re.compile(pattern, re.ASCII).fullmatch if pattern else None
        self._what = what or f"a string of {low} to {high} characters is wanted"

    def parse(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not self.low <= len(value) <= self.high:
            raise wrong(where, self._what)
        if _UNSTORABLE.search(value):
            raise wrong(where, "NUL characters and lone surrogates are not allowed")
        if self._match and not self._match(value):
            raise wrong(where, self._what)
        return value

    def schema(self) -> Schema:
        told: Schema = {"type": "string", "minLength": self.low, "maxLength": self.high}
        if self.pattern:
            told["pattern"] = f"^{self.pattern}$"
        return told


class Word(Kind):
    """One of a few words; ``fold`` maps what is written to what is meant."""

    def __init__(self, *words: str, fold: Callable[[str], str] = str) -> None:
        self.words, self._fold = words, fold

    def parse(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise wrong(where, f"one of {', '.join(self.words)} is wanted")
        return self._fold(value)

    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.words)}


class Whole(Kind):
    """A whole number, or its digits as a string."""

    def __init__(self, low: int = 0, high: int = _LARGEST) -> None:
        self.low, self.high = low, high

    def parse(self, value: Any, where: str) -> int:
        number: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif (isinstance(value, float) and value.is_integer()) or (
            isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,10}", value)
        ):
            number = int(value)
        if number is None or not self.low <= number <= self.high:
            raise wrong(where, f"a whole number from {self.low} to {self.high} is wanted")
        return number

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "integer", "minimum": self.low, "maximum": self.high}, _digits("-?[0-9]{1,10}")]}


class Number(Kind):
    """A number, or one written as a string."""

    def __init__(self, low: float = 0, high: float = _LARGEST) -> None:
        self.low, self.high = low, high

    def parse(self, value: Any, where: str) -> float:
        number = math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value) if abs(value) <= _LARGEST else math.nan
        elif isinstance(value, str) and len(value) <= 20 and re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", value):
            number = float(value)
        if not self.low <= number <= self.high:
            raise wrong(where, f"a number from {self.low:g} to {self.high:g} is wanted")
        return number

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "number", "minimum": self.low, "maximum": self.high}, _digits("[0-9]*\\.?[0-9]*")]}


def _digits(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$"}


class Boolean(Kind):
    """True or false, also as the words that Zun knows: True, 1, on, yes …, in any case."""

    def parse(self, value: Any, where: str) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            if value.lower() in _TRUE:
                return True
            if value.lower() in _FALSE:
                return False
        raise wrong(where, "true or false is wanted")

    def schema(self) -> Schema:
        words = sorted(_TRUE | _FALSE)
        return {"anyOf": [{"type": "boolean"}, {"type": "string", "enum": [*words, "True", "False"]}]}


class Optional(Kind):
    """Another kind, or null; ``word`` accepts the string ``None`` for null as well."""

    def __init__(self, kind: Kind, *, word: bool = False) -> None:
        self.kind, self.word = kind, word

    def parse(self, value: Any, where: str) -> Any:
        if value is None or (self.word and value == "None"):
            return None
        return self.kind.parse(value, where)

    def schema(self) -> Schema:
        return {"anyOf": [self.kind.schema(), {"type": "null"}, *([{"const": "None"}] if self.word else [])]}


class ListOf(Kind):
    """A list with all items of one kind; told as a tuple."""

    def __init__(self, kind: Kind, high: int = 1024) -> None:
        self.kind, self.high = kind, high

    def parse(self, value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > self.high:
            raise wrong(where, f"a list of at most {self.high} items is wanted")
        return tuple(self.kind.parse(item, f"{where}[{number}]") for number, item in enumerate(value))

    def schema(self) -> Schema:
        return {"type": "array", "items": self.kind.schema(), "maxItems": self.high}


class MapOf(Kind):
    """An object with any keys and all values of one kind."""

    def __init__(self, kind: Kind, key: Kind | None = None, high: int = 1024) -> None:
        self.kind, self.key, self.high = kind, key or Text(1, 255), high

    def parse(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > self.high:
            raise wrong(where, f"an object with at most {self.high} members is wanted")
        return {
            self.key.parse(name, f"{where} (a key)"): self.kind.parse(item, f"{where}.{name[:64]}")
            for name, item in value.items()
        }

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self.kind.schema(), "maxProperties": self.high}


class Base64(Kind):
    """Bytes, as base64."""

    def parse(self, value: Any, where: str) -> bytes:
        if not isinstance(value, str):
            raise wrong(where, "base64 is wanted")
        try:
            return base64.b64decode(value.encode("ascii"), validate=True)
        except (ValueError, binascii.Error):
            raise wrong(where, "base64 is wanted") from None

    def schema(self) -> Schema:
        return {"type": "string", "contentEncoding": "base64"}


class Utf8(Kind):
    """Bytes that are text in UTF-8, and are not stored: NUL characters, of which a tar is full, are welcome."""

    def parse(self, value: Any, where: str) -> bytes:
        if not isinstance(value, str):
            raise wrong(where, "a string is wanted")
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise wrong(where, "lone surrogates are not allowed") from None

    def schema(self) -> Schema:
        return {"type": "string"}


class Address(Kind):
    """An IP address of a family (4 or 6)."""

    def __init__(self, family: int | None = None) -> None:
        self.family = family

    def parse(self, value: Any, where: str) -> str:
        try:
            address = ipaddress.ip_address(value if isinstance(value, str) else "")
        except ValueError:
            address = None
        if address is None or self.family not in (None, address.version):
            raise wrong(where, f"an IPv{self.family or '4 or IPv6'} address is wanted")
        return str(address)

    def schema(self) -> Schema:
        return {"type": "string"} | ({"format": f"ipv{self.family}"} if self.family else {})


class Anything(Kind):
    """Whatever is there; it is looked at elsewhere, or not at all."""

    def parse(self, value: Any, where: str) -> Any:
        return value

    def schema(self) -> Schema:
        return {}


class Checked(Kind):
    """Another kind and a further step: ``check`` returns what is meant, or raises ``ValueError`` with what is wrong."""

    def __init__(self, kind: Kind, check: Callable[[Any], Any], schema: Schema | None = None) -> None:
        self.kind, self.check, self._schema = kind, check, schema

    def parse(self, value: Any, where: str) -> Any:
        parsed = self.kind.parse(value, where)
        try:
            return self.check(parsed)
        except ValueError as error:
            raise wrong(where, str(error)) from None

    def schema(self) -> Schema:
        return self._schema or self.kind.schema()


def merged(schemas: Sequence[Schema]) -> Schema:
    """The one schema for a field that changed its kind from version to version."""
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
