"""Container logs as CRI engines write them: one file, a line for each line or part of a line.

    2026-01-02T03:04:05.123456789Z stdout F the whole line
    2026-01-02T03:04:05.123456789Z stderr P the first part of a long li

``F`` ends a line, ``P`` does not (kubernetes/design-proposals, "CRI: log management"). Parsing is pure; reading is at
the end. A file that is moved away is read to its end before the one in its place: an engine that was told to reopen
its log writes to the new one from then on. One older file is kept beside a log, and read before it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, groupby, islice, takewhile
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from higgins.runtimes.base import LogChunk, LogOptions

#: Seconds between looks at a file that is followed, and lines read at once (of at most 16 KiB, by the engine).
_POLL, _BLOCK = 0.2, 256
#: Bytes of a line of the file that are read.
_LONGEST = 1 << 17
_STREAMS = {b"stdout": 1, b"stderr": 2}


class Entry(Struct, frozen=True):
    """One line of the file. ``time`` as written, RFC 3339 with nanoseconds; ``ends_line`` false for a part."""

    time: bytes
    stream: int
    ends_line: bool
    content: bytes


def parse(line: bytes) -> Entry | None:
    """A line without its newline; None for one that is no log line, which a crash can leave half-written."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in _STREAMS:
        return None
    time, stream, tags, content = parts
    return Entry(time, _STREAMS[stream], b"P" not in tags.split(b":"), content)


def moment(time: bytes) -> datetime:
    """When an entry was written, to the microsecond."""
    text = time.decode("ascii", "replace")
    seconds, _, rest = text.partition(".")
    fraction = "".join(takewhile(str.isdigit, rest))
    zone = rest[len(fraction) :] if rest else seconds[19:]
    stamp = datetime.fromisoformat(f"{seconds[:19]}.{fraction[:6].ljust(6, '0')}{zone or '+00:00'}")
    return stamp.astimezone(UTC)


def wanted(entries: Iterable[Entry], options: LogOptions) -> Iterator[Entry]:
    """Those of the asked streams and since the asked moment, which is in UTC where it has no zone."""
    since = options.since
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    for entry in entries:
        if not (options.stdout if entry.stream == 1 else options.stderr):
            continue
        if since is None or moment(entry.time) >= since:
            yield entry


def lines(entries: Iterable[Entry]) -> Iterator[tuple[int, Entry]]:
    """Each entry with the number, from 1, of the line of its stream that it is a part of, in order of their begin."""
    number, inside = 0, {1: 0, 2: 0}
    for entry in entries:
        if not inside[entry.stream]:
            number += 1
            inside[entry.stream] = number
        yield inside[entry.stream], entry
        if entry.ends_line:
            inside[entry.stream] = 0


def last_lines(look: Callable[[], Iterable[Entry]], count: int | None) -> Iterator[Entry]:
    """The entries of the last ``count`` lines, parts together with the end of their line. None means all.

    With a count they are looked at twice, to count and to give: whoever asks for a million lines must not have them
    all held in memory.
    """
    if count is None:
        yield from look()
        return
    total = max((number for number, _ in lines(look())), default=0)
    yield from (entry for number, entry in lines(look()) if number > total - count)


class Renderer:
    """Entries to what the owner reads: newlines put back, times before each line where asked for."""

    def __init__(self, timestamps: bool, newline: bytes = b"\n") -> None:
        self._timestamps, self._newline = timestamps, newline
        self._inside_line = {1: False, 2: False}

    def chunk(self, entry: Entry) -> LogChunk:
        head = entry.time + b" " if self._timestamps and not self._inside_line[entry.stream] else b""
        self._inside_line[entry.stream] = not entry.ends_line
        return LogChunk(entry.stream, head + entry.content + (self._newline if entry.ends_line else b""))


