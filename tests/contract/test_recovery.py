"""What a restarted agent finds, what a restarted engine does, and what is left behind: nothing."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from higgins.model.errors import EngineError, EngineUnavailable
from higgins.runtimes.base import Event, LogOptions, Runtime, SandboxSpec
from tests.contract.conftest import THOROUGH
from tests.contract.workloads import SLEEP, Workloads, observe, output, sh, until
from tests.engines import DEADLINE, Engine

#: How many are made and removed at once; fewer where time is short.
MANY = 50 if THOROUGH else 15


async def test_another_driver_finds_everything_by_label(engine: Engine, runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    container = workloads.spec(sandbox, *SLEEP, incarnation=3)
    await runtime.create(container)
    await runtime.start(container.uuid)
    other = await engine.open()
    try:
        assert await other.list(sandbox) == await runtime.list(sandbox)
        (seen,) = (await other.list(sandbox)).containers
        assert (seen.uuid, seen.incarnation, seen.sandbox, seen.project_id, seen.state) == (
            container.uuid,
            3,
            sandbox,
            "demo",
            "running",
        )
        await other.stop(container.uuid, 0)
    finally:
        await other.close()
    assert (await observe(runtime, container.uuid)).state == "exited"


async def collect(runtime: Runtime, seen: list[Event]) -> None:
    async for event in runtime.events():
        seen.append(event)


async def follow(runtime: Runtime, uuid: str) -> None:
    async with asyncio.timeout(DEADLINE):
        async for _ in runtime.logs(uuid, LogOptions(follow=True)):
            pass


async def test_events_name_the_sandbox_of_whatever_happens(runtime: Runtime, workloads: Workloads) -> None:
    seen: list[Event] = []
    listening = asyncio.create_task(collect(runtime, seen))
    try:
        await until_listening(runtime, seen)
        sandbox = await workloads.sandbox()
        uuid = await workloads.create("true", sandbox=sandbox)

        async def heard() -> bool:
            return Event(sandbox=sandbox) in seen

        await until(heard)
        seen.clear()
        await runtime.start(uuid)
        await until(heard)
        seen.clear()
        await runtime.remove(uuid)
        await until(heard)
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def until_listening(runtime: Runtime, seen: list[Event]) -> None:
    """Until events arrive: an engine that polls for them may take a moment to begin."""

    async def heard() -> bool:
        spec = SandboxSpec(uuid=str(uuid4()), project_id="demo")
        await runtime.create_sandbox(spec)
        await runtime.remove_sandbox(spec.uuid)
        await asyncio.sleep(0.05)
        return Event(sandbox=spec.uuid) in seen

    await until(heard)


async def test_an_engine_that_is_killed_comes_back_with_its_containers(
    engine: Engine, runtime: Runtime, workloads: Workloads
) -> None:
    sandbox = await workloads.sandbox()
    uuid = await workloads.start("sh", "-c", "echo before; sleep 3600", sandbox=sandbox)
    (before,) = (await runtime.list(sandbox)).sandboxes
    seen: list[Event] = []
    listening = asyncio.create_task(collect(runtime, seen))
    try:
        await until_listening(runtime, seen)
        following = asyncio.create_task(follow(runtime, uuid))
        terminal = await runtime.exec(uuid, ("cat",), stdin=True)
        await asyncio.to_thread(engine.kill)
        with pytest.raises(EngineUnavailable):
            await following
        with pytest.raises(EngineUnavailable):
            while await terminal.read() is not None:
                pass
            await terminal.exit_code()
        with pytest.raises(EngineError):
            while True:
                await terminal.write(b"nobody reads this")
        await terminal.close()
        with pytest.raises(EngineUnavailable):
            async with asyncio.timeout(DEADLINE):
                await listening
        with pytest.raises(EngineUnavailable):
            await runtime.list()
    finally:
        await asyncio.to_thread(engine.start)

    async def running() -> bool:
        return (await observe(runtime, uuid)).state == "running"

    await until(running)
    assert (await runtime.list(sandbox)).sandboxes == (before,)
    assert await sh(runtime, uuid, "echo works") == "works\n"
    assert (await output(runtime, uuid))[0] == b"before\n"
    again = asyncio.create_task(collect(runtime, seen))
    try:
        await until_listening(runtime, seen)
    finally:
        again.cancel()
        await asyncio.wait([again])
    await runtime.remove_sandbox(sandbox)
    assert (await runtime.list(sandbox)).containers == ()


def processes(word: str) -> list[str]:
    """Command lines of live processes with the word in them; a zombie has none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word in line:
            found.append(line)
    return found


def mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def namespaces() -> set[int]:
    """The network namespaces that processes are in."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(path.stat().st_ino)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def groups_of(word: str) -> set[Path]:
    """The control groups of live processes with the word in their command lines."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if word not in (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                continue
            lines = (path / "cgroup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for _, controllers, group in (line.split(":", 2) for line in lines):
            place = Path("/sys/fs/cgroup", controllers.removeprefix("name="), group.lstrip("/"))
            if group != "/" and place.exists():
                found.add(place)
    return found


async def test_removal_leaves_nothing(engine: Engine, runtime: Runtime, workloads: Workloads, box: str) -> None:
    before, kept = mounts(), engine.remains()
    sandbox = await workloads.sandbox()
    (seen,) = (await runtime.list(sandbox)).sandboxes
    namespace = Path(seen.netns).stat().st_ino
    uuid = await workloads.start("sh", "-c", "echo logged; sleep 98765 & sleep 98765", sandbox=sandbox)

    async def two() -> bool:
        return len([line for line in processes("sleep 98765") if line.startswith("sleep")]) == 2

    await until(two)
    assert mounts() - before
    assert engine.remains() - kept
    groups = groups_of("sleep 98765")
    assert groups
    await runtime.remove(uuid)
    await runtime.remove_sandbox(sandbox)

    async def nothing() -> bool:
        ended = not processes("sleep 98765") and namespace not in namespaces() and mounts() <= before
        return ended and not any(group.exists() for group in groups) and engine.remains() <= kept

    await until(nothing)


async def test_many_at_once_are_made_and_removed_and_leave_nothing(
    engine: Engine, runtime: Runtime, workloads: Workloads, box: str
) -> None:
    kept = engine.remains()
    sandboxes = await asyncio.gather(*(workloads.sandbox() for _ in range(5)))
    made = await asyncio.gather(*(workloads.create(sandbox=sandbox) for sandbox in sandboxes for _ in range(MANY // 5)))
    await asyncio.gather(*(runtime.start(uuid) for uuid in made[::5]))
    states = {seen.uuid: seen.state for seen in (await runtime.list()).containers}
    assert {states[uuid] for uuid in made[::5]} == {"running"}
    assert {states[uuid] for uuid in made} == {"created", "running"}
    more = asyncio.gather(*(workloads.create(sandbox=sandboxes[0]) for _ in range(5)))  # while others are removed
    await asyncio.gather(*(runtime.remove(uuid) for uuid in made))
    made += await more
    await asyncio.gather(*(runtime.remove_sandbox(sandbox) for sandbox in sandboxes))
    after = await runtime.list()
    assert not {seen.uuid for seen in after.containers} & set(made)
    assert not {seen.uuid for seen in after.sandboxes} & set(sandboxes)

    async def nothing() -> bool:
        return engine.remains() <= kept

    await until(nothing)
