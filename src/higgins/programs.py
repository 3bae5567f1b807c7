"""Run a program of the host: from a list, without a shell, and with its own words as the error.

Drivers use it for what is to be had as programs only (``mount``, ``iptables``, ``ovs-vsctl``) or done seldom (``ip``).
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from higgins.model.errors import EngineError


class Ended(Struct, frozen=True):
    """How a program ended. ``code`` is its exit status, negative for the signal that ended it."""

    code: int
    out: str
    err: str


async def end_of(program: str | Path, *args: str, feed: str = "", env: Mapping[str, str] | None = None) -> Ended:
    """Run it to its end, whatever that is. ``feed`` goes to its standard input; its words are English in any locale.

    Raises ``EngineError`` where the program cannot be started. When the caller is cancelled the program is killed, so
    that nothing goes on changing the host behind a caller who has left.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**(os.environ if env is None else env), "LC_ALL": "C"},
        )
    except OSError as error:
        name = Path(program).name
        raise EngineError(f"The host cannot run {name}: {error.strerror or error}.") from error
    try:
        out, err = await process.communicate(feed.encode())
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise
    code = process.returncode
    return Ended(code if code is not None else -1, out.decode(errors="replace"), err.decode(errors="replace"))


async def run(program: str | Path, *args: str, feed: str = "") -> str:
    """Run it and return what it printed. Raises ``EngineError`` with its last words where it fails."""
    ended = await end_of(program, *args, feed=feed)
    if ended.code != 0:
        raise EngineError(f"{Path(program).name} failed on the host: {last_words(ended)}.")
    return ended.out


def last_words(ended: Ended) -> str:
    """The line in which a failed program most likely says why, without a full stop."""
    lines = [line.strip() for line in (ended.err or ended.out).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    words = (errors or lines or [f"exit status {ended.code}"])[0]
    return words[:300].rstrip(".")
