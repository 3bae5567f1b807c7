"""The certificate authority: it says which host is which, and which process is the control plane.

One key for the whole cloud, in the database, encrypted with the secret key that all replicas share. It is Higgins' own,
made by whoever needs it first, or one that an operator brought before that. A certificate says who somebody is and no
more: the subject of a host's is the host's uuid, that of the control plane is a reserved name. Neither names an
address, so machines may move.

While another authority takes its place (``rotate`` … ``finish``) there are two, which all trust as soon as they hear of
them. The control plane goes on to show certificates of the older one, which every host knows; hosts get certificates of
the newer one together with both authorities. So nobody is ever shown what they cannot check.
"""

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import Row, exc
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud, WrongSecret
from higgins.control.identities import CONTROL_PLANE, Identity, fingerprints, key_pem, new_key
from higgins.model.errors import Conflict, Invalid
from higgins.store.schema import authority as authority_table
from higgins.store.schema import certificate as certificate_table
from higgins.store.schema import host

#: How long certificates hold. A new one is fetched when half of that is over.
LIFETIME = timedelta(days=7)
_AUTHORITY_LIFETIME = timedelta(days=3650)
#: How far the clocks of two machines may differ.
_SKEW = timedelta(minutes=5)

#: The numbers of all authorities, the oldest first.
_NUMBERS = sa.select(authority_table.c.id).order_by(authority_table.c.id)

#: What an authority may sign with: Higgins' own is an EC key.
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Authority:
    """The authority while it is in use. ``number`` tells it from those before and after it."""

    def __init__(self, certificate: x509.Certificate, key: Key, number: int = 1) -> None:
        self.certificate = certificate
        self.key = key
        self.number = number

    @property
    def pem(self) -> str:
        """Its certificate, which everybody may see and whoever joins is to trust."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        now: datetime,
        lifetime: timedelta = LIFETIME,
        *,
        also: str | None = None,
    ) -> x509.Certificate:
        """A certificate that says: who has this key is ``name``. For both ends of a connection. ``now`` is UTC.

        ``also`` is another name that one may connect to.
        """
        names = [x509.DNSName(one) for one in (name, also) if one is not None]
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return (
            _builder(name, self.certificate.subject, public_key, now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(self._own_identifier(), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def _own_identifier(self) -> x509.AuthorityKeyIdentifier:
        """As the own certificate tells it, since that may have been made by anybody's tools."""
        try:
            told = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(told)


class Authorities:
    """All that are trusted, the oldest first: one, or two while one takes the other's place."""

    def __init__(self, *each: Authority) -> None:
        self.each = each

    @property
    def shown(self) -> Authority:
        """Of which the control plane's own certificates are, because every host trusts it."""
        return self.each[0]

    @property
    def newest(self) -> Authority:
        """Of which hosts get certificates."""
        return self.each[-1]

    @property
    def bundle(self) -> str:
        """All of them in PEM, for who is to trust them."""
        return "".join(one.pem for one in self.each)

    @cached_property
    def fingerprints(self) -> str:
        return fingerprints(self.bundle)

    @property
    def numbers(self) -> list[int]:
        return [one.number for one in self.each]


def new_authority(now: datetime) -> Authority:
    """An authority with a new key."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Higgins")])
    certificate = (
        _builder("Higgins", subject, key.public_key(), now, _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def control_plane_identity(authority: Authority, now: datetime, lifetime: timedelta = LIFETIME) -> Identity:
    """What a replica shows to hosts: a key that never leaves the process, and a certificate for it."""
    key = new_key()
    certificate = authority.issue(CONTROL_PLANE, key.public_key(), now, lifetime)
    return Identity(certificate.public_bytes(serialization.Encoding.PEM).decode(), key_pem(key))


async def open_authorities(cloud: Cloud) -> Authorities:
    """The authorities of this cloud; one is made if there is none. Raises WrongSecret."""
    stored = await cloud.store.read(_stored)
    if not stored:
        made = new_authority(cloud.now())
        with contextlib.suppress(exc.IntegrityError):  # another replica was faster: its authority is the one
            await cloud.store.write(lambda conn: _store(conn, cloud, made))
        stored = await cloud.store.read(_stored)
    if not stored:
        raise RuntimeError("the authority was stored and is not there")
    return Authorities(*(_opened(cloud, row) for row in stored))


async def open_authority(cloud: Cloud) -> Authority:
    """The one of which the control plane's certificates are."""
    return (await open_authorities(cloud)).shown


async def known_numbers(cloud: Cloud) -> list[int]:
    """The numbers of the authorities that there are now, the oldest first."""
    return await cloud.store.read(lambda conn: list(conn.execute(_NUMBERS).scalars()))


def _opened(cloud: Cloud, row: Row[Any]) -> Authority:
    try:
        key = cloud.secrets.decrypt(row.key.encode())
    except InvalidToken as error:
        raise WrongSecret(
            "The certificate authority in the database was encrypted with another secret key: all replicas of the "
            "control plane need the same 'secret.key' in their data directories."
        ) from error
    return read_authority(row.certificate.encode(), key, row.id)


