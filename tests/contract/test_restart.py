"""What a container still has when it starts again: all that it had."""

from pathlib import Path

import pytest

from higgins.runtimes.base import Bind, Runtime
from tests.contract.test_archives import entry, fetch, pieces, tar_of
from tests.contract.test_inside import MIB, cores, limit
from tests.contract.workloads import Workloads, ended, output, sh, until


@pytest.mark.needs("files over a stop")
async def test_a_container_that_starts_again_has_the_files_that_it_wrote(
    runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.start("sh", "-c", "ls /bin/vi /new; rm -f /bin/vi; echo new >> /new; wc -l < /new")
    for starts in range(2, 4):
        await ended(runtime, uuid)
        await runtime.start(uuid)

        async def said(lines: int = starts) -> bool:
            return (await output(runtime, uuid))[0].split()[-1:] == [b"%d" % lines]

        await until(said)
    out, err = await output(runtime, uuid)
    assert out.split() == [b"/bin/vi", b"1", b"/new", b"2", b"/new", b"3"]
    assert err.count(b"/bin/vi: No such file") == 2


async def test_a_container_that_starts_again_is_the_same_to_a_list(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    uuid = await workloads.start("sh", "-c", "exit 3", sandbox=sandbox, incarnation=7)
    first = await ended(runtime, uuid)
    await runtime.start(uuid)
    again = await ended(runtime, uuid)
    assert (again.uuid, again.incarnation, again.sandbox, again.project_id, again.exit_code, again.image) == (
        uuid,
        7,
        sandbox,
        "demo",
        3,
        first.image,
    )
    assert again.started_at is not None
    assert first.started_at is not None
    assert again.started_at > first.started_at
    assert len((await runtime.list(sandbox)).containers) == 1


@pytest.mark.needs("files of stopped containers")
@pytest.mark.needs("volumes of stopped containers")
async def test_files_go_into_a_stopped_container_and_are_there_when_it_starts(
    runtime: Runtime, workloads: Workloads, tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    uuid = await workloads.start(binds=(Bind(source=str(tmp_path / "volume"), destination="/volume"),))
    await sh(runtime, uuid, "echo before > /before; ln -s /volume /way")
    await runtime.stop(uuid, 0)
    await runtime.put_archive(uuid, "/root", pieces(tar_of((entry("word"), b"put in\n"))))
    await runtime.put_archive(uuid, "/way", pieces(tar_of((entry("word"), b"on the volume\n"))))
    assert (tmp_path / "volume" / "word").read_text() == "on the volume\n"
    _, tar = await fetch(runtime, uuid, "/before")
    assert tar.getnames() == ["before"]
    await runtime.start(uuid)
    assert await sh(runtime, uuid, "cat /before /root/word /volume/word") == "before\nput in\non the volume\n"


@pytest.mark.needs("limits of stopped containers")
@pytest.mark.needs("update")
async def test_limits_that_were_changed_hold_after_the_next_start(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start(cpu=0.5, memory=64 * MIB, pids=50)
    await runtime.update(uuid, cpu=0.25, memory=96 * MIB)
    await runtime.stop(uuid, 0)
    await runtime.start(uuid)
    assert await limit(runtime, uuid, "memory/memory.limit_in_bytes", "memory.max") == str(96 * MIB)
    assert await cores(runtime, uuid) == 0.25
    await runtime.stop(uuid, 0)
    await runtime.update(uuid, cpu=0.75, memory=48 * MIB)
    await runtime.start(uuid)
    assert await limit(runtime, uuid, "memory/memory.limit_in_bytes", "memory.max") == str(48 * MIB)
    assert await cores(runtime, uuid) == 0.75
    assert await limit(runtime, uuid, "pids/pids.max", "pids.max") == "50"
