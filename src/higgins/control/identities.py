"""Keys and certificates as both sides handle them; who signs them is in ``authority``."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec import Struct

from higgins.model.errors import Invalid

#: The name that every certificate of the control plane has, whatever its addresses; no host is ever called so.
CONTROL_PLANE = "higgins-control-plane"


class Identity(Struct, frozen=True):
    """A key and its certificate, in PEM, for one end of a connection."""

    certificate: str
    key: str


def fingerprint(pem: str) -> str:
    """SHA-256 of a certificate, in hexadecimal. Raises ValueError for what is no certificate."""
    return _fingerprint(x509.load_pem_x509_certificate(pem.encode()))


def fingerprints(pem: str) -> str:
    """Those of all certificates in a text, in an order that does not depend on theirs."""
    each = x509.load_pem_x509_certificates(pem.encode())
    return ",".join(sorted(map(_fingerprint, each)))


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def serial_of(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def requested_key(request: str) -> ec.EllipticCurvePublicKey:
    """The key of a certificate request (PEM); whatever else it asks for is not looked at. Raises Invalid."""
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        sound = asked.is_signature_valid
        key = asked.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("The certificate request cannot be read.") from error
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid("A certificate request is to be for a P-256 key, and signed with it.")
    return key
