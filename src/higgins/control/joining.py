"""How machines become hosts, and how they stop being one: join tokens, certificates, revocation.

A certificate counts only while its serial number is in the database, not revoked and not over; so revoking is one
update, and a certificate that the authority signed for anybody else is worth nothing here.
"""

import hashlib
import secrets
import uuid as uuids
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from higgins.control import hosts
from higgins.control.authority import Authority
from higgins.control.cloud import Cloud
from higgins.control.identities import CONTROL_PLANE, requested_key, serial_of
from higgins.control.link import HostReport
from higgins.control.rows import to_json
from higgins.control.tls import Peer
from higgins.control.wire import Joined, JoinRequest
from higgins.model.addresses import split_address
from higgins.model.errors import Conflict, Forbidden, Invalid, NotFound
from higgins.model.resources import HostInfo
from higgins.store.database import touch_host
from higgins.store.schema import certificate, host, join_token

#: The last moment that a host which never reported was seen.
_NEVER = datetime(1970, 1, 1, 0, 0, 1)
#: How long a certificate that is over is remembered.
_REMEMBERED = timedelta(days=1)


class NotAHost(Forbidden):
    """No certificate, or one that does not count: revoked, over, or of somebody who is no host."""

    code = "not-a-host"


class WrongToken(Forbidden):
    """The join token is unknown, used, or too old."""

    code = "wrong-join-token"


class JoinedHost(Struct, frozen=True):
    """A host that was recognised by its certificate."""

    id: int
    uuid: str
    name: str
    serial: str
    tls_name: str


async def new_token(cloud: Cloud, ttl: timedelta) -> str:
    """The secret part of a token with which one machine may join within ``ttl``. Only its hash is kept."""
    secret = secrets.token_hex(32)  # no character that a shell or an option parser makes something of

    def work(conn: Connection) -> None:
        conn.execute(sa.delete(join_token).where(join_token.c.expires_at < cloud.now()))
        conn.execute(sa.insert(join_token).values(token_hash=_hash(secret), expires_at=cloud.now() + ttl))

    await cloud.store.write(work)
    return secret


async def join(cloud: Cloud, authority: Authority, asked: JoinRequest) -> Joined:
    """Make a machine a host: its token is used up, and what it gets is a certificate.

    A name that is taken stays with who has it, unless its host was revoked: then the machine becomes that host, with
    whatever is assigned to it. Raises WrongToken, Invalid, Conflict; a refused request leaves the token as it was.
    """
    key = requested_key(asked.request)
    if not asked.name or len(asked.name) > 255 or asked.name == CONTROL_PLANE:
        raise Invalid("A host needs a name of at most 255 characters.")
    if not asked.zone or len(asked.zone) > 255:
        raise Invalid("A host needs an availability zone of at most 255 characters.")

    def work(conn: Connection) -> Joined:
        used = sa.delete(join_token).where(
            join_token.c.token_hash == _hash(asked.token), join_token.c.expires_at >= cloud.now()
        )
        if conn.execute(used).rowcount != 1:
            raise WrongToken("The join token is unknown, was used already, or is too old: ask for another one.")
        tls_name = str(uuids.uuid4())
        host_id, uuid = _host_for(conn, cloud, asked, tls_name)
        signed = authority.issue(uuid, key, cloud.now(), also=tls_name)
        _record(conn, cloud, host_id, authority, signed)
        return Joined(uuid=uuid, name=asked.name, certificate=signed.public_bytes(Encoding.PEM).decode())

    try:
        return await cloud.store.write(work)
    except exc.IntegrityError as error:
        raise _taken(asked.name) from error  # another machine of that name was faster


def _host_for(conn: Connection, cloud: Cloud, asked: JoinRequest, tls_name: str) -> tuple[int, str]:
    """The host that joins, its number and uuid: a new one, or one that was revoked.

    It is called by another name from now on, so that who has an older certificate of it does not answer for it.
    """
    row = conn.execute(sa.select(host).where(host.c.name == asked.name)).one_or_none()
    if row is None:
        uuid = str(uuids.uuid4())
        nothing = {"cpus": 0, "memory": 0, "disk": 0, "info": to_json(HostInfo())}
        made = conn.execute(
            sa.insert(host).values(
                uuid=uuid,
                name=asked.name,
                zone=asked.zone,
                tls_name=tls_name,
                seen_at=_NEVER,
                created_at=cloud.now(),
                **nothing,
            )
        )
        return int(made.inserted_primary_key[0]), uuid  # type: ignore[index]
    if row.revoked_at is None:
        raise _taken(asked.name)
    values = {"revoked_at": None, "tls_name": tls_name, "updated_at": cloud.now()}
    conn.execute(sa.update(host).where(host.c.id == row.id).values(values))
    # Also one that was renewed while the host was being revoked.
    conn.execute(sa.update(certificate).where(certificate.c.host_id == row.id).values(revoked_at=cloud.now()))
    return int(row.id), str(row.uuid)


def _taken(name: str) -> Conflict:
    return Conflict(
        f"There is a host {name} already. If this machine is to be that host, revoke it first: "
        f"higgins host revoke {name}"
    )


