"""Connections between the control plane and hosts: TLS 1.3, both sides shown and checked against Higgins' authority.

Who is at the other end is the name in their certificate, never their address. A client connects *to a name*: URLs have
the name as their host (``https://<name of a host>:9519/…``), and ``Directory`` tells where that name is now.
"""

import asyncio
import os
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct

from higgins.control.identities import Identity

#: Seconds: to connect, that a connection is kept when nobody uses it, and between the questions by which the kernel
#: finds out that a silent peer is gone.
CONNECT_TIMEOUT = 10.0
_IDLE = 60.0
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
#: Bytes that asyncio reads at a time from a TLS connection, and keeps for it from its start to its end. Its own 256 KiB
#: are nearly all that an agent costs which waits for news; a record of TLS has 16 KiB at most.
SSLProtocol.max_size = 2**15


class Peer(Struct, frozen=True):
    """Whom a verified certificate names. ``since`` and ``until`` are when it holds, in seconds of the epoch."""

    name: str
    serial: str
    since: float
    until: float

    def ageing(self, now: float) -> bool:
        """Whether more than half of its time is over: a connection with it shall make room for one with a new one."""
        return now > (self.since + self.until) / 2


def peer_of(certificate: Mapping[str, Any] | None) -> Peer | None:
    """The peer as ``getpeercert`` tells; None if it showed no certificate."""
    if not certificate:
        return None
    names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
    return Peer(
        name=names[0] if len(names) == 1 else "",
        serial=f"{int(certificate['serialNumber'], 16):x}",
        since=ssl.cert_time_to_seconds(certificate["notBefore"]),
        until=ssl.cert_time_to_seconds(certificate["notAfter"]),
    )


def use(context: ssl.SSLContext, identity: Identity) -> None:
    """Show this identity in all handshakes from now on. The key touches no disk."""
    descriptor = os.memfd_create("identity")
    try:
        os.write(descriptor, (identity.key + identity.certificate).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def server_context(authority: str, identity: Identity, *, optional: bool = False) -> ssl.SSLContext:
    """For who listens. ``optional``: callers without a certificate get in, and are told apart by ``peer_of``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    # A ticket would let a connection come back later without its certificate being looked at again.
    context.num_tickets = 0
    return _common(context, authority, identity)


def client_context(authority: str, identity: Identity | None = None) -> ssl.SSLContext:
    """For who connects; the server's certificate must have the name that was connected to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _common(context, authority, identity)


def _common(context: ssl.SSLContext, authority: str, identity: Identity | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the authority may itself be signed by another
    if identity is not None:
        use(context, identity)
    return context


class Ends:
    """Both ends as one side has them: a context to listen with, and one for each new connection to others.

    What is trusted cannot be taken from a context again. So there are new ones with each change: ``client`` is to be
    asked for with each request, and ``server``, which listeners keep, hands every handshake over to the newest.
    """

    def __init__(self, authorities: str, identity: Identity, *, optional: bool = False) -> None:
        self._optional = optional
        self.use(authorities, identity)
        self.server = server_context(authorities, identity, optional=optional)
        self.server.sni_callback = self._hand_over

    def use(self, authorities: str, identity: Identity) -> None:
        """Trust these and show this one from now on; connections that are open go on with what they began with."""
        self._latest = server_context(authorities, identity, optional=self._optional)
        self.client = client_context(authorities, identity)

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._latest


class Directory(AbstractResolver):
    """Where the names are that one connects to: name → host name or address of the machine."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self.places:
            raise OSError(f"it is not known where {host} is")
        # aiohttp's own resolver asks with AI_ADDRCONFIG, by which 127.0.0.1 itself is not found on a machine whose only
        # other address is an IPv6 one, be it that of an idle link.
        found = await asyncio.get_running_loop().getaddrinfo(self.places[host], port, type=socket.SOCK_STREAM)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def new_session(context: ssl.SSLContext | None, directory: Directory) -> aiohttp.ClientSession:
    """A session for any number of connections to the names of ``directory``. Requests have no time limit of their own.

    Without a ``context`` each request is to bring one (``ssl=``); it gets a connection that was made with that.

    Nothing is taken from the environment (proxies) and no redirect or cookie is ever needed.
    """
    connector = aiohttp.TCPConnector(
        ssl=True if context is None else context,
        resolver=directory,
        use_dns_cache=False,
        limit=0,
        socket_factory=_keeping_alive,
        keepalive_timeout=_IDLE,
    )
    timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=CONNECT_TIMEOUT)
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )


def _keeping_alive(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    keep_alive(made)
    return made


def keep_alive(connection: socket.socket) -> None:
    """Let the kernel find out, within a minute, that the machine at the other end of a silent connection is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
