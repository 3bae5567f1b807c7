"""Authentication by Keystone's tokens (X-Auth-Token), beside ``HttpBasic`` of ``higgins.api.auth``.

A token that Keystone vouched for is believed for a while (``tokens.belief``), never past its expiry. Validation blocks
and runs in threads of its own, so that a Keystone that hangs holds up neither the event loop nor the database.
"""

import asyncio
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from aiohttp import web
from keystoneauth1.exceptions import ClientException
from msgspec import Struct
from oslo_config import cfg

from higgins.api.auth import Identity
from higgins.api.matching import segments
from higgins.model.errors import Unauthorized
from higgins.openstack import tokens
from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.tokens import Credentials, Token

#: Validations at once. Each is one or two requests to Keystone.
_THREADS = 8
_MOST_KEPT = 10_000
_READABLE = re.compile(r"[\x21-\x7e]+")


class _Known(Struct, frozen=True):
    until: float  # of time.monotonic
    identity: Identity


class Keystone:
    """Who a token belongs to. ``validate`` blocks; ``belief`` and ``patience`` are in seconds.

    Requests that bring the same token at the same time share one question to Keystone.
    """

    def __init__(
        self, validate: Callable[[Credentials], Token], *, uri: str, belief: float, patience: float = 30
    ) -> None:
        self.challenge = f'Keystone uri="{uri}"'
        self._validate = validate
        self._belief = belief
        self._patience = patience
        self._key = os.urandom(32)
        self._known: dict[bytes, _Known] = {}
        self._asked: dict[bytes, asyncio.Future[Token]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="keystone")

    def close(self) -> None:
        """No more validations; those under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def identify(self, request: web.Request) -> Identity:
        """Raises Unauthorized, Forbidden (a scope without use here) or ServiceUnavailable."""
        credentials = credentials_of(request)
        anywhere, here = self._digests(credentials)
        for digest in (anywhere, here):
            known = self._known.get(digest)
            if known is not None and known.until > time.monotonic():
                return known.identity
        token = await self._ask(here, credentials)
        identity = identity_of(token)
        self._remember(here if token.restricted else anywhere, token, identity)
        return identity

    def _digests(self, credentials: Credentials) -> tuple[bytes, bytes]:
        """Keys to what is known: of the tokens alone, and of the tokens with this method and path."""
        tokens_only = f"{credentials.token} {credentials.service_token}".encode()
        whole = tokens_only + f" {credentials.method} {credentials.path}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, tokens_only, hashlib.sha256), hmac.digest(self._key, whole, hashlib.sha256)

    async def _ask(self, digest: bytes, credentials: Credentials) -> Token:
        asked = self._asked.get(digest)
        if asked is None:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._validate, credentials)
            self._asked[digest] = asked
            asked.add_done_callback(lambda done: self._answered(digest, done))
        try:
            # One who goes away does not end what others wait for too.
            return await asyncio.wait_for(asyncio.shield(asked), self._patience)
        except TimeoutError:
            raise ServiceUnavailable("Keystone", "tokens cannot be checked") from None

    def _answered(self, digest: bytes, done: asyncio.Future[Token]) -> None:
        self._asked.pop(digest, None)
        if not done.cancelled():
            done.exception()  # it has been looked at, even if all who asked are gone

    def _remember(self, digest: bytes, token: Token, identity: Identity) -> None:
        left = (token.expires - datetime.now(UTC)).total_seconds()
        # One that is past its expiry was let through for the service that passed it on.
        belief = self._belief if left <= 0 and token.service_roles else min(self._belief, left)
        if belief <= 0:
            return
        if len(self._known) >= _MOST_KEPT:
            self._forget()
        self._known[digest] = _Known(time.monotonic() + belief, identity)

    def _forget(self) -> None:
        now = time.monotonic()
        self._known = {digest: known for digest, known in self._known.items() if known.until > now}
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()


def credentials_of(request: web.Request) -> Credentials:
    """The tokens of a request, and its path in the one form that access rules are compared with: /v1/containers/abc."""
    token = request.headers.get("X-Auth-Token", "").strip()
    service_token = request.headers.get("X-Service-Token", "").strip()
    if not token:
        raise Unauthorized("Authentication is required: a token in X-Auth-Token.")
    for text in (token, service_token):
        if text and _READABLE.fullmatch(text) is None:
            raise Unauthorized("The token cannot be read.")
    path = "/v1/" + "/".join(segments(request.rel_url.raw_path))
    return Credentials(request.method, path, token, service_token)


def identity_of(token: Token) -> Identity:
    return Identity(
        token.user_id,
        token.project_id,
        token.roles,
        system_scope=token.system_scope,
        service_roles=token.service_roles,
    )


def open_keystone(conf: cfg.ConfigOpts) -> Keystone:
    """As [keystone_authtoken] says; raises ValueError where that cannot be used. Keystone itself is not asked yet."""
    try:
        validator = tokens.Validator(conf)
    except ClientException as error:
        raise ValueError(f"[{tokens.GROUP}] cannot be used: {error}") from error
    if not conf[tokens.GROUP].auth_type:
        raise ValueError(f"[{tokens.GROUP}] needs auth_type and the service user's credentials")
    belief, _ = tokens.belief(conf)
    return Keystone(validator, uri=tokens.public_url(conf), belief=belief)
