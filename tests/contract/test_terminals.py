"""Exec and attach: live connections to a process' standard streams."""

import asyncio

import pytest

from higgins.model.errors import EngineError
from higgins.runtimes.base import LogChunk, Runtime, Terminal
from tests.contract.workloads import Workloads, ended, run, until
from tests.engines import DEADLINE


async def read_until(terminal: Terminal, wanted: bytes) -> bytes:
    """What the terminal shows, up to and with what is wanted."""
    shown = b""
    async with asyncio.timeout(DEADLINE):
        while wanted not in shown:
            chunk = await terminal.read()
            assert chunk is not None, shown
            shown += chunk.data
    return shown


async def test_exec_keeps_the_streams_apart_and_tells_the_exit_code(runtime: Runtime, box: str) -> None:
    assert await run(runtime, box, "sh", "-c", "echo out; echo err >&2; exit 5") == (5, b"out\n", b"err\n")


async def test_exec_without_output_ends(runtime: Runtime, box: str) -> None:
    assert await run(runtime, box, "true") == (0, b"", b"")


@pytest.mark.needs("end of input")
async def test_exec_reads_its_input_to_the_end(runtime: Runtime, box: str) -> None:
    data = bytes(range(256)) * 4096
    assert await run(runtime, box, "wc", "-c", stdin=b"what is written\n") == (0, b"16\n", b"")
    terminal = await runtime.exec(box, ("cat",), stdin=True)

    async def feed() -> None:
        await terminal.write(data)
        await terminal.close_stdin()

    feeding = asyncio.create_task(feed())
    read = b""
    while (chunk := await terminal.read()) is not None:
        read += chunk.data
    await feeding
    assert read == data
    assert await terminal.exit_code() == 0
    await terminal.close()


async def test_exec_of_a_command_that_does_not_exist_fails(runtime: Runtime, box: str) -> None:
    try:
        code, _, _ = await run(runtime, box, "no-such-command")
    except EngineError:
        return
    assert code in (126, 127)


async def test_exec_in_a_container_that_does_not_run_is_refused(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.create()
    with pytest.raises(EngineError):
        await run(runtime, uuid, "true")


#: Tells the terminal's size for each line it reads, and ends with the input. (An interactive shell would edit lines.)
SIZES = "tty; while read line; do stty size; echo seen; done; exit 6"


async def ask_size(terminal: Terminal, wanted: bytes) -> None:
    """Until the process sees the size that was set."""

    async def sized() -> bool:
        await terminal.write(b"\n")
        return wanted in await read_until(terminal, b"seen\r\n")

    await until(sized)


async def test_exec_with_a_terminal_has_one_of_the_size_that_was_set(runtime: Runtime, box: str) -> None:
    terminal = await runtime.exec(box, ("sh", "-c", SIZES), tty=True, stdin=True)
    assert b"/dev/pts/" in await read_until(terminal, b"\r\n")
    await terminal.resize(93, 31)
    await ask_size(terminal, b"31 93")
    await terminal.write(b"\x04")  # end of input, as it is typed
    while await terminal.read() is not None:
        pass
    assert await terminal.exit_code() == 6
    await terminal.close()


async def test_leaving_an_exec_early_harms_nobody(runtime: Runtime, box: str) -> None:
    terminal = await runtime.exec(box, ("sleep", "1"), stdin=True)
    await terminal.close()
    await terminal.close()
    assert (await run(runtime, box, "echo", "still here"))[1] == b"still here\n"


@pytest.mark.needs("attach")
async def test_attach_shows_what_comes_and_feeds_what_is_typed(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start("sh", "-c", "while read line; do echo got $line; done", interactive=True)
    terminal = await runtime.attach(uuid)
    await terminal.write(b"one\n")
    assert await read_until(terminal, b"got one\n") == b"got one\n"
    assert await terminal.exit_code() is None
    await terminal.close()


@pytest.mark.needs("attach again")
@pytest.mark.needs("attach")
async def test_who_attached_may_leave_and_come_back(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start("sh", "-c", "while read line; do echo got $line; done", interactive=True)
    for word in (b"one", b"two"):
        terminal = await runtime.attach(uuid)
        await terminal.write(word + b"\n")
        await read_until(terminal, b"got " + word)
        await terminal.close()


@pytest.mark.needs("attach")
async def test_attach_to_a_terminal_resizes_it_and_ends_with_the_container(
    runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.start("sh", "-c", SIZES, interactive=True, tty=True)
    terminal = await runtime.attach(uuid)
    await terminal.resize(101, 41)
    await ask_size(terminal, b"41 101")
    await terminal.write(b"\x04")
    async with asyncio.timeout(DEADLINE):
        while await terminal.read() is not None:
            pass
    await terminal.close()
    assert (await ended(runtime, uuid)).exit_code == 6


@pytest.mark.needs("attach")
async def test_attach_keeps_the_streams_apart(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start("sh", "-c", "read line; echo err >&2; read line", interactive=True)
    terminal = await runtime.attach(uuid)
    await terminal.write(b"go\n")
    assert await terminal.read() == LogChunk(stream=2, data=b"err\n")
    await terminal.close()


@pytest.mark.needs("attach")
async def test_attach_to_a_container_that_does_not_run_is_refused(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.create(interactive=True)
    with pytest.raises(EngineError):
        await runtime.attach(uuid)
