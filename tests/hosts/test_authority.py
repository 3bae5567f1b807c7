"""The authority: one for all replicas, its key a secret, and its certificates say who somebody is and no more."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from higgins.control.authority import (
    Authority,
    adopt,
    control_plane_identity,
    new_authority,
    open_authority,
    read_authority,
)
from higgins.control.cloud import Cloud, WrongSecret
from higgins.control.identities import CONTROL_PLANE, fingerprint, key_pem, new_key, requested_key, serial_of
from higgins.model.errors import Conflict, Invalid
from higgins.store.database import open_store
from higgins.store.schema import authority as authority_table
from tests.hosts.conftest import SECRET
from tests.hosts.places import RemoteHost, Replica
from tests.hosts.streams import ScriptedStreams

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


async def test_an_operators_own_authority_is_taken_before_there_is_one_and_not_after(cloud: Cloud) -> None:
    brought = operators_authority(cloud.now())
    await adopt(cloud, brought)
    assert fingerprint((await open_authority(cloud)).pem) == fingerprint(brought.pem)
    with pytest.raises(Conflict, match="already"):
        await adopt(cloud, operators_authority(cloud.now()))


async def test_hosts_join_under_an_operators_intermediate_authority(
    stack: AsyncExitStack, cloud: Cloud, tmp_path: Path
) -> None:
    await adopt(cloud, operators_authority(cloud.now()))
    replica = await Replica.open(stack, cloud)
    host = await RemoteHost.open(stack, replica, tmp_path / "one", ScriptedStreams())
    far = await cloud.streams(host.name)
    assert (await far.stats("any")).cpu_percent == 1.5


def test_what_is_no_authority_is_not_taken_for_one() -> None:
    authority = new_authority(NOW)
    key = key_pem(new_key())
    with pytest.raises(Invalid, match="cannot be read"):
        read_authority(b"no certificate", key.encode())
    with pytest.raises(Invalid, match="does not belong"):
        read_authority(authority.pem.encode(), key.encode())
    identity = control_plane_identity(authority, NOW)
    with pytest.raises(Invalid, match="may not sign"):
        read_authority(identity.certificate.encode(), identity.key.encode())


async def test_an_authority_that_is_over_is_not_taken(cloud: Cloud) -> None:
    with pytest.raises(Invalid, match="over"):
        await adopt(cloud, operators_authority(cloud.now() - timedelta(days=3650)))


def operators_authority(now: datetime) -> Authority:
    """One with an RSA key, signed by a root of which Higgins knows nothing."""
    root_key, key = new_key(), rsa.generate_private_key(65537, 2048)
    usage = {name: name == "key_cert_sign" for name in _USAGES}
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hosts of Example")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example Root")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return read_authority(pem, key_pem(key).encode())


_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


async def test_the_key_of_the_authority_is_stored_encrypted_and_opens_with_the_secret_only(cloud: Cloud) -> None:
    await open_authority(cloud)
    stored = await cloud.store.read(lambda conn: conn.execute(sa.select(authority_table)).one())
    assert "PRIVATE" not in stored.key and "CERTIFICATE" in stored.certificate
    with pytest.raises(WrongSecret, match="secret key"):
        await open_authority(Cloud(cloud.store, Fernet.generate_key()))