async def renew(cloud: Cloud, authority: Authority, known: JoinedHost, request: str) -> Joined:
    """Another certificate for the same host; the one that it has holds until its end. Raises Invalid, NotAHost."""
    key = requested_key(request)
    signed = authority.issue(known.uuid, key, cloud.now(), also=known.tls_name)

    def work(conn: Connection) -> None:
        if _counts(conn, cloud, known.serial, known.uuid) is None:
            raise _refused()
        _record(conn, cloud, known.id, authority, signed)

    await cloud.store.write(work)
    return Joined(uuid=known.uuid, name=known.name, certificate=signed.public_bytes(Encoding.PEM).decode())


def _record(conn: Connection, cloud: Cloud, host_id: int, authority: Authority, signed: x509.Certificate) -> None:
    conn.execute(sa.delete(certificate).where(certificate.c.expires_at < cloud.now() - _REMEMBERED))
    expires_at = signed.not_valid_after_utc.astimezone(UTC).replace(tzinfo=None)
    values = {"serial": serial_of(signed), "host_id": host_id, "expires_at": expires_at}
    conn.execute(sa.insert(certificate).values(values | {"authority_id": authority.number}))


async def recognise(cloud: Cloud, peer: Peer | None) -> JoinedHost:
    """The host that a verified certificate is of. Raises NotAHost."""
    if peer is None:
        raise NotAHost("A host shows its certificate to be answered; this caller showed none.")

    def work(conn: Connection) -> tuple[JoinedHost | None, bool]:
        first = sa.select(certificate.c.serial).where(
            certificate.c.serial == peer.serial, certificate.c.shown_at.is_(None)
        )
        return _counts(conn, cloud, peer.serial, peer.name), conn.execute(first).first() is not None

    found, first = await cloud.store.read(work)
    if found is None:
        raise _refused()
    if first:
        shown = sa.update(certificate).where(certificate.c.serial == peer.serial).values(shown_at=cloud.now())
        await cloud.store.write(lambda conn: conn.execute(shown).rowcount)
    return found


async def register(cloud: Cloud, known: JoinedHost, report: HostReport) -> int:
    """A host that joined says what it is; its number. Raises NotAHost, Forbidden, Invalid."""
    if report.name != known.name:
        raise Forbidden(f"Host {known.name} cannot register as {report.name}.")
    if not report.zone or len(report.zone) > 255 or len(report.address) > 255:
        raise Invalid("A host has a zone and an address of at most 255 characters.")
    split_address(report.address)

    def work(conn: Connection) -> int:
        if _counts(conn, cloud, known.serial, known.uuid) is None:
            raise _refused()
        conn.execute(sa.update(host).where(host.c.id == known.id).values(hosts.reported(cloud, report)))
        touch_host(conn, known.id)  # schedulers read again what it is
        return known.id

    return await cloud.store.write(work)


def _counts(conn: Connection, cloud: Cloud, serial: str, uuid: str) -> JoinedHost | None:
    """The host whose valid certificate this is."""
    query = (
        sa.select(host.c.id, host.c.uuid, host.c.name, host.c.tls_name)
        .join(certificate, certificate.c.host_id == host.c.id)
        .where(certificate.c.serial == serial, host.c.uuid == uuid, *_valid(cloud))
    )
    row = conn.execute(query).one_or_none()
    return None if row is None else JoinedHost(row.id, row.uuid, row.name, serial, row.tls_name)


def _valid(cloud: Cloud) -> tuple[sa.ColumnElement[bool], ...]:
    """What makes a certificate count; to be asked of certificates joined with their hosts."""
    return certificate.c.revoked_at.is_(None), certificate.c.expires_at > cloud.now(), host.c.revoked_at.is_(None)


def _refused() -> NotAHost:
    return NotAHost(
        "This certificate does not count (any more): the host was revoked or removed, or its time is over. It can join "
        "again with a new token."
    )


async def revoke(cloud: Cloud, name: str) -> None:
    """From now on nothing is answered to this host, nothing placed there, and nothing asked of it.

    What runs there cannot be stopped any more from here; its containers are shown as Unknown. Raises NotFound.
    """

    def work(conn: Connection) -> None:
        now = cloud.now()
        row = conn.execute(sa.select(host.c.id).where(host.c.name == name)).one_or_none()
        if row is None:
            raise NotFound("host", name)
        conn.execute(sa.update(certificate).where(certificate.c.host_id == row.id).values(revoked_at=now))
        values = {"revoked_at": now, "address": None, "seen_at": _NEVER, "updated_at": now}
        conn.execute(sa.update(host).where(host.c.id == row.id).values(values))
        touch_host(conn, row.id)  # a long poll ends, and finds that it is not to be answered

    await cloud.store.write(work)


async def refused_now(cloud: Cloud, serials: set[str]) -> set[str]:
    """Of these certificates, those that do not count any more."""
    if not serials:
        return set()

    def work(conn: Connection) -> set[str]:
        valid: set[str] = set()
        asked = sorted(serials)
        for start in range(0, len(asked), 500):
            query = (
                sa.select(certificate.c.serial)
                .join(host, certificate.c.host_id == host.c.id)
                .where(certificate.c.serial.in_(asked[start : start + 500]), *_valid(cloud))
            )
            valid.update(conn.execute(query).scalars())
        return serials - valid

    return await cloud.store.read(work)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
