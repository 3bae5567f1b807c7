"""Events as a stream, how many streams a project may have, and that a server which stops ends them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from higgins.api.streams import with_pauses
from higgins.model.errors import HostUnavailable
from tests.api.conftest import Caller, Opener
from tests.api.host import FakeHost


async def next_event(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The next event; comments are passed over."""
    event: dict[str, str] = {}
    async with asyncio.timeout(30):
        while True:
            line = (await response.content.readline()).decode().rstrip("\n")
            if not line and event:
                return event
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = value


def events(api: Caller, path: str = "/v1/events", **headers: str) -> Any:
    new = api.at("1.42")
    return api.client.session.get(api.client.make_url(path), headers=new.headers() | headers)


async def test_changes_are_told_to_the_project_that_they_belong_to(api: Caller, host: FakeHost) -> None:
    assert (await api.at("1.41").get("/v1/events")).status == 406
    async with events(api) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert (await response.content.readline()).startswith(b":")
        await api.by("bob").create(name="theirs")
        made = await api.create(name="ours")
        first = await next_event(response)
        assert first["event"] == "container.status"
        told = msgspec.json.decode(first["data"])
        assert (told["name"], told["status"], told["container_uuid"]) == ("ours", "Creating", made["uuid"])
        assert first["id"] == str(told["id"])
        await host.settle()
        assert msgspec.json.decode((await next_event(response))["data"])["status"] == "Running"


async def test_a_stream_is_taken_up_where_it_broke_off(api: Caller, host: FakeHost) -> None:
    await api.create(name="one")
    async with events(api, "/v1/events?since=0") as response:
        first = await next_event(response)
    await host.settle()
    for again in (events(api, **{"Last-Event-ID": first["id"]}), events(api, f"/v1/events?since={first['id']}")):
        async with again as response:
            assert msgspec.json.decode((await next_event(response))["data"])["status"] == "Running"
    bad = await api.at("1.42").get("/v1/events", headers={"Last-Event-ID": "x"})
    assert bad.status == 400


async def test_all_projects_events_are_for_those_whom_the_policy_lets(api: Caller, host: FakeHost) -> None:
    async with events(api, "/v1/events?all_projects=true") as response:
        assert response.status == 403
    await api.create()
    async with events(api.by("admin"), "/v1/events?all_projects=true&since=0") as response:
        assert msgspec.json.decode((await next_event(response))["data"])["project_id"] == "wonder"


async def test_a_project_has_so_many_streams_and_no_more(serve: Opener, host: FakeHost) -> None:
    api = await serve(streams_per_project=1)
    async with events(api) as response:
        await response.content.readline()
        async with events(api) as refused:
            assert refused.status == 429
            assert (await refused.json())["errors"][0]["code"] == "container.too-many-streams"
        async with events(api.by("bob")) as other:
            assert other.status == 200
    # One that was left is free again, as soon as the server sees it.
    async with asyncio.timeout(30):
        while True:
            await api.create(name="wake")
            async with events(api) as response:
                if response.status == 200:
                    break
            await asyncio.sleep(0.05)


async def test_a_silent_source_is_paused_and_left_in_order() -> None:
    left = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
            yield 2
        finally:
            left.set()

    seen = []
    paused = with_pauses(source(), 0.001)
    async for item in paused:
        seen.append(item)
        if len(seen) == 3:
            break
    await paused.aclose()  # type: ignore[attr-defined]
    assert seen == [1, None, None]
    assert left.is_set()


async def test_a_source_that_fails_says_so() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise HostUnavailable("gone")

    with pytest.raises(HostUnavailable):
        assert [item async for item in with_pauses(source(), 30)] == [1]


async def test_a_server_that_stops_waits_for_no_listener(serve: Opener, host: FakeHost) -> None:
    api = await serve()
    response = await events(api)
    await response.content.readline()
    async with asyncio.timeout(30):
        await api.client.server.close()
    response.close()