def read_authority(certificate: bytes, key: bytes, number: int = 1) -> Authority:
    """An authority from PEM: its certificate (the first, where there are several) and its key. Raises Invalid."""
    try:
        shown = x509.load_pem_x509_certificate(certificate)
        secret = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"The certificate or the key cannot be read: {error}") from error
    if not isinstance(secret, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Invalid("The key of an authority is to be an EC or RSA key.")
    if secret.public_key() != shown.public_key():
        raise Invalid("The key does not belong to the certificate.")
    try:
        signs = shown.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = shown.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise Invalid(f"The certificate is no authority's: {error}") from error
    if not signs or not usage.key_cert_sign:
        raise Invalid("The certificate is no authority's: it may not sign certificates.")
    return Authority(shown, secret, number)


async def adopt(cloud: Cloud, brought: Authority) -> None:
    """Make an operator's authority the one of this cloud. Raises Conflict where there is one already, Invalid."""
    _check_time(cloud, brought)
    try:
        stored = await cloud.store.write(lambda conn: _store(conn, cloud, brought))
    except exc.IntegrityError:
        stored = False  # somebody was faster
    if not stored:
        raise Conflict(
            "This cloud has an authority already, which its hosts trust: 'higgins host authority rotate' replaces it."
        )


async def rotate(cloud: Cloud, brought: Authority | None = None) -> None:
    """Begin to replace the authority by a new one, or one of the operator's. Raises Conflict, Invalid, WrongSecret."""
    await open_authorities(cloud)  # there is one, and this is its secret key
    made = brought or new_authority(cloud.now())
    _check_time(cloud, made)

    def work(conn: Connection) -> None:
        numbers = _held(conn)
        if len(numbers) > 1:
            raise Conflict("The authority is being replaced already; --finish ends that.")
        _insert(conn, cloud, made, numbers[-1] + 1)

    try:
        await cloud.store.write(work)
    except exc.IntegrityError as error:
        raise Conflict("The authority is being replaced already.") from error  # somebody was faster


async def finish(cloud: Cloud, *, force: bool = False) -> list[str]:
    """Trust the new authority alone; the hosts that cannot get in any more, which takes ``force``. Raises Conflict."""

    def work(conn: Connection) -> list[str]:
        numbers = _held(conn)
        if len(numbers) == 1:
            raise Conflict("The authority is not being replaced; 'higgins host authority rotate' begins that.")
        late = _behind(conn, cloud, numbers[-1])
        if late and not force:
            raise Conflict(
                f"These hosts have shown no certificate of the new authority yet: {', '.join(late)}. "
                "With --force they have to join again."
            )
        conn.execute(sa.delete(authority_table).where(authority_table.c.id != numbers[-1]))
        others = certificate_table.c.authority_id.is_distinct_from(numbers[-1])
        over = sa.update(certificate_table).where(others, certificate_table.c.revoked_at.is_(None))
        conn.execute(over.values(revoked_at=cloud.now()))
        return late

    return await cloud.store.write(work)


async def behind(cloud: Cloud) -> list[str]:
    """The hosts that have shown no certificate of the newest authority yet, while that takes another's place."""

    def work(conn: Connection) -> list[str]:
        numbers = conn.execute(_NUMBERS).scalars().all()
        return _behind(conn, cloud, numbers[-1]) if len(numbers) > 1 else []

    return await cloud.store.read(work)


def _behind(conn: Connection, cloud: Cloud, newest: int) -> list[str]:
    counts = sa.select(certificate_table.c.serial).where(
        certificate_table.c.host_id == host.c.id,
        certificate_table.c.revoked_at.is_(None),
        certificate_table.c.expires_at > cloud.now(),
    )
    new = counts.where(certificate_table.c.authority_id == newest, certificate_table.c.shown_at.is_not(None))
    query = sa.select(host.c.name).where(host.c.revoked_at.is_(None), counts.exists(), ~new.exists())
    return list(conn.execute(query.order_by(host.c.name)).scalars())


def _check_time(cloud: Cloud, brought: Authority) -> None:
    if brought.certificate.not_valid_after_utc.replace(tzinfo=None) < cloud.now() + LIFETIME:
        raise Invalid("The certificate of the authority is over, or will be within a week.")


def _held(conn: Connection) -> list[int]:
    """The numbers of all, which nobody changes until this transaction ends."""
    return list(conn.execute(_NUMBERS.with_for_update()).scalars())


def _stored(conn: Connection) -> Sequence[Row[Any]]:
    return conn.execute(sa.select(authority_table).order_by(authority_table.c.id)).all()


def _store(conn: Connection, cloud: Cloud, made: Authority) -> bool:
    """Keep it, if there is none; whether it is kept."""
    if _stored(conn):
        return False
    _insert(conn, cloud, made, 1)
    return True


def _insert(conn: Connection, cloud: Cloud, made: Authority, number: int) -> None:
    encrypted = cloud.secrets.encrypt(key_pem(made.key).encode()).decode()
    values = {"id": number, "certificate": made.pem, "key": encrypted, "created_at": cloud.now()}
    conn.execute(sa.insert(authority_table).values(values))


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
