"""Reading what a request carries: its query string and its JSON body, each thing once, within its limit."""

import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from higgins.model.errors import SchemaInvalid, TooLarge, Unsupported


class BrokenBody(SchemaInvalid):
    """The body is not encoded as it says, or it broke off: nothing after it on the connection can be trusted."""


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes; raises ``BrokenBody``."""
    try:
        async for piece in request.content.iter_any():
            yield piece
    except web.RequestPayloadError:
        raise BrokenBody("The body cannot be read: it is not encoded as it says, or it broke off.") from None


async def read_limited(request: web.Request, limit: int) -> bytes:
    """The whole body; raises ``TooLarge`` above ``limit`` bytes, without reading on."""
    too_large = TooLarge(f"The body is larger than {limit} bytes.")
    if request.content_length is not None and request.content_length > limit:
        raise too_large
    data = bytearray()
    async for piece in pieces(request):
        data += piece
        if len(data) > limit:
            raise too_large
    return bytes(data)


def parse_json(data: bytes) -> Any:
    """The JSON of a body. Raises ``SchemaInvalid`` for what is none, names a member twice, or is too deep."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise SchemaInvalid("The body is nested too deeply.") from None
    except ValueError as error:
        raise SchemaInvalid(f"The body is no JSON that can be read: {str(error)[:128]}.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


async def json_body(request: web.Request, limit: int) -> tuple[dict[str, Any], bytes]:
    """The members of a body and the body as it came; none of either where there is no body."""
    if not request.body_exists:
        return {}, b""
    data = await read_limited(request, limit)
    if not data.strip():
        return {}, b""
    told = request.headers.get("Content-Type")
    if told is not None and not _is_json(request.content_type):
        raise Unsupported("A body is to be application/json.")
    members = parse_json(data)
    if not isinstance(members, dict):
        raise SchemaInvalid("The body is to be a JSON object.")
    return members, data


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def query_of(request: web.Request) -> dict[str, Any]:
    """The query parameters; raises ``SchemaInvalid`` for one that is there twice."""
    members: dict[str, Any] = {}
    for name, value in request.query.items():
        if name in members:
            raise SchemaInvalid(f"Invalid value for field '{name[:64]}': it is given more than once.")
        members[name] = value
    return members


def together(query: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Parameters that may come in either place; raises ``SchemaInvalid`` for one that comes in both."""
    twice = query.keys() & body.keys()
    if twice:
        raise SchemaInvalid(f"Invalid value for field '{min(twice)[:64]}': it is given more than once.")
    return query | body