async def read(
    path: Path, options: LogOptions, ended: Callable[[], Awaitable[bool]], *, tty: bool = False
) -> AsyncIterator[LogChunk]:
    """The log at ``path``. When following, ``ended`` is asked now and then whether the container writes no more.

    Files are read in a worker thread, a block at a time: a log of gigabytes neither stalls the loop nor fills memory.
    """
    # Engines take a carriage return for a part of the line's end, but a terminal shows it.
    renderer = Renderer(options.timestamps, b"\r\n" if tty else b"\n")
    file = _open(path)
    tail = options.tail
    try:
        before = _older(path, file)
        if before is not None:
            with before:
                files = (before,) if file is None else (before, file)
                async for chunk in _rendered(_asked(files, options, tail), renderer):
                    yield chunk
            tail = None
        while True:
            # Asked before the file is read: whatever was written before the end is in it.
            over = not options.follow or await ended()
            if file is None or _replaced(path, file):
                if file is not None:
                    async for chunk in _rendered(_asked((file,), options, tail), renderer):
                        yield chunk
                    tail = None
                    file.close()
                file = _open(path)
            if file is not None:
                async for chunk in _rendered(_asked((file,), options, tail), renderer):
                    yield chunk
                tail = None
            if over:
                return
            await asyncio.sleep(_POLL)
    finally:
        if file is not None:
            file.close()


def merged(chunks: Iterable[LogChunk]) -> list[LogChunk]:
    """Neighbours of one stream as one chunk."""
    return [LogChunk(stream, b"".join(one.data for one in run)) for stream, run in groupby(chunks, lambda c: c.stream)]


async def _rendered(entries: Iterator[Entry], renderer: Renderer) -> AsyncIterator[LogChunk]:
    while block := await asyncio.to_thread(lambda: list(islice(entries, _BLOCK))):
        for chunk in merged(renderer.chunk(entry) for entry in block):
            yield chunk


def _asked(files: Sequence[BinaryIO], options: LogOptions, tail: int | None) -> Iterator[Entry]:
    """A generator, so that even the search for the last lines happens where it is consumed: in the thread."""
    places = [file.tell() for file in files]

    def look() -> Iterator[Entry]:
        for file, place in zip(files, places, strict=True):
            file.seek(place)
        return wanted(chain.from_iterable(_entries(file) for file in files), options)

    yield from last_lines(look, tail)


def older_name(path: Path) -> Path:
    """Where a log is moved when it has grown too long. One such is kept."""
    return path.with_name(f"{path.name}.1")


def turn_over(path: Path, limit: int) -> bool:
    """Move a log away that is longer than ``limit`` bytes; whether the engine must open it anew.

    It must as well where the last who moved it did not come to ask for that.
    """
    try:
        if path.stat().st_size <= limit:
            return False
    except FileNotFoundError:
        return older_name(path).exists()
    path.replace(older_name(path))
    return True


def remove(path: Path) -> None:
    """Remove a log with its older part."""
    path.unlink(missing_ok=True)
    older_name(path).unlink(missing_ok=True)


def _older(path: Path, file: BinaryIO | None) -> BinaryIO | None:
    """The log that was moved away before ``file`` was begun. Not the same one, if it was moved just now."""
    older = _open(older_name(path))
    if older is not None and file is not None and os.path.sameopenfile(older.fileno(), file.fileno()):
        older.close()
        return None
    return older


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _replaced(path: Path, file: BinaryIO) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    then = os.fstat(file.fileno())
    return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino)


def _entries(file: BinaryIO) -> Iterator[Entry]:
    """All whole lines from here on; a line that is being written is left for the next look.

    One that is longer than any engine is meant to write is cut.
    """
    while True:
        place = file.tell()
        line = rest = file.readline(_LONGEST)
        while len(rest) == _LONGEST and not rest.endswith(b"\n"):
            rest = file.readline(_LONGEST)
        if not rest.endswith(b"\n"):
            file.seek(place)
            return
        entry = parse(line.removesuffix(b"\n"))
        if entry is not None:
            yield entry
