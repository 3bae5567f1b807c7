"""Hosts on other machines, as the control plane reaches them: ``HostStreams`` over HTTPS, both sides checked.

Any replica reaches any host: where it is, its row says; who it is, its certificate. Streams are passed on piece by
piece, at the speed of whoever reads them, so that they cost constant memory whatever their size.
"""

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import msgspec
import sqlalchemy as sa

from higgins.control import wire
from higgins.control.authority import (
    LIFETIME,
    Authorities,
    control_plane_identity,
    known_numbers,
    open_authorities,
)
from higgins.control.cloud import Cloud
from higgins.control.terminal_sockets import RemoteTerminal
from higgins.control.tls import CONNECT_TIMEOUT, Directory, Ends, new_session
from higgins.control.wire import STAT_HEADER, STREAMS, CutOff, ExecStart, FetchImage, Named, PullImage, Resize, error_in
from higgins.model.addresses import split_address
from higgins.model.errors import HostUnavailable
from higgins.model.images import FoundImage
from higgins.runtimes.base import Image, LogChunk, LogOptions, PathStat, Processes, RegistryAuth, Stats, Terminal
from higgins.runtimes.uploads import Upload
from higgins.store.schema import host as host_table

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two looks for hosts that were revoked while streams of theirs are open.
_RECHECK = 1.0
#: Seconds after which each replica trusts a new authority that one of them has heard of.
_SPREAD = 5.0
#: Seconds within which a host answers a question that needs no waiting.
_SOON = aiohttp.ClientTimeout(total=60, sock_connect=CONNECT_TIMEOUT)
_NETWORK = (aiohttp.ClientError, OSError, TimeoutError, CutOff)


class RemoteHosts:
    """All hosts that joined over the network. ``ends`` is how this process shows itself to them.

    ``authorities`` are those that hosts are told of; a new one is trusted here before that, as by other replicas.
    """

    def __init__(self, cloud: Cloud, authorities: Authorities) -> None:
        self.authorities = self._trusted = authorities
        self.ends = Ends(authorities.bundle, control_plane_identity(authorities.shown, cloud.now()), optional=True)
        self._tell_at = time.monotonic()
        self._cloud = cloud
        self._directory = Directory()
        self._session = new_session(None, self._directory)
        self._renew_at = time.monotonic() + LIFETIME.total_seconds() / 2
        self._open: dict[str, set[aiohttp.ClientResponse]] = {}

    async def dial(self, name: str) -> "RemoteStreams | None":
        """The way to a host by its name; None where it has no address or was revoked."""
        query = sa.select(host_table.c.uuid, host_table.c.tls_name, host_table.c.address).where(
            host_table.c.name == name, host_table.c.address.is_not(None), host_table.c.revoked_at.is_(None)
        )
        row = await self._cloud.store.read(lambda conn: conn.execute(query).one_or_none())
        if row is None:
            return None
        self._directory.places[row.tls_name], port = split_address(row.address)
        return RemoteStreams(self, self._session, name, row.uuid, f"https://{row.tls_name}:{port}{STREAMS}")

    async def run(self) -> None:
        """Until cancelled: end what is open to hosts that were revoked, and have a new certificate in time."""
        while True:
            await asyncio.sleep(_RECHECK)
            if await known_numbers(self._cloud) != self._trusted.numbers:
                self._trust(await open_authorities(self._cloud))
            elif time.monotonic() > self._renew_at:
                self._show()
            if time.monotonic() >= self._tell_at:
                self.authorities = self._trusted
            if self._open:
                await self._leave_revoked()

    def _trust(self, found: Authorities) -> None:
        """Trust these alone, at once; hosts hear of a new one when other replicas have had the time for the same."""
        more = found.shown.number == self._trusted.shown.number
        self._tell_at = time.monotonic() + (_SPREAD if more else 0)
        self._trusted = found
        LOG.info("The certificate authorities that are trusted are %s now.", found.fingerprints)
        self._show()

    def _show(self) -> None:
        """A new certificate of one's own."""
        self.ends.use(self._trusted.bundle, control_plane_identity(self._trusted.shown, self._cloud.now()))
        self._renew_at = time.monotonic() + LIFETIME.total_seconds() / 2

    async def _leave_revoked(self) -> None:
        asked = sorted(self._open)
        query = sa.select(host_table.c.uuid).where(host_table.c.uuid.in_(asked), host_table.c.revoked_at.is_(None))
        trusted = await self._cloud.store.read(lambda conn: set(conn.execute(query).scalars()))
        for uuid in set(asked) - trusted:
            for response in list(self._open.get(uuid, ())):
                LOG.warning("A stream of host %s ends: the host was revoked.", uuid)
                response.close()

    async def close(self) -> None:
        await self._session.close()

    @contextlib.contextmanager
    def holding(self, uuid: str, response: aiohttp.ClientResponse) -> Iterator[None]:
        """While this answer of a host is open."""
        self._open.setdefault(uuid, set()).add(response)
        try:
            yield
        finally:
            mine = self._open[uuid]
            mine.discard(response)
            if not mine:
                del self._open[uuid]


