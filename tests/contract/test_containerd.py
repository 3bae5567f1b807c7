"""What only the CRI driver does: starts in several steps, ended sandboxes, log files, images with several names."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import pytest
from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import EngineError, ImageNotFound, NotImplementedHere, SandboxGone
from higgins.runtimes.base import Event, LogOptions, SandboxSpec
from higgins.runtimes.cri import events, open_cri, streams
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.containerd import Containerd
from higgins.runtimes.cri.driver import CriRuntime
from higgins.runtimes.cri.oom import killed_for_memory
from tests.contract.conftest import leave_out
from tests.contract.test_archives import fetch
from tests.contract.workloads import SLEEP, Workloads, ended, observe, output, run, sh, until
from tests.engines.containerd import ContainerdEngine
from tests.engines.images import archive, busybox_config, busybox_layer


@pytest.fixture
async def client(a_containerd: ContainerdEngine) -> AsyncIterator[Client]:
    """The engine's own view."""
    made = Client(a_containerd.endpoint)
    yield made
    await made.close()


@pytest.fixture
async def driver(a_containerd: ContainerdEngine, request: pytest.FixtureRequest) -> AsyncIterator[CriRuntime]:
    leave_out(request, a_containerd)
    made = await a_containerd.open()
    assert isinstance(made, CriRuntime)
    yield made
    await made.close()


@pytest.fixture
async def work(driver: CriRuntime, a_containerd: ContainerdEngine) -> AsyncIterator[Workloads]:
    made = Workloads(driver, a_containerd.image)
    before = {sandbox.uuid for sandbox in (await driver.list()).sandboxes}
    yield made
    for sandbox in (await driver.list()).sandboxes:
        if sandbox.uuid not in before:
            await driver.remove_sandbox(sandbox.uuid)


class Crash(Exception):
    """The agent ends here."""


