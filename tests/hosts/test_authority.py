"""The authority: one for all replicas, its key a secret, and its certificates say who somebody is and no more."""

import asyncio
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from higgins.control.authority import new_authority, open_authority
from higgins.control.cloud import Cloud, WrongSecret
from higgins.control.identities import CONTROL_PLANE, fingerprint, new_key, requested_key, serial_of
from higgins.model.errors import Invalid
from higgins.store.database import open_store
from higgins.store.schema import authority as authority_table
from tests.hosts.conftest import SECRET

NOW = datetime(2026, 6, 1, 12)


def request_for(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    """A request that asks for much more than a host gets."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CONTROL_PLANE)])
    wish = x509.SubjectAlternativeName([x509.DNSName(CONTROL_PLANE)])
    authority = x509.BasicConstraints(ca=True, path_length=None)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(wish, critical=False)
        .add_extension(authority, critical=True)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_a_certificate_names_the_host_only_whatever_its_request_wished() -> None:
    authority = new_authority(NOW)
    signed = authority.issue("some-uuid", requested_key(request_for(new_key())), NOW, timedelta(days=7))
    signed.verify_directly_issued_by(authority.certificate)
    assert signed.subject.rfc4514_string() == "CN=some-uuid"
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["some-uuid"] and len(list(names)) == 1
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert signed.not_valid_after_utc.replace(tzinfo=None) == NOW + timedelta(days=7)
    assert len(serial_of(signed)) <= 40


def test_only_keys_that_are_strong_and_proven_are_signed() -> None:
    with pytest.raises(Invalid):
        requested_key("no request")
    with pytest.raises(Invalid):
        requested_key(request_for(rsa.generate_private_key(65537, 2048)))
    with pytest.raises(Invalid):
        requested_key(request_for(ec.generate_private_key(ec.SECP384R1())))
    sound = x509.load_pem_x509_csr(request_for(new_key()).encode())
    spoilt = bytearray(sound.public_bytes(serialization.Encoding.DER))
    spoilt[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(spoilt))
    with pytest.raises(Invalid):
        requested_key(forged.public_bytes(serialization.Encoding.PEM).decode())


async def test_replicas_that_begin_together_have_one_authority(any_cloud: Cloud, database: str) -> None:
    other_store = open_store(database)
    other = Cloud(other_store, SECRET)
    made = await asyncio.gather(*(open_authority(one) for one in (any_cloud, other, any_cloud, other)))
    await other_store.close()
    assert len({fingerprint(authority.pem) for authority in made}) == 1


async def test_the_key_of_the_authority_is_stored_encrypted_and_opens_with_the_secret_only(cloud: Cloud) -> None:
    await open_authority(cloud)
    stored = await cloud.store.read(lambda conn: conn.execute(sa.select(authority_table)).one())
    assert "PRIVATE" not in stored.key and "CERTIFICATE" in stored.certificate
    with pytest.raises(WrongSecret, match="secret key"):
        await open_authority(Cloud(cloud.store, Fernet.generate_key()))
