"""Who asks. A strategy turns a request into an ``Identity``; which one is used is the operator's choice."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import bcrypt
from aiohttp import web
from cryptography.fernet import Fernet, InvalidToken
from msgspec import Struct

from higgins.model.errors import Unauthorized

LOG = logging.getLogger(__name__)

#: What a role brings with it, as Keystone's implied roles do.
_IMPLIED = {"admin": "manager", "manager": "member", "member": "reader"}


class Identity(Struct, frozen=True):
    """An authenticated user in a project, or in none (``project_id`` empty) with a token of system scope.

    ``service_roles`` are those of the service that passed the user's token on, if one did.
    """

    user_id: str
    project_id: str
    roles: frozenset[str]
    system_scope: str | None = None
    service_roles: frozenset[str] = frozenset()


class Auth(Protocol):
    """A way to authenticate. ``challenge`` is the WWW-Authenticate header of a 401."""

    challenge: str

    async def identify(self, request: web.Request) -> Identity:
        """Who sent ``request``; raises ``Unauthorized``."""


class PasswordFileError(Exception):
    """The password file cannot be used; the sentence names the line."""


class _Entry(Struct, frozen=True):
    password_hash: bytes
    identity: Identity


def with_implied(roles: frozenset[str]) -> frozenset[str]:
    """The roles with those that they imply: admin, manager, member, reader in that order."""
    complete = set(roles)
    for role, implied in _IMPLIED.items():
        if role in complete:
            complete.add(implied)
    return frozenset(complete)


def parse_password_file(text: str) -> dict[str, _Entry]:
    """Lines of ``user:bcrypt hash:project:role,role``; empty lines and those with # are passed over."""
    entries: dict[str, _Entry] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.strip().split(":")
        if len(parts) != 4 or not all(parts[:3]):
            raise PasswordFileError(f"line {number}: user:bcrypt hash:project:role,role is wanted")
        user, password_hash, project, roles = parts
        if not re.fullmatch(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}", password_hash):
            raise PasswordFileError(f"line {number}: the second part is not a bcrypt hash")
        if user in entries:
            raise PasswordFileError(f"line {number}: user {user} is there twice")
        names = frozenset(role.strip() for role in roles.split(",") if role.strip())
        entries[user] = _Entry(password_hash.encode(), Identity(user, project, with_implied(names)))
    return entries


class HttpBasic:
    """HTTP Basic authentication against a password file, for a cloud without Keystone; or a token got with a password.

    bcrypt is slow on purpose: it runs in threads, a few at a time, and a success is remembered for ``ttl`` seconds
    under a keyed hash. A user who is not there costs what a wrong password costs. The file is read again when it
    changes.
    """

    challenge = 'Basic realm="Higgins", charset="UTF-8"'

    def __init__(self, path: Path, *, ttl: float = 60, secret: bytes | None = None, token_ttl: int = 3600) -> None:
        """``secret`` is what makes the tokens of one process good in another; they are so for ``token_ttl`` seconds."""
        self._path = path
        self._ttl = ttl
        self._tokens = _fernet(secret or os.urandom(32))
        self.token_ttl = token_ttl
        self._key = os.urandom(32)
        self._seen: dict[bytes, tuple[float, Identity]] = {}
        self._stamp: tuple[int, int] | None = None
        self._entries: dict[str, _Entry] = {}
        self._absent = b""
        self._busy = asyncio.Semaphore(4)
        self._load()

    def _load(self) -> None:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            self._entries = parse_password_file(self._path.read_text())
            self._absent = _hash_of_nobody(self._entries.values())
            self._seen.clear()
            self._stamp = stamp

    def _reload(self) -> None:
        """As ``_load``, but a file that is being edited wrongly does not lock everybody out."""
        try:
            self._load()
        except (OSError, PasswordFileError) as error:
            LOG.error("the password file stays as it was: %s", error)

    async def identify(self, request: web.Request) -> Identity:
        token = request.headers.get("X-Auth-Token")
        if token is not None:
            return self._bearer(token)
        return await self._check(*_credentials(request.headers.get("Authorization", "")))

    async def log_in(self, user: str, password: str) -> tuple[Identity, str]:
        """Who has that password, and a token to say so. Raises ``Unauthorized``."""
        identity = await self._check(user, password)
        told = {"user": user, "password": _fingerprint(self._entries[user])}
        return identity, self._tokens.encrypt(json.dumps(told).encode()).decode()

    def _bearer(self, token: str) -> Identity:
        """Whose token it is: good until it is over, and no longer than the password that it was got with."""
        self._reload()
        try:
            told = json.loads(self._tokens.decrypt(token.encode(), ttl=self.token_ttl))
        except (InvalidToken, UnicodeEncodeError):
            raise Unauthorized("The token is none of this cloud's, or it is over.") from None
        entry = self._entries.get(told["user"])
        if entry is None or _fingerprint(entry) != told["password"]:
            raise Unauthorized("The token is over.")
        return entry.identity

    async def _check(self, user: str, password: str) -> Identity:
        self._reload()
        digest = hashlib.blake2b(f"{user}\0{password}".encode(), key=self._key).digest()
        known = self._seen.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        entry = self._entries.get(user)
        async with self._busy:
            matches = await asyncio.to_thread(_matches, password, entry.password_hash if entry else self._absent)
        if entry is None or not matches or self._entries.get(user) != entry:
            raise Unauthorized("The user name or the password is wrong.")
        if len(self._seen) >= 1024:
            self._seen.clear()
        self._seen[digest] = (time.monotonic() + self._ttl, entry.identity)
        return entry.identity


def _fernet(secret: bytes) -> Fernet:
    """What tokens are made with: with a key of their own, so that nothing else made of ``secret`` passes for one."""
    return Fernet(base64.urlsafe_b64encode(hmac.digest(secret, b"higgins tokens", hashlib.sha256)))


def _fingerprint(entry: _Entry) -> str:
    """Changes with the password."""
    return hashlib.sha256(entry.password_hash).hexdigest()


def _hash_of_nobody(entries: Iterable[_Entry]) -> bytes:
    """A hash that no password has, as costly as the costliest of the file: an unknown user takes as long to refuse."""
    cost = max((entry.password_hash[4:6] for entry in entries), default=b"10")
    return b"$2b$" + cost + b"$" + b"." * 53


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or not encoded:
        raise Unauthorized("Authentication is required.")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise Unauthorized("The Authorization header cannot be read.") from None
    if not colon:
        raise Unauthorized("The Authorization header cannot be read.")
    return user, password


def _matches(password: str, password_hash: bytes) -> bool:
    data = password.encode()
    if len(data) > 72 or b"\0" in data:  # bcrypt looks no further, so such a password was never set
        bcrypt.checkpw(b"", password_hash)
        return False
    return bcrypt.checkpw(data, password_hash)