def crash_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the agent end after it has changed something on the engine so many times. How often it has, is returned."""
    taken = 0
    ask, change = Client.ask, Containerd.change_container

    def count() -> None:
        nonlocal taken
        taken += 1
        if taken == steps:
            raise Crash

    async def counted_ask(self: Client, verb: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await ask(self, verb, request, *args, **kwargs)
        if isinstance(request, cri.CreateContainerRequest | cri.RemoveContainerRequest | cri.StartContainerRequest):
            count()
        return answer

    async def counted_change(self: Containerd, record: Any, *fields: str) -> None:
        await change(self, record, *fields)
        count()

    monkeypatch.setattr(Client, "ask", counted_ask)
    monkeypatch.setattr(Containerd, "change_container", counted_change)
    return lambda: taken


async def test_a_start_that_is_cut_short_after_any_step_is_finished_by_the_next(
    driver: CriRuntime, work: Workloads, client: Client
) -> None:
    uuid = await work.start()
    await sh(driver, uuid, "echo kept > /kept")
    for step in range(1, 20):
        await driver.stop(uuid, 0)
        with pytest.MonkeyPatch.context() as monkeypatch:
            steps = crash_after(step, monkeypatch)
            with suppress(Crash):
                await driver.start(uuid)
        await driver.start(uuid)
        assert await sh(driver, uuid, "cat /kept") == "kept\n", step
        assert len(await client.containers(uuid=uuid)) == 1
        if steps() < step:
            break
    assert step > 5
    containerd = await client.containerd()
    record = await containerd.container((await client.newest(uuid)).id)
    await driver.remove(uuid)
    with pytest.raises(EngineError):
        await containerd.mounts(record.snapshotter, record.snapshot_key)


@pytest.mark.needs("files of stopped containers")
async def test_what_is_written_to_a_volume_of_the_image_is_there_after_the_next_start(
    driver: CriRuntime, work: Workloads, a_containerd: ContainerdEngine
) -> None:
    binary = Path(shutil.which("busybox") or "").read_bytes()
    layer = busybox_layer(binary, ["sh", "cat", "sleep", "wc", "ls"])
    wish = busybox_config() | {"Volumes": {"/data": {}}}
    a_containerd.command("images", "import", "-", stdin=archive("volume:1", layer, wish))

    async def here() -> bool:
        return "volume:1" in [name for found in await driver.images() for name in found.names]

    await until(here)
    uuid = await work.start("sh", "-c", "echo x >> /data/word; wc -l < /data/word; sleep 3600", image="volume:1")
    for lines in (1, 2, 3):

        async def said(lines: int = lines) -> bool:
            return (await output(driver, uuid))[0].split()[-1:] == [b"%d" % lines]

        await until(said)
        await driver.stop(uuid, 0)
        _, tar = await fetch(driver, uuid, "/data/word")
        assert tar.getmember("word").size == 2 * lines
        await driver.start(uuid)


async def test_a_container_moves_with_its_files_when_its_sandbox_has_ended(
    driver: CriRuntime, work: Workloads, client: Client, a_containerd: ContainerdEngine
) -> None:
    spec = SandboxSpec(uuid=str(uuid4()), project_id="demo")
    before = await driver.create_sandbox(spec)
    uuid = await work.start(sandbox=spec.uuid)
    await sh(driver, uuid, "echo kept > /kept")
    (pause,) = await client.sandboxes(sandbox=spec.uuid)
    for engine_id in ((await client.newest(uuid)).id, pause.id):  # as a boot of the host ends them
        await (await client.containerd()).kill(engine_id, 9)

    async def not_ready() -> bool:
        return not (await driver.list(spec.uuid)).sandboxes[0].ready

    await until(not_ready)
    await ended(driver, uuid)
    with pytest.raises(EngineError, match="not ready") as refused:
        await driver.start(uuid)
    assert not isinstance(refused.value, SandboxGone), "it would be made again, without its files"
    after = await driver.create_sandbox(spec)
    assert after.ready
    assert after.netns != before.netns
    assert [seen.state for seen in (await driver.list(spec.uuid)).containers] == ["exited"]
    await driver.start(uuid)
    assert await sh(driver, uuid, "cat /kept") == "kept\n"
    assert (await sh(driver, uuid, "readlink /proc/self/ns/net")).strip() == f"net:[{Path(after.netns).stat().st_ino}]"
    assert len(await client.sandboxes(sandbox=spec.uuid)) == 1
    await driver.remove_sandbox(spec.uuid)
    assert await client.containers(sandbox=spec.uuid) == []


async def test_a_log_that_grows_too_long_is_turned_over_and_read_in_order(
    a_containerd: ContainerdEngine, driver: CriRuntime, work: Workloads
) -> None:
    short = open_cri(a_containerd.endpoint, logs=a_containerd.root / "logs", log_bytes=1000)
    script = "seq 1 50; while [ ! -e /go ]; do sleep 0.05; done; seq 51 100"
    uuid = await work.start("sh", "-c", script)

    async def half() -> bool:
        return (await output(driver, uuid, tail=1))[0] == b"50\n"

    await until(half)
    followed = b""
    async for chunk in driver.logs(uuid, LogOptions(follow=True)):
        followed += chunk.data
        if followed.endswith(b"\n50\n"):
            await short.list()
            await sh(driver, uuid, "touch /go")
    every = b"".join(b"%d\n" % number for number in range(1, 101))
    assert followed == every
    assert (await output(driver, uuid))[0] == every
    assert (await output(driver, uuid, tail=60))[0] == every[every.index(b"41\n") :]
    files = list((a_containerd.root / "logs").glob(f"*/{uuid}_1.log*"))
    assert len(files) == 2
    await driver.remove(uuid)
    assert not any(file.exists() for file in files)
    await short.close()


async def test_a_command_runs_over_the_websocket_that_other_engines_have(
    driver: CriRuntime, work: Workloads, client: Client
) -> None:
    uuid = await work.start()
    engine_id = (await client.newest(uuid)).id
    for code, script in ((0, "echo out; echo err >&2"), (5, "echo out; echo err >&2; exit 5")):
        terminal = await streams.execute(client, engine_id, ("sh", "-c", script), tty=False, stdin=True)
        written = {1: b"", 2: b""}
        while (chunk := await terminal.read()) is not None:
            written[chunk.stream] += chunk.data
        assert written == {1: b"out\n", 2: b"err\n"}
        assert await terminal.exit_code() == code
        with pytest.raises(NotImplementedHere):
            await terminal.close_stdin()
        await terminal.close()


@pytest.fixture
def another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """containerd, but for its own API: what is left is what the driver may ask of any CRI engine."""

    async def no(self: Client) -> bool:
        return False

    monkeypatch.setattr(Client, "is_containerd", no)


async def test_an_engine_with_nothing_but_cri_runs_containers_and_says_what_it_cannot(
    another_engine: None, driver: CriRuntime, work: Workloads
) -> None:
    uuid = await work.start()
    assert await run(driver, uuid, "sh", "-c", "echo out; exit 3") == (3, b"out\n", b"")
    _, tar = await fetch(driver, uuid, "/etc/passwd")
    assert tar.getnames() == ["passwd"]
    for verb in (driver.pause(uuid), driver.kill(uuid, "SIGTERM"), driver.commit(uuid, "made:1")):
        with pytest.raises(NotImplementedHere):
            await verb
    await driver.stop(uuid, 0)
    for verb in (driver.update(uuid, cpu=1, memory=0), driver.put_archive(uuid, "/", nothing())):
        with pytest.raises(NotImplementedHere):
            await verb
    await driver.start(uuid)
    assert await run(driver, uuid, "echo", "again") == (0, b"again\n", b"")
    await driver.remove(uuid)


async def nothing() -> AsyncIterator[bytes]:
    yield b""


async def hear_of_a_sandbox(events: AsyncIterator[Event], work: Workloads) -> None:
    """Until an event tells of a new one. An engine may begin with what happened before, and a list does with now."""
    heard: set[str] = set()

    async def listen() -> None:
        async for event in events:
            heard.add(event.sandbox)

    listening = asyncio.ensure_future(listen())
    made: set[str] = set()

    async def one() -> bool:
        if listening.done():
            await listening
        made.add(await work.sandbox())
        await asyncio.wait([listening], timeout=2)
        return bool(made & heard)

    try:
        await until(one, "no event tells of a new sandbox")
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def test_an_engine_without_events_is_looked_at(
    another_engine: None, driver: CriRuntime, work: Workloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(client: Client) -> NoReturn:
        raise NotImplementedHere("It has no events.")

    monkeypatch.setattr(events, "_from_cri", none)
    await hear_of_a_sandbox(driver.events(), work)


async def test_an_engine_that_has_events_of_cris_own_is_heard(
    another_engine: None, driver: CriRuntime, work: Workloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lists(client: Client) -> NoReturn:
        pytest.skip("this containerd has none (1.7 is the first that does)")

    monkeypatch.setattr(events, "_from_lists", no_lists)
    await hear_of_a_sandbox(driver.events(), work)


async def test_the_kernel_tells_of_a_kill_for_memory_that_the_engine_may_miss(
    driver: CriRuntime, work: Workloads, client: Client
) -> None:
    other = await work.start(*SLEEP, memory=16 << 20)
    await driver.stop(other, 0)

    async def told() -> bool:  # the kernel tells no more than so many in some seconds
        killed = await work.finish("tail", "/dev/zero", memory=16 << 20)
        return killed_for_memory((await client.newest(killed.uuid)).id)

    await until(told)
    assert not killed_for_memory((await client.newest(other)).id)


@pytest.mark.needs("commit")
async def test_an_image_goes_with_its_last_name_and_not_while_it_is_used(
    driver: CriRuntime, work: Workloads, a_containerd: ContainerdEngine
) -> None:
    uuid = await work.start()
    await sh(driver, uuid, "echo new > /new")
    image = await driver.commit(uuid, "twice:1")
    a_containerd.command("images", "tag", "docker.io/library/twice:1", "docker.io/library/twice:2")

    async def named_twice() -> bool:
        return len([name for found in await driver.images() if found.id == image for name in found.names]) == 2

    await until(named_twice)
    user = await work.create(image="twice:2")
    _, tar = await fetch(driver, user, "/new")  # of a root with several layers, that no process has yet
    assert tar.getnames() == ["new"]
    await driver.remove_image("twice:1")
    with pytest.raises(ImageNotFound):
        await driver.pull("twice:1", policy="never")
    with pytest.raises(EngineError, match="used"):
        await driver.remove_image("twice:2")
    await driver.remove(user)
    await driver.remove_image("twice:2")
    assert image not in {found.id for found in await driver.images()}


async def test_the_engine_tells_its_runtime_classes(driver: CriRuntime) -> None:
    info = await driver.info()
    assert info.engine == "containerd"
    assert "runc" in info.classes


async def test_an_unknown_runtime_class_is_refused(driver: CriRuntime) -> None:
    with pytest.raises(EngineError, match="nothing-of-that-name"):
        await driver.create_sandbox(SandboxSpec(uuid=str(uuid4()), project_id="demo", runtime="nothing-of-that-name"))


async def test_many_at_once_start_and_go(driver: CriRuntime, work: Workloads) -> None:
    uuids = await asyncio.gather(*(work.start() for _ in range(6)))
    assert {seen.state for seen in (await driver.list()).containers if seen.uuid in uuids} == {"running"}


async def test_what_runs_on_or_has_ended_is_asked_about_once(
    driver: CriRuntime, work: Workloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, over = await work.start(), await work.start("sh", "-c", "exit 3")
    await ended(driver, over)
    before = await driver.list()
    asked: list[str] = []
    status = driver._client.status

    async def counted(engine_id: str, **how: Any) -> cri.ContainerStatusResponse:
        asked.append(engine_id)
        return await status(engine_id, **how)

    monkeypatch.setattr(driver._client, "status", counted)
    assert set((await driver.list()).containers) == set(before.containers)
    assert asked == []
    await driver.pause(running)
    assert (await observe(driver, running)).state == "paused"
    await driver.unpause(running)
    assert (await observe(driver, running)).state == "running"
    assert asked == []
    await driver.kill(running, "KILL")
    assert (await ended(driver, running)).exit_code == 137
    assert len(asked) == 1
    await driver.start(over)
    assert (await ended(driver, over)).exit_code == 3
