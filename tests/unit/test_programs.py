"""Programs of the host."""

import asyncio
import os
from pathlib import Path

import pytest

from higgins.model.errors import EngineError
from higgins.programs import end_of, run


async def test_what_a_program_prints_comes_back() -> None:
    assert await run("cat", feed="fed") == "fed"


async def test_a_failure_is_told_in_the_program_s_own_words() -> None:
    with pytest.raises(EngineError, match=r"^cat failed on the host: cat: /none: No such file or directory\.$"):
        await run("cat", "/none")


async def test_a_failure_without_words_is_told_by_its_status() -> None:
    with pytest.raises(EngineError, match="exit status 1"):
        await run("false")


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineError, match="The host cannot run no-such-program: No such file or directory"):
        await run("no-such-program")


async def test_arguments_are_never_read_by_a_shell() -> None:
    assert await run("echo", "$HOME;id") == "$HOME;id\n"


async def test_a_program_ends_with_the_caller_who_left(tmp_path: Path) -> None:
    running = tmp_path / "running"
    os.mkfifo(running)
    task = asyncio.create_task(end_of("sh", "-c", 'echo $$ > "$1"; exec sleep 60', "sh", str(running)))
    pid = int(await asyncio.to_thread(running.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
