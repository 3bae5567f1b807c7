"""Streams of events: what comes is read once for all who follow, and nothing is lost or told twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from higgins.control import containers, events, feed
from higgins.control.cloud import Actor, Cloud
from higgins.model.resources import ChangeEvent
from tests.control.conftest import Host, draft

Stream = AsyncIterator[ChangeEvent | None]


@pytest.fixture
def loads() -> Iterator[list[str]]:
    """The statements that loaded events for the feed."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "event.id IN" in statement:
            seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


async def take(stream: Stream, count: int) -> list[ChangeEvent]:
    """The next so many events."""
    taken: list[ChangeEvent] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            if (one := await anext(stream)) is not None:
                taken.append(one)
    return taken


async def create(cloud: Cloud, actor: Actor, name: str) -> None:
    await containers.create(cloud, actor, draft(name, cpu=0.1, memory=4), run=True)


async def test_many_who_follow_cost_one_look(cloud: Cloud, host: Host, alice: Actor, loads: list[str]) -> None:
    since = await events.newest(cloud)
    streams = [events.stream(cloud, alice, since) for _ in range(20)]
    following = [asyncio.create_task(take(stream, 1)) for stream in streams]
    while len(cloud.store.wakeups.topics) == 0:  # noqa: ASYNC110 - until somebody listens
        await asyncio.sleep(0)
    await create(cloud, alice, "first")
    assert {one.name for (one,) in await asyncio.gather(*following)} == {"first"}
    loads.clear()
    following = [asyncio.create_task(take(stream, 1)) for stream in streams]
    await create(cloud, alice, "second")
    assert {one.name for (one,) in await asyncio.gather(*following)} == {"second"}
    assert len(loads) == 1
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]


async def test_what_was_and_what_comes_is_told_once_each(
    cloud: Cloud, host: Host, alice: Actor, bob: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAGE", 2)
    for number in range(5):
        await create(cloud, alice, f"old-{number}")
    await create(cloud, bob, "theirs")
    stream = events.stream(cloud, alice, 0)
    told = await take(stream, 1)
    await create(cloud, alice, "while-it-reads")
    told += await take(stream, 5)
    for number in range(3):
        await create(cloud, alice, f"new-{number}")
    told += await take(stream, 3)
    assert [one.name for one in told] == [
        *(f"old-{number}" for number in range(5)),
        "while-it-reads",
        *(f"new-{number}" for number in range(3)),
    ]
    again = events.stream(cloud, alice, told[6].id)
    assert [one.name for one in await take(again, 2)] == ["new-1", "new-2"]
    await create(cloud, alice, "last")
    assert [(await take(one, 1))[0].name for one in (stream, again)] == ["last", "last"]
    for one in (stream, again):
        await one.aclose()  # type: ignore[attr-defined]


async def test_who_is_too_slow_is_told_to_take_it_up_again(
    cloud: Cloud, host: Host, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_KEPT", 2)
    cloud.feed = feed.Feed(cloud.store, cloud.now)
    slow = events.stream(cloud, alice, 0)
    await create(cloud, alice, "first")
    await take(slow, 1)
    with cloud.feed.followed():
        for number in range(3):
            await create(cloud, alice, f"more-{number}")
        await cloud.feed.look()
        with pytest.raises(feed.Behind):
            await take(slow, 1)


async def test_nothing_is_kept_while_nobody_follows(cloud: Cloud, host: Host, alice: Actor) -> None:
    stream = events.stream(cloud, alice, 0)
    await create(cloud, alice, "first")
    await take(stream, 1)
    await stream.aclose()  # type: ignore[attr-defined]
    await create(cloud, alice, "unseen")
    since = await events.newest(cloud)
    later = events.stream(cloud, alice, since)
    following = asyncio.create_task(take(later, 1))
    await create(cloud, alice, "second")
    assert [one.name for one in await following] == ["second"]
    await later.aclose()  # type: ignore[attr-defined]


async def test_a_look_that_fails_is_told_to_all_who_wait_and_to_nobody_later(
    cloud: Cloud, host: Host, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("away"))

    stream = events.stream(cloud, alice, 0)
    await create(cloud, alice, "first")
    await take(stream, 1)
    with monkeypatch.context() as patch:
        patch.setattr(feed, "fresh", broken)
        for looked in await asyncio.gather(cloud.feed.look(), cloud.feed.look(), return_exceptions=True):
            assert isinstance(looked, Exception)
    await create(cloud, alice, "second")
    assert [one.name for one in await take(stream, 1)] == ["second"]
    await stream.aclose()  # type: ignore[attr-defined]
