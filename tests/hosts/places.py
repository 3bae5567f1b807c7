"""A control plane and hosts that talk over real TLS on loopback."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from yarl import URL

from higgins.agent import joining as agent_joining
from higgins.agent.certificates import Certificates
from higgins.agent.remote import RemoteLink
from higgins.agent.serve import open_server
from higgins.api.agents.listener import open_listener
from higgins.control import joining, wire
from higgins.control.authority import Authority, open_authorities
from higgins.control.background import background
from higgins.control.cloud import Cloud
from higgins.control.identities import CONTROL_PLANE, Identity, fingerprint, key_pem, new_key
from higgins.control.link import HostReport, HostStreams
from higgins.control.remote import RemoteHosts
from higgins.control.tls import Directory, client_context, new_session
from higgins.model.resources import HostInfo

PATIENCE = 30.0


async def eventually(claim: Callable[[], bool]) -> None:
    """Until the claim holds."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + PATIENCE
    while not claim():
        assert clock() < deadline, "it never came true"
        await asyncio.sleep(0.02)


def report(name: str, address: str = "127.0.0.1:1") -> HostReport:
    return HostReport(
        name=name, zone="nova", cpus=8, memory=8192, disk=100, info=HostInfo(runtimes=("runc",)), address=address
    )


class Replica:
    """One process of the control plane, as far as hosts are concerned."""

    def __init__(self, cloud: Cloud, remote: RemoteHosts, port: int) -> None:
        self.cloud = cloud
        self.remote = remote
        self.port = port
        self.url = f"https://127.0.0.1:{port}"

    @classmethod
    async def open(cls, stack: AsyncExitStack, cloud: Cloud, port: int = 0) -> "Replica":
        remote = RemoteHosts(cloud, await open_authorities(cloud))
        stack.push_async_callback(remote.close)
        cloud.dial = remote.dial
        await stack.enter_async_context(background(remote.run))
        _, port = await open_listener(stack, cloud, remote, f"127.0.0.1:{port}")
        return cls(cloud, remote, port)

    @property
    def authority(self) -> Authority:
        return self.remote.authorities.shown

    async def token(self, seconds: float = 600) -> str:
        secret = await joining.new_token(self.cloud, timedelta(seconds=seconds))
        return wire.token_text(secret, fingerprint(self.authority.pem))


class RemoteHost:
    """A machine that has joined: its certificates, its link, and the streams that it serves."""

    def __init__(self, name: str, data: Path, certificates: Certificates, link: RemoteLink, address: str) -> None:
        self.name = name
        self.data = data
        self.certificates = certificates
        self.link = link
        self.address = address
        self.number = 0

    @property
    def uuid(self) -> str:
        return self.certificates.membership.uuid

    @classmethod
    async def open(cls, stack: AsyncExitStack, replica: Replica, data: Path, streams: HostStreams) -> "RemoteHost":
        """Join under the directory's name, serve ``streams``, and register."""
        membership = await agent_joining.join(
            replica.url, await replica.token(), name=data.name, zone="nova", data=data
        )
        certificates = Certificates(data, membership)
        _, port = await open_server(stack, streams, certificates.ends, "127.0.0.1:0")
        address = f"127.0.0.1:{port}"
        link = RemoteLink(certificates, address)
        stack.push_async_callback(link.close)
        host = cls(data.name, data, certificates, link, address)
        host.number = await link.register(report(data.name))
        return host


class Caller:
    """Anybody who connects to a listener on loopback with whatever certificate they have, or none."""

    def __init__(self, port: int, authority: str, identity: Identity | None, name: str = CONTROL_PLANE) -> None:
        directory = Directory()
        directory.places[name] = "127.0.0.1"
        self._base = URL.build(scheme="https", host=name, port=port)
        self._session = new_session(client_context(authority, identity), directory)

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def status(self, method: str, path: str, **more: Any) -> int | None:
        """The status of the answer; None where the connection was refused."""
        try:
            async with self._session.request(method, self._base.join(URL(path)), **more) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, OSError):
            return None

    async def json(self, method: str, path: str, **more: Any) -> Any:
        async with self._session.request(method, self._base.join(URL(path)), **more) as response:
            return await response.json()


def identity_by(authority: Authority, name: str, cloud: Cloud, *, age: float = 0, lifetime: float = 3600) -> Identity:
    """A key with a certificate for any name, made ``age`` seconds ago for ``lifetime`` seconds."""
    key = new_key()
    signed = authority.issue(name, key.public_key(), cloud.now() - timedelta(seconds=age), timedelta(seconds=lifetime))
    return Identity(signed.public_bytes(Encoding.PEM).decode(), key_pem(key))


def serial_in(certificate: str) -> str:
    """The serial number of a certificate in PEM."""
    return f"{x509.load_pem_x509_certificate(certificate.encode()).serial_number:x}"
