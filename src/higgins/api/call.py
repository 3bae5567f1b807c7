"""A request on its way through the pipeline, and what a handler may give back."""

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from msgspec import Struct, structs

from higgins.api.auth import Identity
from higgins.api.microversion import Version
from higgins.api.policies import Policy
from higgins.api.streams import OpenStreams
from higgins.control.cloud import Actor, Cloud

_HOST = re.compile(r"[A-Za-z0-9._\[\]:-]{1,255}")


class ApiSettings(Struct, frozen=True, kw_only=True):
    """What an operator may set about the API. Sizes in bytes, times in seconds.

    ``public_url`` is how callers reach the API, where the Host header does not tell (behind a proxy with a path);
    ``console_url`` is the same for consoles (ws:// or wss://).
    """

    public_url: str | None = None
    console_url: str | None = None
    trust_forwarded: bool = False
    allowed_origins: tuple[str, ...] = ()
    open_metrics: bool = False
    body_limit: int = 64 * 1024
    files_limit: int = 8 * 1024 * 1024
    archive_limit: int = 64 * 1024 * 1024
    log_limit: int = 16 * 1024 * 1024
    heartbeat: float = 15
    streams_per_project: int = 64


class Located:
    """A new thing: its view, and where it will be found below ``/v1``."""

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path


class Told:
    """An answer with a status of its own."""

    def __init__(self, value: Any, status: int) -> None:
        self.value = value
        self.status = status


class Call(Struct, kw_only=True):
    """All that a handler needs. ``path`` are the variable parts of the path, ``query`` and ``body`` what was validated
    (parameters that may come in either are in ``query``), ``raw`` the body as it came."""

    request: web.Request
    cloud: Cloud
    settings: ApiSettings
    policy: Policy
    streams: OpenStreams
    identity: Identity
    actor: Actor
    version: Version
    path: Mapping[str, str]
    query: dict[str, Any]
    body: dict[str, Any]
    raw: bytes = b""

    def allows(self, rule: str) -> bool:
        return self.policy.allows(rule, self.identity)

    def require(self, rule: str) -> None:
        self.policy.require(rule, self.identity)

    def all_projects(self, rule: str) -> bool:
        """Whether all projects were asked for; raises ``Forbidden`` where that is not this caller's to ask."""
        wanted = bool(self.query.get("all_projects"))
        if wanted:
            self.require(rule)
        return wanted

    def actor_for(self, rule: str) -> Actor:
        """Who acts: one who asks for all projects, and whom ``rule`` lets, does so as an administrator does."""
        return structs.replace(self.actor, is_admin=True) if self.all_projects(rule) else self.actor

    @property
    def token(self) -> str:
        """The caller's own token, for what is asked of the cloud's other services in the caller's name."""
        return self.request.headers.get("X-Auth-Token", "").strip()

    @property
    def base_url(self) -> str:
        """Where this API is, as the caller sees it, without a slash at the end."""
        return base_url(self.request, self.settings)


def scheme(request: web.Request, settings: ApiSettings) -> str:
    """http or https, as the caller used it."""
    forwarded = request.headers.get("X-Forwarded-Proto", "")
    return forwarded if settings.trust_forwarded and forwarded in ("http", "https") else request.scheme


def host(request: web.Request) -> str:
    """The Host header, if it looks like one."""
    return request.host if _HOST.fullmatch(request.host) else "localhost"


def base_url(request: web.Request, settings: ApiSettings) -> str:
    if settings.public_url:
        return settings.public_url.rstrip("/").removesuffix("/v1")
    return f"{scheme(request, settings)}://{host(request)}"
