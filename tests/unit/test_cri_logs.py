"""The log format of CRI engines, and files that are read, followed and turned over."""

import asyncio
import tempfile
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from higgins.runtimes.base import LogChunk, LogOptions
from higgins.runtimes.cri import logs
from higgins.runtimes.cri.logs import Entry, Renderer, last_lines, merged, moment, parse, wanted

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
streams = st.sampled_from([1, 2])
lines = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"_"))
#: What a container writes: lines to either stream.
written = st.lists(st.tuples(streams, lines), max_size=20)


def stamp(seconds: int) -> bytes:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z").encode()


def entries(output: list[tuple[int, bytes]], part: int = 7) -> list[Entry]:
    """How an engine logs it, with a buffer of ``part`` bytes: a second for each line."""
    made = []
    for second, (stream, line) in enumerate(output):
        pieces = [line[at : at + part] for at in range(0, len(line), part)] or [b""]
        made += [Entry(stamp(second), stream, piece is pieces[-1], piece) for piece in pieces]
    return made


def as_written(entry: Entry) -> bytes:
    return b" ".join(
        (entry.time, b"stdout" if entry.stream == 1 else b"stderr", b"F" if entry.ends_line else b"P", entry.content)
    )


def text(chunks: list[LogChunk], stream: int) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.stream == stream)


def render(found: list[Entry], *, timestamps: bool = False) -> list[LogChunk]:
    renderer = Renderer(timestamps)
    return [renderer.chunk(entry) for entry in found]


@given(written)
def test_a_parsed_line_is_what_was_logged(output: list[tuple[int, bytes]]) -> None:
    for entry in entries(output):
        assert parse(as_written(entry)) == entry


@given(st.binary(max_size=60))
def test_what_a_crash_left_is_no_entry_or_one_and_never_an_error(line: bytes) -> None:
    found = parse(line)
    assert found is None or found.stream in (1, 2)


@given(written)
def test_rendering_gives_each_stream_back_as_it_was_written(output: list[tuple[int, bytes]]) -> None:
    chunks = render(entries(output))
    for stream in (1, 2):
        assert text(chunks, stream) == b"".join(line + b"\n" for at, line in output if at == stream)
        assert text(merged(chunks), stream) == text(chunks, stream)


@given(written)
def test_a_timestamp_stands_before_each_line_and_in_none(output: list[tuple[int, bytes]]) -> None:
    chunks = render(entries(output), timestamps=True)
    for stream in (1, 2):
        expected = [(second, line) for second, (at, line) in enumerate(output) if at == stream]
        assert text(chunks, stream) == b"".join(stamp(second) + b" " + line + b"\n" for second, line in expected)


@given(written, st.integers(0, 25))
def test_the_last_lines_are_whole_and_as_many_as_asked_for(output: list[tuple[int, bytes]], count: int) -> None:
    chunks = render(list(last_lines(lambda: entries(output), count)))
    last = output[-count:] if count else []
    for stream in (1, 2):
        assert text(chunks, stream) == b"".join(line + b"\n" for at, line in last if at == stream)


@given(written, st.integers(0, 25), st.booleans(), st.booleans())
def test_wanted_are_the_asked_streams_since_the_asked_moment(
    output: list[tuple[int, bytes]], since: int, stdout: bool, stderr: bool
) -> None:
    unzoned = LogOptions(since=(START + timedelta(seconds=since)).replace(tzinfo=None))
    assert list(wanted(entries(output), unzoned)) == [e for e in entries(output) if e.time >= stamp(since)[:20]]
    options = LogOptions(stdout=stdout, stderr=stderr, since=START + timedelta(seconds=since))
    found = list(wanted(entries(output), options))
    asked = {stream for stream, wish in ((1, stdout), (2, stderr)) if wish}
    assert {entry.stream for entry in found} <= asked
    assert found == [e for e in entries(output) if e.stream in asked and moment(e.time) >= START + timedelta(0, since)]


