"""What a container wrote."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from higgins.runtimes.base import LogOptions, Runtime
from tests.contract.workloads import Workloads, output, until

LINES = "for i in 1 2 3 4 5; do echo line $i; done"


async def test_logs_keep_the_two_streams_apart(runtime: Runtime, workloads: Workloads) -> None:
    uuid = (await workloads.finish("sh", "-c", "echo out; echo err >&2")).uuid
    assert await output(runtime, uuid) == (b"out\n", b"err\n")
    assert await output(runtime, uuid, stderr=False) == (b"out\n", b"")
    assert await output(runtime, uuid, stdout=False) == (b"", b"err\n")
    assert await output(runtime, uuid, stdout=False, stderr=False) == (b"", b"")


async def test_logs_are_in_order_and_tail_counts_lines_from_the_end(runtime: Runtime, workloads: Workloads) -> None:
    uuid = (await workloads.finish("sh", "-c", LINES)).uuid
    every = b"".join(b"line %d\n" % number for number in range(1, 6))
    assert (await output(runtime, uuid))[0] == every
    assert (await output(runtime, uuid, tail=2))[0] == b"line 4\nline 5\n"
    assert (await output(runtime, uuid, tail=0))[0] == b""
    assert (await output(runtime, uuid, tail=100))[0] == every


async def test_a_line_longer_than_any_buffer_comes_whole(runtime: Runtime, workloads: Workloads) -> None:
    script = "head -c 100000 /dev/zero | tr '\\0' x; echo; printf end"
    uuid = (await workloads.finish("sh", "-c", script)).uuid
    assert (await output(runtime, uuid))[0] == b"x" * 100000 + b"\nend"


async def test_timestamps_stand_before_each_line_in_utc(runtime: Runtime, workloads: Workloads) -> None:
    uuid = (await workloads.finish("sh", "-c", LINES)).uuid
    lines = (await output(runtime, uuid, timestamps=True))[0].decode().splitlines()
    assert len(lines) == 5
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z line {number}", line), line


@pytest.mark.needs("moments of log lines")
async def test_since_leaves_out_what_was_written_before(runtime: Runtime, workloads: Workloads) -> None:
    uuid = (await workloads.finish("sh", "-c", "echo first; sleep 0.3; echo second")).uuid
    written = (await output(runtime, uuid, timestamps=True))[0].decode().splitlines()
    first = datetime.fromisoformat(written[0].split()[0])
    assert (await output(runtime, uuid, since=first + timedelta(milliseconds=100)))[0] == b"second\n"
    assert (await output(runtime, uuid, since=datetime.now(UTC) + timedelta(hours=1)))[0] == b""


async def test_logs_of_a_container_that_never_ran_are_empty(runtime: Runtime, workloads: Workloads) -> None:
    assert await output(runtime, await workloads.create()) == (b"", b"")


async def test_a_followed_log_tells_what_comes_and_ends_with_the_container(
    runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.start("sh", "-c", "echo early; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo late")
    written = b""
    async for chunk in runtime.logs(uuid, LogOptions(follow=True)):
        written += chunk.data
        if written == b"early\n":
            terminal = await runtime.exec(uuid, ("touch", "/tmp/go"))
            assert await terminal.read() is None
            await terminal.close()
    assert written == b"early\nlate\n"


async def test_a_terminals_log_is_what_the_terminal_showed(runtime: Runtime, workloads: Workloads) -> None:
    uuid = (await workloads.finish("sh", "-c", "echo out; echo err >&2", tty=True)).uuid

    async def both() -> bool:
        return (await output(runtime, uuid))[0] == b"out\r\nerr\r\n"

    await until(both)
