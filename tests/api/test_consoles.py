"""Consoles: tokens, websockets, subprotocols, origins, sizes."""

import asyncio
import base64

import aiohttp
import pytest
from yarl import URL

from tests.api.conftest import Caller, Opener
from tests.api.host import FakeHost
from tests.api.test_actions import running


async def attached(api: Caller, host: FakeHost) -> tuple[str, URL]:
    """An interactive container's path, and the URL of a console to it."""
    one = await running(api, host, interactive=True, tty=True)
    answer = await api.get(f"{one}/attach")
    assert (answer.status, isinstance(answer.json, str)) == (200, True), answer.text
    return one, URL(answer.json)


async def test_an_attach_passes_on_what_is_typed_and_printed(api: Caller, host: FakeHost) -> None:
    one, url = await attached(api, host)
    assert (url.scheme, url.path, url.host) == ("ws", "/v1/consoles", "127.0.0.1")
    assert url.query["uuid"] == one.rpartition("/")[2]
    async with api.client.session.ws_connect(url, protocols=("binary", "base64")) as socket:
        assert socket.protocol == "binary"
        await socket.send_bytes(b"ls\n")
        assert await socket.receive_bytes() == b"> ls\n"
        assert (await api.post(f"{one}/resize?w=80&h=24")).text == "null"
        assert host.terminals[-1].size == (80, 24)
        await socket.send_bytes(b"exit")
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
    async with asyncio.timeout(30):
        await host.terminals[-1].left.wait()


async def test_base64_is_spoken_to_who_asks_for_it(api: Caller, host: FakeHost) -> None:
    _, url = await attached(api, host)
    async with api.client.session.ws_connect(url, protocols=("base64",)) as socket:
        await socket.send_str(base64.b64encode(b"\xff").decode())
        assert base64.b64decode(await socket.receive_str()) == b"> \xff"
        await socket.send_str("!!")
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.INTERNAL_ERROR)


@pytest.mark.parametrize("appended", [False, True], ids=["as told", "with the id appended"])
async def test_an_interactive_exec_is_a_console_of_its_own(api: Caller, host: FakeHost, appended: bool) -> None:
    one = await running(api, host)
    answer = await api.post(f"{one}/execute?command=sh&run=False&interactive=True")
    told = answer.json
    assert (answer.status, told["output"], told["exit_code"], len(told["exec_id"])) == (200, None, None, 64)
    sized = await api.post(f"{one}/execute_resize?exec_id={told['exec_id']}&w=100&h=30")
    assert (sized.status, sized.text) == (200, "null")
    again = f"&exec_id={told['exec_id']}" if appended else ""
    async with api.client.session.ws_connect(told["proxy_url"] + again) as socket:
        await socket.send_bytes(b"id")
        assert await socket.receive_bytes() == b"> id"
        assert host.terminals[-1].size == (100, 30)
    unknown = await api.post(f"{one}/execute_resize?exec_id={'0' * 64}&w=1&h=1")
    assert unknown.status == 404


async def test_a_token_opens_one_console_once(api: Caller, host: FakeHost) -> None:
    one, url = await attached(api, host)
    for wrong in (
        url.update_query(token="guess"),
        url.update_query(uuid="0a0a0a0a-0000-0000-0000-000000000000"),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await api.client.session.ws_connect(wrong)
        assert refused.value.status == 403
    _, fresh = await attached(api, host)
    async with api.client.session.ws_connect(fresh) as socket:
        await socket.send_bytes(b"x")
        await socket.receive_bytes()
    with pytest.raises(aiohttp.WSServerHandshakeError) as again:
        await api.client.session.ws_connect(fresh)
    assert again.value.status == 403
    assert (await api.get("/v1/consoles")).status == 400
    assert (await api.get(f"/v1/consoles?token=a&uuid={one}")).status == 400


@pytest.mark.parametrize(
    "origin, status",
    [
        (None, 101),
        ("http://127.0.0.1", 101),
        ("http://127.0.0.1:8080", 101),
        ("http://127.0.0.1:None", 101),  # so the real client writes it where the address has no port
        ("https://127.0.0.1", 403),
        ("http://evil.example", 403),
        ("https://horizon.example", 101),
        ("null", 403),
        ("http://[", 403),
    ],
)
async def test_a_web_page_of_somebody_else_is_refused(
    serve: Opener, host: FakeHost, origin: str | None, status: int
) -> None:
    api = await serve(allowed_origins=("https://horizon.example",))
    _, url = await attached(api, host)
    headers = {"Origin": origin} if origin else {}
    if status == 101:
        async with api.client.session.ws_connect(url, headers=headers):
            pass
        return
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await api.client.session.ws_connect(url, headers=headers)
    assert refused.value.status == status


async def test_attach_needs_an_interactive_container_that_runs(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    refused = await api.get(f"{one}/attach")
    assert (refused.status, refused.code) == (400, "container.no-interactive-flag")
    await api.post(f"{one}/stop")
    await host.settle()
    assert (await api.get(f"{one}/attach")).status == 409


async def test_consoles_count_among_the_streams_of_their_project(serve: Opener, host: FakeHost) -> None:
    api = await serve(streams_per_project=1)
    _, first = await attached(api, host)
    _, second = await attached(api, host)
    async with api.client.session.ws_connect(first) as socket:
        await socket.send_bytes(b"x")
        await socket.receive_bytes()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await api.client.session.ws_connect(second)
        assert refused.value.status == 429


async def test_a_server_that_stops_closes_its_consoles(api: Caller, host: FakeHost) -> None:
    _, url = await attached(api, host)
    async with api.client.session.ws_connect(url) as socket:
        await socket.send_bytes(b"x")
        await socket.receive_bytes()
        closing = asyncio.create_task(api.client.server.close())
        async with asyncio.timeout(30):
            assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            await closing
            await host.terminals[-1].left.wait()


async def test_consoles_are_where_the_operator_says(serve: Opener, host: FakeHost) -> None:
    api = await serve(console_url="wss://consoles.example:6784/")
    _, url = await attached(api, host)
    assert str(url).startswith("wss://consoles.example:6784/v1/consoles?token=")
