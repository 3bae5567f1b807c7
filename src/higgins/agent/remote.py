"""The control plane on another machine, as this host reaches it: ``ControlLink`` over HTTPS, both sides checked.

Nothing is retried here: the agent's own loops do that, at a growing distance, and know what is still worth saying.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from msgspec import structs
from yarl import URL

from higgins.agent.certificates import Certificates
from higgins.control.identities import CONTROL_PLANE
from higgins.control.link import Assignments, ControlUnavailable, HostReport, Observation
from higgins.control.tls import CONNECT_TIMEOUT, Directory, new_session
from higgins.control.wire import (
    AGENTS,
    AUTHORITIES_HEADER,
    Joined,
    Observations,
    Registered,
    Renewal,
    Uuids,
    encode,
    error_in,
)
from higgins.images.base import Parts
from higgins.model.errors import HigginsError, Unauthorized

_NETWORK = (aiohttp.ClientError, OSError, TimeoutError)

#: Seconds that an answer may take beyond what the control plane was asked to wait.
_PATIENCE = 30.0


class CertificateRefused(Unauthorized):
    """The control plane does not take this machine for a host (any more)."""


class RemoteLink:
    """The way to the control plane of ``certificates``. Close it after use."""

    def __init__(self, certificates: Certificates, address: str) -> None:
        """``address`` is where this host serves its streams (host:port)."""
        self._url = URL(certificates.membership.url)
        self._name = certificates.membership.name
        self._address = address
        self._certificates = certificates
        directory = Directory()
        directory.places[CONTROL_PLANE] = self._url.host or ""
        self._base = URL.build(scheme="https", host=CONTROL_PLANE, port=self._url.port, path=AGENTS)
        self._session = new_session(None, directory)

    async def close(self) -> None:
        await self._session.close()

    async def register(self, report: HostReport) -> int:
        body = encode(structs.replace(report, name=self._name, address=self._address))
        async with self._answer("POST", "register", data=body) as response:
            return msgspec.json.decode(await response.read(), type=Registered).host

    async def assignments(self, host: int, since: int, timeout: float) -> Assignments | None:
        query = {"since": str(since), "timeout": str(timeout)}
        async with self._answer("GET", "assignments", params=query, seconds=timeout + _PATIENCE) as response:
            if response.status == 204:
                return None
            return msgspec.json.decode(await response.read(), type=Assignments)

    async def observe(self, host: int, observations: list[Observation]) -> None:
        async with self._answer("POST", "observations", data=encode(Observations(observations))):
            pass

    async def volumes_deleted(self, host: int, uuids: list[str]) -> None:
        async with self._answer("POST", "volumes_deleted", data=encode(Uuids(uuids))):
            pass

    async def image(self, host: int, uuid: str, timeout: float) -> Parts | None:
        call, query = f"containers/{uuid}/image", {"timeout": str(timeout)}
        async with self._answer("GET", call, params=query, seconds=timeout + _PATIENCE) as response:
            if response.status == 204:
                return None
            return msgspec.json.decode(await response.read(), type=Parts)

    @asynccontextmanager
    async def layer(self, host: int, uuid: str, digest: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._answer("GET", f"containers/{uuid}/layers/{digest}", seconds=None) as response:
            yield response.content.iter_any()

    async def renew(self, request: str) -> Joined:
        """A certificate for the key of a certificate request (PEM), and whom to trust from now on."""
        async with self._answer("POST", "renew", data=encode(Renewal(request, bundle=True))) as response:
            return msgspec.json.decode(await response.read(), type=Joined)

    @asynccontextmanager
    async def _answer(
        self, method: str, call: str, *, seconds: float | None = _PATIENCE, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that was not a refusal, within so many seconds; None: for as long as something comes of it.

        Raises ControlUnavailable, CertificateRefused, or what was told.
        """
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT, sock_read=seconds or _PATIENCE)
        context = self._certificates.ends.client
        try:
            async with self._session.request(
                method, self._base / call, ssl=context, timeout=timeout, allow_redirects=False, **more
            ) as response:
                if (told := response.headers.get(AUTHORITIES_HEADER)) is not None:
                    self._certificates.hear(told)
                if response.status >= 400:
                    raise await self._refusal(response)
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            raise ControlUnavailable(
                f"The server at {self._url} is not the control plane that this host joined, or that has another "
                "authority since this host was away: then it joins again."
            ) from error
        except _NETWORK as error:
            raise ControlUnavailable(
                f"The control plane at {self._url} does not answer: {error or type(error).__name__}"
            ) from error
        except msgspec.MsgspecError as error:
            raise ControlUnavailable(f"The control plane at {self._url} cannot be understood: {error}") from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> HigginsError:
        error = await error_in(response)
        if error.code == "not-a-host":
            return CertificateRefused(f"The control plane at {self._url} refuses this host. {error}")
        return error
