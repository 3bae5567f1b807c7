"""Consoles: a websocket to a container's terminal or to a command's, opened once with a token."""

import asyncio
import base64
import binascii
import logging
import re
from socket import IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from higgins.api import call as calls
from higgins.api.call import ApiSettings
from higgins.api.streams import OpenStreams
from higgins.control import consoles, containers
from higgins.control.cloud import Actor, Cloud
from higgins.model.errors import Forbidden, HigginsError, Invalid, NotFound
from higgins.runtimes.base import Terminal

LOG = logging.getLogger(__name__)

#: What clients of Zun offer: frames of bytes, or of base64 text.
PROTOCOLS = ("binary", "base64")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
_LARGEST_FRAME = 1024 * 1024


def check_origin(request: web.Request, settings: ApiSettings) -> None:
    """Refuse a web page of somebody else: the Origin is to be this host's, or one the operator allows.

    A client that is no browser sends no Origin and is let through; the token is what it needs.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        return
    try:
        told = urlsplit(origin)
        name = told.hostname
    except ValueError:
        name = None
    if name is None:
        raise Forbidden("The Origin header cannot be read.")
    if origin.rstrip("/") in settings.allowed_origins or name in settings.allowed_origins:
        return
    secure = (settings.console_url or calls.base_url(request, settings)).startswith(("wss:", "https:"))
    here = urlsplit(f"//{calls.host(request)}").hostname
    if name != here or told.scheme != ("https" if secure else "http"):
        raise Forbidden("This origin may not open consoles.")


async def open_console(
    request: web.Request, cloud: Cloud, settings: ApiSettings, streams: OpenStreams
) -> web.StreamResponse:
    """Redeem the token and pass on what is typed and what is printed, until either side ends."""
    check_origin(request, settings)
    query = request.query
    token, uuid, exec_id = query.get("token", ""), query.get("uuid", ""), query.get("exec_id")
    if not _WORD.fullmatch(token) or not _WORD.fullmatch(uuid) or not _WORD.fullmatch(exec_id or "none"):
        raise Invalid("A console is opened with 'token' and 'uuid', and with 'exec_id' where there is one.")
    # No pings: Zun's client answers one, and then reads nothing that is typed until something is printed.
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=_LARGEST_FRAME)
    if not socket.can_prepare(request):
        raise Invalid("A console is a websocket: the request is to be an upgrade.")
    with streams.one(await _project(cloud, uuid)):
        async with consoles.redeem(cloud, token, uuid, exec_id) as terminal:
            await socket.prepare(request)
            _notice_silence(request)
            await _pump(socket, terminal, as_text=socket.ws_protocol == "base64")
    return socket


async def _project(cloud: Cloud, uuid: str) -> str:
    """Whose container it is, before anybody is known; raises as a wrong token does."""
    nobody = Actor(user_id="", project_id="", is_admin=True)
    try:
        return (await containers.get(cloud, nobody, uuid)).project_id
    except NotFound:
        raise Forbidden("The token is not valid, was used already, or is too old.") from None


def _notice_silence(request: web.Request) -> None:
    """Let the kernel ask whether the peer is still there, where nothing is said for a minute."""
    socket = None if request.transport is None else request.transport.get_extra_info("socket")
    if socket is not None:
        socket.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        for option, value in ((TCP_KEEPIDLE, 60), (TCP_KEEPINTVL, 15), (TCP_KEEPCNT, 4)):
            socket.setsockopt(IPPROTO_TCP, option, value)


async def _pump(socket: web.WebSocketResponse, terminal: Terminal, *, as_text: bool) -> None:
    printed = asyncio.create_task(_print(socket, terminal, as_text))
    typed = asyncio.create_task(_type(socket, terminal, as_text))
    code = aiohttp.WSCloseCode.OK
    try:
        done, _ = await asyncio.wait((printed, typed), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except HigginsError as error:
        LOG.info("a console ended: %s", error)
        code = aiohttp.WSCloseCode.INTERNAL_ERROR
    except ConnectionError:
        LOG.debug("the caller of a console hung up")
    finally:
        for task in (printed, typed):
            task.cancel()
        await asyncio.gather(printed, typed, return_exceptions=True)
        await socket.close(code=code)


async def _print(socket: web.WebSocketResponse, terminal: Terminal, as_text: bool) -> None:
    cut = b""
    while (chunk := await terminal.read()) is not None:
        data, cut = whole_characters(cut + chunk.data)
        if data:
            await _send(socket, data, as_text)
    if cut:
        await _send(socket, cut, as_text)


async def _send(socket: web.WebSocketResponse, data: bytes, as_text: bool) -> None:
    if as_text:
        await socket.send_str(base64.b64encode(data).decode())
    else:
        await socket.send_bytes(data)


def whole_characters(data: bytes) -> tuple[bytes, bytes]:
    """What can be sent, and the start of a UTF-8 character at its end that is to wait for the rest of it.

    Zun's client reads each frame as text of its own, and ends where a character is cut.
    """
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needs = 1 if byte < 0xC2 or byte > 0xF4 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return (data[:-back], data[-back:]) if needs > back else (data, b"")
    return data, b""


async def _type(socket: web.WebSocketResponse, terminal: Terminal, as_text: bool) -> None:
    async for message in socket:
        if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            break
        data = message.data.encode() if isinstance(message.data, str) else message.data
        if as_text:
            try:
                data = base64.b64decode(data, validate=True)
            except binascii.Error:
                raise Invalid("A frame was no base64.") from None
        await terminal.write(data)
