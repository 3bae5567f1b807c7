"""The application that serves ``ControlLink`` to the agents of other machines.

Whoever calls is who their certificate says, and every call acts on that host alone: no host is named in any request.
Two calls need no certificate, because a machine that joins has none yet: to read the authority's own certificate, and
to join, which takes a token.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import structs

from higgins.api.agents.connections import Connections
from higgins.control import delivery, hosts, joining, observing, wire
from higgins.control.authority import Authorities, Authority
from higgins.control.cloud import Cloud
from higgins.control.joining import JoinedHost
from higgins.control.link import HostReport
from higgins.control.remote import RemoteHosts
from higgins.control.tls import peer_of
from higgins.control.wire import (
    AGENTS,
    AUTHORITIES_HEADER,
    LARGEST_BODY,
    AuthorityCertificate,
    JoinRequest,
    Observations,
    Registered,
    Renewal,
    Uuids,
)
from higgins.model.errors import HigginsError, Invalid, TooLarge

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that one long poll lasts at most.
_LONGEST_POLL = 60.0
#: Bytes that somebody may send who is nobody yet.
_STRANGERS_LIMIT = 64 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_agents_app(cloud: Cloud, remote: RemoteHosts, connections: Connections) -> web.Application:
    """The application; serve it with a context that asks for certificates and lets callers without one in."""
    calls = Calls(cloud, remote, connections)
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_errors_told])
    app.add_routes(
        [
            web.get(f"{AGENTS}/authority", calls.authority),
            web.post(f"{AGENTS}/join", calls.join),
            web.post(f"{AGENTS}/renew", calls.renew),
            web.post(f"{AGENTS}/register", calls.register),
            web.get(f"{AGENTS}/assignments", calls.assignments),
            web.post(f"{AGENTS}/observations", calls.observations),
            web.post(f"{AGENTS}/volumes_deleted", calls.volumes_deleted),
            web.get(f"{AGENTS}/containers/{{container}}/image", calls.image),
            web.get(f"{AGENTS}/containers/{{container}}/layers/{{digest}}", calls.layer, allow_head=False),
        ]
    )
    app.on_response_prepare.append(calls.tell_authorities)
    app.on_shutdown.append(calls.end_polls)
    return app


class Calls:
    """One method for each call."""

    def __init__(self, cloud: Cloud, remote: RemoteHosts, connections: Connections) -> None:
        self._cloud = cloud
        self._remote = remote
        self._connections = connections
        self._polls: set[asyncio.Task[Any]] = set()

    # without a certificate

    async def authority(self, request: web.Request) -> web.StreamResponse:
        """Whom to trust; who joins compares it with the fingerprint in the token."""
        return _json(AuthorityCertificate(self._remote.authorities.shown.pem))

    async def join(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request, JoinRequest, _STRANGERS_LIMIT)
        authorities = self._remote.authorities
        joined = await joining.join(self._cloud, _signing(authorities, asked.bundle), asked)
        LOG.info("Host %s (%s) joined from %s.", joined.name, joined.uuid, request.remote)
        return _json(structs.replace(joined, authorities=authorities.bundle))

    # of a host

    async def renew(self, request: web.Request) -> web.StreamResponse:
        host = await self._host(request)
        asked = await _body(request, Renewal)
        authorities = self._remote.authorities
        renewed = await joining.renew(self._cloud, _signing(authorities, asked.bundle), host, asked.request)
        return _json(structs.replace(renewed, authorities=authorities.bundle))

    async def register(self, request: web.Request) -> web.StreamResponse:
        host = await self._host(request)
        report = await _body(request, HostReport)
        return _json(Registered(await joining.register(self._cloud, host, report)))

    async def assignments(self, request: web.Request) -> web.StreamResponse:
        host = await self._host(request)
        since, timeout = int(_number(request, "since")), _number(request, "timeout")
        task = asyncio.current_task()
        assert task is not None
        self._polls.add(task)
        try:
            told = await hosts.assignments(self._cloud, host.id, since, max(0.0, min(timeout, _LONGEST_POLL)))
        finally:
            self._polls.discard(task)
        if told is None:
            return web.Response(status=204)
        await self._host(request)  # it may have been revoked while it waited
        return _json(told)

    async def observations(self, request: web.Request) -> web.StreamResponse:
        host = await self._host(request)
        seen = await _body(request, Observations)
        await observing.observe(self._cloud, host.id, seen.observations)
        return web.Response(status=204)

    async def volumes_deleted(self, request: web.Request) -> web.StreamResponse:
        host = await self._host(request)
        gone = await _body(request, Uuids)
        await hosts.volumes_deleted(self._cloud, host.id, gone.uuids)
        return web.Response(status=204)

    async def image(self, request: web.Request) -> web.StreamResponse:
        host = await self._host(request)
        timeout = max(0.0, min(_number(request, "timeout"), _LONGEST_POLL))
        parts = await delivery.contents(self._cloud, host.id, request.match_info["container"], timeout)
        return web.Response(status=204) if parts is None else _json(parts)

    async def layer(self, request: web.Request) -> web.StreamResponse:
        host = await self._host(request)
        container, digest = request.match_info["container"], request.match_info["digest"]
        async with delivery.layer(self._cloud, host.id, container, digest) as pieces:
            response = web.StreamResponse()
            await response.prepare(request)
            async for piece in pieces:
                await response.write(piece)
            return response

    async def tell_authorities(self, _request: web.Request, response: web.StreamResponse) -> None:
        """By each answer, so that a host that trusts others has its certificate renewed soon."""
        response.headers[AUTHORITIES_HEADER] = self._remote.authorities.fingerprints

    async def end_polls(self, _app: web.Application) -> None:
        """A process that ends waits for nobody who only waits."""
        for task in self._polls:
            task.cancel()

    async def _host(self, request: web.Request) -> JoinedHost:
        """Who calls. Raises NotAHost."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the caller has left")
        peer = peer_of(transport.get_extra_info("peercert"))
        known = await joining.recognise(self._cloud, peer)
        self._connections.seen(transport, known.serial)
        return known


def _signing(authorities: Authorities, bundle: bool) -> Authority:
    """The authority whose certificate a host gets: the newest, if it comes to trust that by the same answer."""
    return authorities.newest if bundle else authorities.shown


@web.middleware
async def _errors_told(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except HigginsError as error:
        LOG.info("%s %s of %s was refused: %s", request.method, request.path, request.remote, error)
        response = _json(wire.tell(error), error.status)
        response.force_close()  # a host that is not known (any more) starts anew, with the certificate it then has
    transport = request.transport
    peer = peer_of(transport.get_extra_info("peercert")) if transport is not None else None
    if peer is not None and peer.ageing(time.time()):
        response.force_close()  # the next connection is made with a newer certificate, if there is one
    return response


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=wire.encode(value), status=status, content_type="application/json")


async def _body(request: web.Request, kind: type[T], limit: int = LARGEST_BODY) -> T:
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > limit:
            raise TooLarge(f"A request of this kind has at most {limit} bytes.")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise Invalid(f"The request cannot be read: {error}") from error


def _number(request: web.Request, name: str) -> float:
    try:
        value = float(request.query[name])
    except (KeyError, ValueError) as error:
        raise Invalid(f"'{name}' is to be a number.") from error
    if not math.isfinite(value):
        raise Invalid(f"'{name}' is to be a finite number.")
    return value