class RemoteStreams:
    """One host. Raises what the host's engine raises, and HostUnavailable where the host does not answer."""

    def __init__(self, hosts: RemoteHosts, session: aiohttp.ClientSession, name: str, uuid: str, base: str) -> None:
        self._hosts = hosts
        self._session = session
        self._name = name
        self._uuid = uuid
        self._base = base

    async def logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]:
        return self._logs(uuid, options)

    async def _logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]:
        async with self._response("POST", f"/containers/{uuid}/logs", data=wire.encode(options)) as response:
            chunks = wire.chunks(response.content)
            while (chunk := await self._next(chunks)) is not None:
                yield chunk

    async def exec(
        self, uuid: str, command: tuple[str, ...], *, tty: bool, stdin: bool, exec_id: str | None = None
    ) -> Terminal:
        return await self._terminal(f"/containers/{uuid}/exec", ExecStart(command, tty, stdin, exec_id))

    async def attach(self, uuid: str) -> Terminal:
        return await self._terminal(f"/containers/{uuid}/attach", ExecStart())

    async def resize(self, uuid: str, exec_id: str | None, width: int, height: int) -> bool:
        return await self._ask(f"/containers/{uuid}/resize", Resize(exec_id, width, height), bool, _SOON)

    async def _terminal(self, path: str, start: ExecStart) -> Terminal:
        try:
            socket = await self._session.ws_connect(
                f"{self._base}{path}",
                ssl=self._hosts.ends.client,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                max_msg_size=2 * wire.PIECE,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise HostUnavailable(f"Host {self._name} refuses to open a terminal.") from error
        except _NETWORK as error:
            raise self._unavailable() from error
        holding = contextlib.ExitStack()
        holding.enter_context(self._hosts.holding(self._uuid, socket._response))
        terminal = RemoteTerminal(socket, self._unavailable, holding)
        try:
            await terminal.open(start)
        except BaseException:
            await terminal.close()
            raise
        return terminal

    async def stats(self, uuid: str) -> Stats:
        return await self._ask(f"/containers/{uuid}/stats", None, Stats, _SOON)

    async def top(self, uuid: str, ps_args: str | None) -> Processes:
        return await self._ask(f"/containers/{uuid}/top", ps_args, Processes, _SOON)

    @asynccontextmanager
    async def get_archive(self, uuid: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        async with self._response("GET", f"/containers/{uuid}/archive", params={"path": path}) as response:
            told = base64.b64decode(response.headers[STAT_HEADER])
            pieces = self._pieces(response)
            try:
                yield msgspec.json.decode(told, type=PathStat), pieces
            finally:
                await pieces.aclose()

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        content = response.content.iter_any()
        while (piece := await self._next(content)) is not None:
            yield piece

    async def put_archive(self, uuid: str, path: str, data: AsyncIterator[bytes]) -> None:
        source = Upload(data)
        try:
            async with self._response(
                "PUT", f"/containers/{uuid}/archive", params={"path": path}, data=aiter(source)
            ) as response:
                await response.read()
        except HostUnavailable:
            if source.error is not None:  # not the host broke off, but who sent
                raise source.error from None
            raise

    async def commit(self, uuid: str, name: str) -> str:
        return await self._ask(f"/containers/{uuid}/commit", Named(name), str)

    @asynccontextmanager
    async def save(self, image: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._response("POST", "/images/save", data=wire.encode(Named(image))) as response:
            pieces = self._pieces(response)
            try:
                yield pieces
            finally:
                await pieces.aclose()

    async def pull(self, image: str, auth: RegistryAuth | None) -> Image:
        return await self._ask("/images/pull", PullImage(image, auth), Image)

    async def fetch(self, uuid: str, found: FoundImage) -> Image:
        return await self._ask("/images/fetch", FetchImage(uuid, found), Image)

    async def remove_image(self, name: str) -> None:
        await self._ask("/images/remove", Named(name), type(None))

    async def search(self, term: str) -> list[dict[str, Any]]:
        return await self._ask("/images/search", Named(term), list[dict[str, Any]], _SOON)

    async def _ask(self, path: str, question: Any, answer: type[T], timeout: aiohttp.ClientTimeout | None = None) -> T:
        more = {} if timeout is None else {"timeout": timeout}
        async with self._response("POST", path, data=wire.encode(question), **more) as response:
            try:
                return msgspec.json.decode(await response.read(), type=answer)
            except _NETWORK as error:
                raise self._unavailable() from error

    @asynccontextmanager
    async def _response(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that was not a refusal. Only what fails here is the host's: errors of the body pass through."""
        try:
            response = await self._session.request(
                method, f"{self._base}{path}", ssl=self._hosts.ends.client, allow_redirects=False, **more
            )
        except _NETWORK as error:
            raise self._unavailable() from error
        try:
            if response.status >= 400:
                raise await self._error(response)
            with self._hosts.holding(self._uuid, response):
                yield response
        finally:
            response.release()

    async def _error(self, response: aiohttp.ClientResponse) -> Exception:
        try:
            return await error_in(response)
        except _NETWORK:
            return self._unavailable()

    async def _next(self, items: AsyncIterator[T]) -> T | None:
        try:
            return await anext(items, None)
        except _NETWORK as error:
            raise self._unavailable() from error

    def _unavailable(self) -> HostUnavailable:
        return HostUnavailable(f"Host {self._name} does not answer now; try again later.")
