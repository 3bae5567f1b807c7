"""The OpenAPI 3.1 document of the API, made of the table of routes and the schemas that validate requests."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from higgins import __version__
from higgins.api.microversion import HEADER, MAXIMUM, MINIMUM
from higgins.api.routes import Route
from higgins.api.schemas.answers import ANSWERS, ref
from higgins.api.schemas.fields import Field, Fields, describe

Document = dict[str, Any]
_DRY_RUN = "POST/v1/containers"

#: What any call may be refused with, whatever it is.
_REFUSALS = (400, 401, 403, 404, 405, 406, 409, 413, 415, 429, 500, 501, 503)


def document(routes: Iterable[Route]) -> Document:
    """The whole document. Pure; made once."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Higgins", "version": str(MAXIMUM), "summary": f"Zun's v1 API, by Higgins {__version__}"},
        "paths": paths,
        "components": {
            "schemas": ANSWERS,
            "responses": {"Refused": _json("It was refused, or it failed.", ref("Error"))},
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
        "security": [{"basic": []}],
    }


def _operation(route: Route) -> Document:
    told = f"{route.summary}." if route.summary else ""
    if route.since > MINIMUM:
        told += f" Since microversion {route.since}."
    if route.until < MAXIMUM:
        told += f" Until microversion {route.until}."
    if route.gap is not None:
        told += f" Not in microversions {route.gap[0]} to {route.gap[1]}."
    operation: Document = {
        "operationId": _identifier(route),
        "summary": route.summary,
        "description": told.strip(),
        "tags": [route.path.split("/")[2]],
        "parameters": [*_in_path(route), *_in_query(route), _version_header(route)],
        "responses": _responses(route),
    }
    body = _body(route)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _identifier(route: Route) -> str:
    parts = re.sub(r"[{}]", "", route.path.removeprefix("/v1/")).replace("/", "_")
    return f"{route.method.lower()}_{parts}"


def _in_path(route: Route) -> list[Document]:
    text = {"type": "string", "minLength": 1, "maxLength": 255}
    return [
        {"name": name, "in": "path", "required": True, "schema": text} for name in re.findall(r"\{(\w+)\}", route.path)
    ]


def _in_query(route: Route) -> list[Document]:
    fields: Fields = route.query if route.either is None else tuple(_small(route.either))
    schemas = describe(fields)["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in schemas.items()]


def _small(fields: Fields) -> Iterable[Field]:
    """Those of the fields that fit into a query string."""
    return (field for field in fields if field.name != "data")


def _version_header(route: Route) -> Document:
    versions = ["latest"] if route.until == MAXIMUM else []
    pattern = {"type": "string", "enum": [f"container {version}" for version in (*versions, str(route.until))]}
    return {"name": HEADER, "in": "header", "required": False, "schema": pattern}


def _body(route: Route) -> Document | None:
    fields = route.body if route.body is not None else route.either
    if not fields:
        return None
    schema = describe(fields)
    return {"required": route.body is not None, "content": {"application/json": {"schema": schema}}}


def _responses(route: Route) -> Document:
    phrase = HTTPStatus(route.status).phrase
    if route.status == 204:
        done: Document = {"description": phrase}
    elif route.answer == "Stream":
        done = {"description": phrase, "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    else:
        done = _json(phrase, ref(route.answer))
        if route.answer == "Text":
            done["content"]["text/plain"] = {"schema": {"type": "string"}}
        if route.answer == "Archive":
            done["content"]["application/x-tar"] = {}
    refusals = {str(status): {"$ref": "#/components/responses/Refused"} for status in _REFUSALS}
    more = {"200": _json("Where it would go.", ref("DryRun"))} if route.method + route.path == _DRY_RUN else {}
    return {str(route.status): done} | more | refusals


def _json(description: str, schema: Document) -> Document:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
