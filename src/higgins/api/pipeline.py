"""The way of a request: request id, CORS, errors, authentication, route, microversion, policy, validation, handler."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from higgins.api import bodies, microversion, scope
from higgins.api.auth import Auth, Identity
from higgins.api.call import ApiSettings, Call, Located, Told, base_url
from higgins.api.errors import CallNotInVersion, WrongMethod, envelope, fault
from higgins.api.looking import takes_tar
from higgins.api.matching import Matcher
from higgins.api.metrics import Metrics
from higgins.api.policies import Policy
from higgins.api.routes import Route
from higgins.api.schemas.fields import read
from higgins.api.streams import OpenStreams
from higgins.control.cloud import Actor, Cloud
from higgins.model.errors import HigginsError, NotAcceptable, TooLarge, Unauthorized

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger("higgins.api.access")

REQUEST_ID = web.RequestKey("request_id", str)
ROUTE = web.RequestKey("route", str)
VERSION = web.RequestKey("version", microversion.Version)
SENT = web.RequestKey("sent", bool)
IDENTITY = web.RequestKey("identity", Identity)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: Written down where there was nobody left to answer.
_HUNG_UP = 499
#: A caller's own number of a larger undertaking, as OpenStack's services hand it on.
_GLOBAL = re.compile(r"req-[0-9a-f-]{36}")
_EXPOSED = "X-Openstack-Request-Id, Location, OpenStack-API-Version"


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )


class Pipeline:
    """What all requests share. ``serve`` is the whole way; the application hands it every request."""

    def __init__(
        self,
        cloud: Cloud,
        matcher: Matcher,
        auth: Auth,
        policy: Policy,
        settings: ApiSettings,
        metrics: Metrics,
        streams: OpenStreams,
        public: Mapping[str, Mapping[str, _Handler]],
    ) -> None:
        self.cloud, self.matcher, self.auth, self.policy = cloud, matcher, auth, policy
        self.settings, self.metrics, self.streams, self.public = settings, metrics, streams, public

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Number the request, answer it, and write down that it was."""
        request[REQUEST_ID] = f"req-{uuid.uuid4()}"
        request[ROUTE] = "none"
        started = time.monotonic()
        status = _HUNG_UP
        try:
            response = await self._errors_told(request)
            status = response.status
        finally:
            self._note(request, status, time.monotonic() - started)
        return response

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """What every reply carries; called as it is sent, so that streams carry it too."""
        request[SENT] = True
        response.headers["X-Openstack-Request-Id"] = request.get(REQUEST_ID, "")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        version = request.get(VERSION)
        if version is not None:
            response.headers.update(microversion.headers(version))
        origin = request.headers.get("Origin")
        if origin is not None and origin in self.settings.allowed_origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
            response.headers.add("Vary", "Origin")

    def _note(self, request: web.Request, status: int, seconds: float) -> None:
        self.metrics.count(request[ROUTE], request.method, status, seconds)
        if ACCESS.isEnabledFor(logging.INFO):
            identity = request.get(IDENTITY)
            given = request.headers.get("X-Openstack-Request-Id", "")
            line = {
                "request_id": request[REQUEST_ID],
                "global_request_id": given if _GLOBAL.fullmatch(given) else None,
                "method": request.method,
                "route": request[ROUTE],
                "path": request.path,
                "status": status,
                "ms": round(seconds * 1000, 1),
                "user": identity and identity.user_id,
                "project": identity and identity.project_id,
                "remote": request.remote,
            }
            text = msgspec.json.encode(line).decode()
            # Not by ``info``, which looks for who has called it.
            ACCESS.handle(logging.LogRecord(ACCESS.name, logging.INFO, __file__, 0, text, None, None))

    async def _errors_told(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except HigginsError as error:
            told = error
        except (web.HTTPException, ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception:
            told = fault(request[REQUEST_ID])
        if request.get(SENT):
            # Part of a stream is out already: all that can be told is that it is not whole.
            LOG.warning("a stream broke off: %s", told, extra={"request_id": request[REQUEST_ID]})
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=told.status)
        if told.status >= 500:
            LOG.warning("%s", told, exc_info=told.__cause__, extra={"request_id": request[REQUEST_ID]})
        response = json_response(envelope(told, request[REQUEST_ID]), told.status)
        if isinstance(told, Unauthorized):
            response.headers["WWW-Authenticate"] = self.auth.challenge
        if isinstance(told, NotAcceptable):
            response.headers.update(microversion.headers(None))
        if isinstance(told, WrongMethod):
            response.headers["Allow"] = told.allowed
        if isinstance(told, TooLarge | bodies.BrokenBody):
            response.force_close()  # the rest of the body is not worth reading
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        public = self.public.get(plain(request))
        if public is not None:
            return await self._public(request, public)
        if request.method == "OPTIONS":
            return self._options(request)
        identity = await self.auth.identify(request)
        request[IDENTITY] = identity
        route, path = self.matcher.match(request.method, request.rel_url.raw_path)
        request[ROUTE] = route.path
        version = microversion.negotiate(request.headers.getall(microversion.HEADER, ()))
        if not route.serves(version):
            raise CallNotInVersion(f"The API {route.method} {route.path} is not supported in version {version}.")
        request[VERSION] = version
        if route.rule is not None:
            target = path[route.target] if route.target else None
            self.policy.require(route.rule, identity, target)
        call = await self._call(request, route, path, version, identity)
        scope.require_project(call, route)
        return respond(route, call, await route.handler(call))

    async def _public(self, request: web.Request, handlers: Mapping[str, _Handler]) -> web.StreamResponse:
        request[ROUTE] = plain(request)
        methods = sorted({*handlers, "OPTIONS"} | ({"HEAD"} if "GET" in handlers else set()))
        if request.method not in methods:
            raise WrongMethod(", ".join(methods))
        if request.method == "OPTIONS":
            return self._preflight(request, methods)
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    def _options(self, request: web.Request) -> web.Response:
        methods = self.matcher.methods(request.rel_url.raw_path)
        return self._preflight(request, methods)

    def _preflight(self, request: web.Request, methods: list[str]) -> web.Response:
        response = web.Response(status=204, headers={"Allow": ", ".join(methods)})
        if request.headers.get("Origin") in self.settings.allowed_origins:
            response.headers["Access-Control-Allow-Methods"] = ", ".join(methods)
            response.headers["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, X-Auth-Token, OpenStack-API-Version, Idempotency-Key, Last-Event-ID"
            )
            response.headers["Access-Control-Max-Age"] = "3600"
        return response

    async def _call(
        self,
        request: web.Request,
        route: Route,
        path: dict[str, str],
        version: microversion.Version,
        identity: Identity,
    ) -> Call:
        """Read and validate all that the request carries."""
        query, raw = bodies.query_of(request), b""
        body: dict[str, Any] = {}
        tar = route.limit == "archive_limit" and takes_tar(request, version)
        if (route.body is not None or route.either is not None) and not tar:
            body, raw = await bodies.json_body(request, getattr(self.settings, route.limit))
        if route.either is not None:
            fields = tuple(field for field in route.either if not (tar and field.name == "data"))
            query, body = read(fields, bodies.together(query, body), version), {}
        else:
            query = read(route.query, query, version, lax=route.lax)
            if route.body is not None:
                body = read(route.body, body, version)
        return Call(
            request=request,
            cloud=self.cloud,
            settings=self.settings,
            policy=self.policy,
            streams=self.streams,
            identity=identity,
            actor=Actor(
                user_id=identity.user_id,
                project_id=identity.project_id,
                roles=identity.roles,
                is_admin=self.policy.is_admin(identity),
                request_id=request[REQUEST_ID],
                token=request.headers.get("X-Auth-Token", "").strip(),
            ),
            version=version,
            path=path,
            query=query,
            body=body,
            raw=raw,
        )


def plain(request: web.Request) -> str:
    """The path without doubled and trailing slashes."""
    return "/" + "/".join(part for part in request.rel_url.raw_path.split("/") if part)


def respond(route: Route, call: Call, result: Any) -> web.StreamResponse:
    """The reply to what a handler gave back."""
    if isinstance(result, web.StreamResponse):
        return result
    if isinstance(result, Located):
        location = f"{base_url(call.request, call.settings)}/v1/{result.path}"
        return json_response(result.value, route.status, {"Location": location})
    if isinstance(result, Told):
        return json_response(result.value, result.status)
    if route.status == 204:
        return web.Response(status=204)
    return json_response(result, route.status)