def test_moments_are_read_in_any_zone_and_with_any_fraction() -> None:
    expected = datetime(2026, 1, 2, 3, 4, 5, 120000, UTC)
    for told in (b"2026-01-02T03:04:05.12Z", b"2026-01-02T03:04:05.120000000Z", b"2026-01-02T05:04:05.12+02:00"):
        assert moment(told) == expected
    assert moment(b"2026-01-02T03:04:05Z") == expected.replace(microsecond=0)


def file_of(output: list[tuple[int, bytes]]) -> bytes:
    return b"".join(as_written(entry) + b"\n" for entry in entries(output))


async def never() -> bool:
    return False


async def collect(chunks: AsyncIterator[LogChunk]) -> bytes:
    return b"".join([chunk.data async for chunk in chunks])


async def test_a_line_that_is_being_written_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = file_of([(1, b"one"), (1, b"two")])
    path.write_bytes(whole[:-5])
    assert await collect(logs.read(path, LogOptions(), never)) == b"one\n"
    looks = 0

    async def ended() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            path.write_bytes(whole)
        return looks > 2

    assert await collect(logs.read(path, LogOptions(follow=True), ended)) == b"one\ntwo\n"


async def test_a_followed_log_goes_on_where_it_was_turned_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(file_of([(1, b"one")]))
    looks = 0

    async def ended() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            with path.open("ab") as log:
                log.write(file_of([(1, b"two")]))
            assert logs.turn_over(path, 10)
            path.write_bytes(file_of([(1, b"three")]))
        return looks > 2

    assert await collect(logs.read(path, LogOptions(follow=True), ended)) == b"one\ntwo\nthree\n"
    assert await collect(logs.read(path, LogOptions(), never)) == b"one\ntwo\nthree\n"
    assert await collect(logs.read(path, LogOptions(tail=2), never)) == b"two\nthree\n"


def test_a_log_is_turned_over_only_when_it_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert not logs.turn_over(path, 0)
    path.write_bytes(b"12345")
    assert not logs.turn_over(path, 5)
    assert logs.turn_over(path, 4)
    # The engine was not told, or did not hear: it must be told again.
    assert logs.turn_over(path, 4)
    logs.remove(path)
    assert list(tmp_path.iterdir()) == []


async def test_a_log_that_was_moved_away_just_now_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(file_of([(1, b"one")]))
    logs.older_name(path).hardlink_to(path)
    assert await collect(logs.read(path, LogOptions(), never)) == b"one\n"


@settings(max_examples=25, deadline=None)
@given(written, st.integers(1, 30))
def test_a_read_log_is_what_was_written_however_it_is_cut_into_files(output: list[tuple[int, bytes]], cut: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "log"
        older, newer = output[:cut], output[cut:]
        logs.older_name(path).write_bytes(file_of(older))
        path.write_bytes(file_of(newer))
        found = asyncio.run(collect(logs.read(path, LogOptions(stderr=False), never)))
        assert found == b"".join(line + b"\n" for stream, line in output if stream == 1)


def test_many_last_lines_are_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(as_written(Entry(stamp(0), 1, True, b"y")) + b"\n")
    path.write_bytes(path.read_bytes() * 50_000)

    async def lines_read() -> int:
        options = LogOptions(tail=10**9)
        return sum([chunk.data.count(b"\n") async for chunk in logs.read(path, options, never_asked)])

    async def never_asked() -> bool:
        return True

    tracemalloc.start()
    try:
        assert asyncio.run(lines_read()) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_line_longer_than_any_engine_writes_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    long, short = Entry(stamp(0), 1, True, bytes(1 << 20)), Entry(stamp(1), 1, True, b"after")
    path.write_bytes(as_written(long) + b"\n" + as_written(short) + b"\n" + as_written(long))

    async def ended() -> bool:
        return True

    async def written() -> bytes:
        return b"".join([chunk.data async for chunk in logs.read(path, LogOptions(), ended)])

    found = asyncio.run(written())
    assert found.endswith(b"\nafter\n")
    assert len(found) < 1 << 18
