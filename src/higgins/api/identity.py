"""Tokens for a cloud without Keystone: as much of the Identity API as clients need that can log in no other way.

``zun``, gophercloud and what is built on it send a password to ``/v3/auth/tokens``, and their requests with the token.
Both are checked against the same users as HTTP Basic; nothing is kept, since a token says who it is for.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from higgins.api import bodies
from higgins.api.auth import HttpBasic, Identity
from higgins.api.call import ApiSettings, base_url
from higgins.model.errors import SchemaInvalid, Unauthorized

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The only domain, and the only region: users and projects are told apart by nothing else.
_DOMAIN = {"id": "default", "name": "Default"}
_REGION = "RegionOne"
_BODY_LIMIT = 16 * 1024


class _Named(Struct):
    id: str | None = None
    name: str | None = None

    def means(self, name: str) -> bool:
        return name in (self.id, self.name)


class _User(_Named, kw_only=True):
    password: str


class _Password(Struct):
    user: _User


class _Who(Struct):
    methods: list[str]
    password: _Password | None = None


class _Scope(Struct):
    project: _Named | None = None


class _Asked(Struct):
    identity: _Who
    scope: _Scope | str | None = None


class _Login(Struct):
    auth: _Asked


def handlers(auth: HttpBasic, settings: ApiSettings) -> Mapping[str, Mapping[str, Handler]]:
    """What is served to everybody: by path and method."""

    async def version(request: web.Request) -> web.StreamResponse:
        return web.json_response({"version": _version(base_url(request, settings))})

    async def log_in(request: web.Request) -> web.StreamResponse:
        members, _raw = await bodies.json_body(request, _BODY_LIMIT)
        user, password, project = _read(members)
        identity, token = await auth.log_in(user, password)
        if project is not None and not project.means(identity.project_id):
            raise Unauthorized(f"User {user} is not in that project.")
        told = {"token": _token(identity, base_url(request, settings), auth.token_ttl)}
        return web.json_response(told, status=201, headers={"X-Subject-Token": token})

    return {"/v3": {"GET": version}, "/v3/auth/tokens": {"POST": log_in}}


def _read(members: dict[str, Any]) -> tuple[str, str, _Named | None]:
    """Pure: user, password, and the project that is asked for. Raises SchemaInvalid, Unauthorized."""
    try:
        asked = msgspec.convert(members, _Login).auth
    except msgspec.ValidationError as error:
        raise SchemaInvalid(f"The login cannot be read: {error}.") from None
    if asked.identity.methods != ["password"] or asked.identity.password is None:
        raise Unauthorized("A password is the only way to log in here.")
    user = asked.identity.password.user
    project = asked.scope.project if isinstance(asked.scope, _Scope) else None
    return user.name or user.id or "", user.password, project


def _version(base: str) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{base}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def _token(identity: Identity, base: str, ttl: int) -> dict[str, Any]:
    """What is told of a token: whose it is, and where the service is."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return {
        "methods": ["password"],
        "user": {"id": identity.user_id, "name": identity.user_id, "domain": _DOMAIN, "password_expires_at": None},
        "project": {"id": identity.project_id, "name": identity.project_id, "domain": _DOMAIN},
        "roles": [{"id": role, "name": role} for role in sorted(identity.roles)],
        "catalog": [_service("container", "zun", f"{base}/v1"), _service("identity", "keystone", f"{base}/v3")],
        "issued_at": f"{now.isoformat(timespec='microseconds')}Z",
        "expires_at": f"{(now + timedelta(seconds=ttl)).isoformat(timespec='microseconds')}Z",
        "audit_ids": [uuid.uuid4().hex],
        "is_domain": False,
    }


def _service(kind: str, name: str, url: str) -> dict[str, Any]:
    endpoints = [
        {"id": f"{name}-{interface}", "interface": interface, "region": _REGION, "region_id": _REGION, "url": url}
        for interface in ("public", "internal", "admin")
    ]
    return {"id": name, "type": kind, "name": name, "endpoints": endpoints}
