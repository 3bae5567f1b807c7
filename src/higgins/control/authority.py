"""The certificate authority: it says which host is which, and which process is the control plane.

One key for the whole cloud, in the database, encrypted with the secret key that all replicas share. It is Higgins' own,
made by whoever needs it first, or one that an operator brought before that. A certificate says who somebody is and no
more: the subject of a host's is the host's uuid, that of the control plane is a reserved name. Neither names an
address, so machines may move.
"""

import contextlib
from datetime import datetime, timedelta

import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud, WrongSecret
from higgins.control.identities import CONTROL_PLANE, Identity, key_pem, new_key
from higgins.model.errors import Conflict, Invalid
from higgins.store.schema import authority as authority_table

#: How long certificates hold. A new one is fetched when half of that is over.
LIFETIME = timedelta(days=7)
_AUTHORITY_LIFETIME = timedelta(days=3650)
#: How far the clocks of two machines may differ.
_SKEW = timedelta(minutes=5)

#: What an authority may sign with: Higgins' own is an EC key.
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Authority:
    """The authority while it is in use."""

    def __init__(self, certificate: x509.Certificate, key: Key) -> None:
        self.certificate = certificate
        self.key = key

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


async def open_authority(cloud: Cloud) -> Authority:
    """The authority of this cloud, made if there is none. Raises WrongSecret."""
    stored = await cloud.store.read(_stored)
    if stored is None:
        made = new_authority(cloud.now())
        with contextlib.suppress(exc.IntegrityError):  # another replica was faster: its authority is the one
            await cloud.store.write(lambda conn: _store(conn, cloud, made))
        stored = await cloud.store.read(_stored)
    if stored is None:
        raise RuntimeError("the authority was stored and is not there")
    certificate, encrypted = stored
    try:
        key = cloud.secrets.decrypt(encrypted.encode())
    except InvalidToken as error:
        raise WrongSecret(
            "The certificate authority in the database was encrypted with another secret key: all replicas of the "
            "control plane need the same 'secret.key' in their data directories."
        ) from error
    return read_authority(certificate.encode(), key)


def read_authority(certificate: bytes, key: bytes) -> Authority:
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
    return Authority(shown, secret)


async def adopt(cloud: Cloud, brought: Authority) -> None:
    """Make an operator's authority the one of this cloud. Raises Conflict where there is one already, Invalid."""
    if brought.certificate.not_valid_after_utc.replace(tzinfo=None) < cloud.now() + LIFETIME:
        raise Invalid("The certificate of the authority is over, or will be within a week.")
    try:
        stored = await cloud.store.write(lambda conn: _store(conn, cloud, brought))
    except exc.IntegrityError:
        stored = False  # somebody was faster
    if not stored:
        raise Conflict("This cloud has an authority already, which its hosts trust: another one cannot replace it.")


def _stored(conn: Connection) -> tuple[str, str] | None:
    row = conn.execute(sa.select(authority_table.c.certificate, authority_table.c.key)).one_or_none()
    return None if row is None else (row.certificate, row.key)


def _store(conn: Connection, cloud: Cloud, made: Authority) -> bool:
    """Keep it, if there is none; whether it is kept."""
    if _stored(conn) is not None:
        return False
    encrypted = cloud.secrets.encrypt(key_pem(made.key).encode()).decode()
    values = {"id": 1, "certificate": made.pem, "key": encrypted, "created_at": cloud.now()}
    conn.execute(sa.insert(authority_table).values(values))
    return True


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
