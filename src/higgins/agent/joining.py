"""How this machine becomes a host: with a token, once.

The token tells the fingerprint of the authority. So the control plane is known before anything is said to it: its
authority's certificate is fetched without trust, compared, and then trusted alone; only then the token is sent.
"""

import ssl
from pathlib import Path

import aiohttp
import msgspec
from yarl import URL

from higgins.agent import certificates
from higgins.agent.certificates import Membership
from higgins.control.identities import CONTROL_PLANE, Identity, fingerprint
from higgins.control.tls import Directory, client_context, new_session
from higgins.control.wire import AGENTS, AuthorityCertificate, Joined, JoinRequest, encode, error_in, split_token
from higgins.model.errors import HigginsError

_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
_NETWORK = (aiohttp.ClientError, OSError, TimeoutError)

#: Where a control plane serves agents if its URL names no port.
PORT = 9518


class CannotJoin(HigginsError):
    """Joining failed; the sentence is for the operator."""


def control_url(text: str) -> URL:
    """The URL of a control plane, checked and with its port. Raises CannotJoin."""
    try:
        url = URL(text)
        port = url.explicit_port or PORT
    except ValueError as error:
        raise CannotJoin(f"{text!r} is no URL: {error}") from error
    if url.scheme != "https" or not url.host or url.path not in ("", "/") or url.query_string or url.user:
        raise CannotJoin(f"{text!r} is to be of the form https://HOST:PORT, where the control plane serves agents.")
    return URL.build(scheme="https", host=url.host, port=port)


async def join(text: str, token: str, *, name: str, zone: str, data: Path) -> Membership:
    """Join the control plane at a URL; what then lies in ``data`` makes this machine a host. Raises CannotJoin."""
    url = control_url(text)
    try:
        secret, wanted = split_token(token)
    except ValueError as error:
        raise CannotJoin(str(error)) from error
    directory = Directory()
    directory.places[CONTROL_PLANE] = url.host or ""
    base = URL.build(scheme="https", host=CONTROL_PLANE, port=url.port, path=AGENTS)
    authority = await _authority(base, directory, url)
    shown = _fingerprint(authority, url)
    if shown != wanted:
        raise CannotJoin(
            f"The control plane at {url} has another authority than the one that the token is of: it shows "
            f"{shown}, the token says {wanted}. The token was not sent."
        )
    key, request = certificates.new_request(name)
    asked = JoinRequest(token=secret, name=name, zone=zone, request=request, bundle=True)
    joined = await _send(base, directory, authority, asked, url)
    membership = Membership(
        url=str(url),
        uuid=joined.uuid,
        name=joined.name,
        authority=joined.authorities or authority,
        identity=Identity(certificate=joined.certificate, key=key),
    )
    certificates.write(data, membership)
    return membership


async def _authority(base: URL, directory: Directory, url: URL) -> str:
    """The authority that the other side says is its own; not to be believed before it is compared."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with (
            new_session(context, directory) as session,
            session.get(base / "authority", timeout=_TIMEOUT, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise CannotJoin(f"{url} does not serve agents of Higgins: it answers with status {response.status}.")
            body = await response.content.read(2**20)
        return msgspec.json.decode(body, type=AuthorityCertificate).certificate
    except _NETWORK as error:
        raise CannotJoin(f"The control plane at {url} does not answer: {error or type(error).__name__}") from error
    except msgspec.MsgspecError as error:
        raise CannotJoin(f"{url} does not serve agents of Higgins.") from error


def _fingerprint(authority: str, url: URL) -> str:
    try:
        return fingerprint(authority)
    except ValueError as error:
        raise CannotJoin(f"{url} does not serve agents of Higgins: what it shows is no certificate.") from error


async def _send(base: URL, directory: Directory, authority: str, asked: JoinRequest, url: URL) -> Joined:
    try:
        async with (
            new_session(client_context(authority), directory) as session,
            session.post(base / "join", data=encode(asked), timeout=_TIMEOUT, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise CannotJoin(str(await error_in(response)))
            return msgspec.json.decode(await response.read(), type=Joined)
    except aiohttp.ClientConnectorCertificateError as error:
        raise CannotJoin(f"The server at {url} is not the control plane that the token is of.") from error
    except _NETWORK as error:
        raise CannotJoin(f"The control plane at {url} broke off: {error or type(error).__name__}") from error
