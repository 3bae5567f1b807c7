"""What this machine has of being a host: who it is, whom it trusts, its key and certificate, and their renewal.

All of it is one file in the data directory, replaced as a whole, so that key and certificate always belong together.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from msgspec import Struct, structs

from higgins.control.identities import Identity, fingerprints, key_pem, new_key
from higgins.control.tls import Ends
from higgins.control.wire import Joined
from higgins.model.errors import HigginsError
from higgins.private_files import write_private

LOG = logging.getLogger(__name__)

#: Seconds between two tries to renew, at most.
_RETRY = 600.0
#: Seconds between two looks at the clock: it may be set, and a machine may sleep.
_LOOK = 60.0
#: Seconds within which all hosts ask for another certificate once there is another authority.
_SPREAD = 60.0


class Membership(Struct, frozen=True, kw_only=True):
    """A host's part in a cloud. ``url`` is the control plane's; ``authority`` what alone is trusted (PEM): one
    certificate, or two while one authority takes the other's place."""

    url: str
    uuid: str
    name: str
    authority: str
    identity: Identity


class NoMembership(HigginsError):
    """This machine has not joined; the sentence is for the operator."""


def _path(data: Path) -> Path:
    return data / "membership.json"


def read(data: Path) -> Membership:
    """What was stored when this machine joined. Raises NoMembership."""
    path = _path(data)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Membership)
    except FileNotFoundError as error:
        raise NoMembership(
            "This machine has not joined a control plane: get a token there with 'higgins host token', and join with "
            "'higgins agent join https://HOST:PORT --token TOKEN'."
        ) from error
    except msgspec.MsgspecError as error:
        raise NoMembership(f"{path} cannot be read ({error}): join again with a new token.") from error


def write(data: Path, membership: Membership) -> None:
    """Store it for the owner only. Raises OSError."""
    data.mkdir(parents=True, exist_ok=True)
    write_private(_path(data), msgspec.json.encode(membership).decode() + "\n")


def new_request(name: str) -> tuple[str, str]:
    """A new key that never leaves this machine, and a certificate request for it; both PEM."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return key_pem(key), request.public_bytes(serialization.Encoding.PEM).decode()


def half_time(identity: Identity) -> datetime:
    """When half of a certificate's time is over."""
    certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) / 2


class Certificates:
    """The membership in use: what connections show, and its renewal. ``ask`` sends a request, gives a certificate."""

    def __init__(self, data: Path, membership: Membership) -> None:
        self._data = data
        self.membership = membership
        self.ends = Ends(membership.authority, membership.identity)
        self._trusted = fingerprints(membership.authority)
        self._others = asyncio.Event()

    def hear(self, authorities: str) -> None:
        """The control plane trusts these (``fingerprints``): if this host trusts others, it asks anew soon."""
        if authorities != self._trusted:
            self._others.set()

    async def run(self, ask: Callable[[str], Awaitable[Joined]]) -> None:
        """Until cancelled: have a new certificate at half the time of this one, or when the authority changes."""
        while True:
            if self._others.is_set():
                await asyncio.sleep(_SPREAD * random.random())  # noqa: S311 - spreads hosts, keeps no secret
            elif datetime.now(UTC) < half_time(self.membership.identity):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._others.wait(), _LOOK)
                continue
            try:
                await self.renew(ask)
            except HigginsError as error:
                LOG.warning("The certificate of this host was not renewed: %s", error)
                await asyncio.sleep(_RETRY * random.uniform(0.5, 1))  # noqa: S311 - spreads hosts, keeps no secret

    async def renew(self, ask: Callable[[str], Awaitable[Joined]]) -> None:
        """A new key, a new certificate, and whom to trust. Stored before it is used: what is shown is never lost."""
        key, request = new_request(self.membership.name)
        answer = await ask(request)
        authority = answer.authorities or self.membership.authority
        trusted = fingerprints(authority)
        identity = Identity(certificate=answer.certificate, key=key)
        renewed = structs.replace(self.membership, authority=authority, identity=identity)
        await asyncio.to_thread(write, self._data, renewed)
        self.membership = renewed
        self._trusted = trusted
        self._others.clear()
        self.ends.use(authority, identity)
        LOG.info("The certificate of this host was renewed.")
