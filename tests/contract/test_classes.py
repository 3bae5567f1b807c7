"""Runtime classes on every engine: a container in gVisor is one like any other, with a kernel of its own."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from higgins.model.errors import EngineError, NotImplementedHere
from higgins.runtimes.base import Runtime
from higgins.runtimes.cri import events
from higgins.runtimes.cri.containerd import Containerd
from tests.contract.test_archives import entry, fetch, pieces, tar_of
from tests.contract.workloads import Workloads, ended, observe, output, run, sh, until
from tests.engines import DEADLINE, Engine, need
from tests.engines.containerd import ContainerdEngine

GVISOR, KATA = "runsc", "kata"
BOX, NEIGHBOUR = "10.77.0.2", "10.77.0.1"

#: A web server that sleeps as well.
SERVES = ("sh", "-c", "echo served > /tmp/word; httpd -p 80 -h /tmp; sleep 3600")


@pytest.fixture
async def classes(runtime: Runtime) -> tuple[str, ...]:
    return (await runtime.info()).classes


@pytest.fixture
def gvisor(classes: tuple[str, ...]) -> str:
    if GVISOR not in classes:
        pytest.skip("gVisor (runsc) is not installed, or not known to this engine")
    return GVISOR


class Wire:
    """A link between the test's own network namespace and a sandbox's, as a network driver makes it."""

    def __init__(self) -> None:
        self._name = f"gv{uuid4().hex[:8]}"

    def plug(self, netns: str) -> None:
        """Let the namespace have ``eth0`` with an address."""
        self.ip("link", "add", self._name, "type", "veth", "peer", "name", f"{self._name}p")
        self.ip("address", "add", f"{NEIGHBOUR}/24", "dev", self._name)
        self.ip("link", "set", self._name, "up")
        self.ip("link", "set", f"{self._name}p", "netns", netns, "name", "eth0")
        inside = ("nsenter", f"--net={netns}", "ip")
        subprocess.run([*inside, "address", "add", f"{BOX}/24", "dev", "eth0"], check=True)
        subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def unplug(self) -> None:
        subprocess.run(["ip", "link", "delete", self._name], check=False, capture_output=True)


@pytest.fixture
def wire() -> Iterator[Wire]:
    need("ip", "nsenter")
    made = Wire()
    yield made
    made.unplug()


async def wired(runtime: Runtime, workloads: Workloads, wire: Wire, *command: str) -> str:
    """A container in gVisor that was started after its sandbox was plugged; its uuid."""
    sandbox = await workloads.sandbox(runtime=GVISOR)
    (seen,) = (await runtime.list(sandbox)).sandboxes
    await asyncio.to_thread(wire.plug, seen.netns)
    return await workloads.start(*command, sandbox=sandbox, runtime=GVISOR)


async def fetched() -> bytes | None:
    """What the box serves its neighbour."""
    try:
        reader, writer = await asyncio.open_connection(BOX, 80)
        try:
            writer.write(b"GET /word HTTP/1.0\r\n\r\n")
            return (await reader.read()).partition(b"\r\n\r\n")[2]
        finally:
            writer.close()
    except OSError:
        return None


@pytest.mark.needs("runtime classes")
async def test_a_class_that_works_is_found_to_work_and_leaves_nothing(runtime: Runtime, gvisor: str) -> None:
    before = await runtime.list()
    await asyncio.gather(runtime.probe(gvisor), runtime.probe("runc"))
    assert await runtime.list() == before


async def test_a_class_that_the_engine_has_not_is_refused_and_leaves_nothing(runtime: Runtime) -> None:
    before = await runtime.list()
    with pytest.raises(EngineError, match="there-is-none"):
        await runtime.probe("there-is-none")
    assert await runtime.list() == before


@pytest.mark.needs("runtime classes")
async def test_a_container_has_the_kernel_of_its_class(runtime: Runtime, workloads: Workloads, gvisor: str) -> None:
    sandbox = await workloads.sandbox(runtime=gvisor, hostname="box")
    script = "dmesg; hostname; exit 3"
    seen = await workloads.finish("sh", "-c", script, sandbox=sandbox, runtime=gvisor, hostname="box")
    written = (await output(runtime, seen.uuid))[0]
    assert b"gVisor" in written
    assert written.endswith(b"\nbox\n")
    assert seen.exit_code == 3
    assert (await runtime.list(sandbox)).sandboxes[0].ready
    beside = await workloads.finish("dmesg", sandbox=sandbox)
    assert b"gVisor" not in (await output(runtime, beside.uuid))[0]


@pytest.mark.needs("runtime classes")
async def test_a_container_in_gvisor_talks_with_its_neighbours_both_ways(
    runtime: Runtime, workloads: Workloads, gvisor: str, wire: Wire
) -> None:
    uuid = await wired(runtime, workloads, wire, *SERVES)
    assert BOX in await sh(runtime, uuid, "ip address")

    async def served() -> bool:
        return await fetched() == b"served\n"

    await until(served, "the container is not reached")
    await asyncio.to_thread(subprocess.run, ["busybox", "ping", "-c", "1", BOX], check=True, capture_output=True)
    callers: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername")[0])
        writer.write(b"from outside\n")
        writer.close()

    async with await asyncio.start_server(answer, NEIGHBOUR, 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await sh(runtime, uuid, f"nc {NEIGHBOUR} {port} < /dev/null") == "from outside\n"
    assert callers == [BOX]


@pytest.mark.needs("runtime classes")
async def test_a_container_in_gvisor_that_starts_again_has_its_files_and_its_network(
    runtime: Runtime, workloads: Workloads, gvisor: str, wire: Wire
) -> None:
    uuid = await wired(runtime, workloads, wire, "sh", "-c", f"echo turn >> /turns; {SERVES[2]}")

    async def begun() -> bool:
        return (await run(runtime, uuid, "cat", "/turns"))[1] == b"turn\n"

    await until(begun)
    await runtime.stop(uuid, 0)
    assert (await observe(runtime, uuid)).state == "exited"
    await runtime.start(uuid)
    assert b"gVisor" in (await run(runtime, uuid, "dmesg"))[1]

    async def served() -> bool:
        return await fetched() == b"served\n"

    await until(served, "the container is not reached")
    assert await sh(runtime, uuid, "cat /turns") == "turn\nturn\n"


@pytest.mark.needs("runtime classes")
async def test_signals_and_input_reach_a_container_in_gvisor(
    runtime: Runtime, workloads: Workloads, gvisor: str
) -> None:
    sandbox = await workloads.sandbox(runtime=gvisor)
    script = "trap 'exit 7' TERM; echo ready; while sleep 0.1; do :; done"
    uuid = await workloads.start("sh", "-c", script, sandbox=sandbox, runtime=gvisor)

    async def ready() -> bool:
        return b"ready" in (await output(runtime, uuid))[0]

    await until(ready)
    assert (await run(runtime, uuid, "cat", stdin=b"typed in"))[:2] == (0, b"typed in")
    await runtime.stop(uuid, DEADLINE)
    assert (await ended(runtime, uuid)).exit_code == 7


@pytest.mark.needs("runtime classes")
async def test_a_command_that_is_not_there_fails_in_gvisor_too_and_leaves_nothing(
    runtime: Runtime, workloads: Workloads, gvisor: str
) -> None:
    before = kernels()
    sandbox = await workloads.sandbox(runtime=gvisor)
    uuid = await workloads.create("no-such-command", sandbox=sandbox, runtime=gvisor)
    with pytest.raises(EngineError, match="no-such-command"):
        await runtime.start(uuid)

    async def removed() -> bool:
        await runtime.remove(uuid)
        return not (await runtime.list(sandbox)).containers and not kernels() - before

    await until(removed, "the container is not removed")
    await runtime.remove_sandbox(sandbox)


@pytest.mark.needs("runtime classes")
async def test_a_container_in_gvisor_leaves_no_process_when_it_is_removed(
    runtime: Runtime, workloads: Workloads, gvisor: str
) -> None:
    before = kernels()
    sandbox = await workloads.sandbox(runtime=gvisor)
    uuid = await workloads.start(sandbox=sandbox, runtime=gvisor)
    assert kernels() - before
    await runtime.remove(uuid)
    assert not (await runtime.list(sandbox)).containers
    await runtime.remove_sandbox(sandbox)

    async def none_left() -> bool:
        return not kernels() - before

    await until(none_left, "a process of gVisor goes on")


def kernels() -> set[int]:
    """Processes of gVisor."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().startswith(("runsc", "exe")):
                found.add(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def test_a_handing_over_that_is_broken_off_is_made_good_by_the_next_start_or_removal(
    a_containerd: ContainerdEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """containerd's record of a container is away for a moment when the agent ends there."""
    driver = await a_containerd.open()
    work = Workloads(driver, a_containerd.image)
    if GVISOR not in (await driver.info()).classes:
        pytest.skip("gVisor (runsc) is not installed")
    ask = Containerd.ask

    async def die(self: Containerd, verb: str, *args: Any, **kwargs: Any) -> Any:
        if verb.endswith("Containers/Create"):
            raise ConnectionAbortedError
        return await ask(self, verb, *args, **kwargs)

    sandbox = await work.sandbox(runtime=GVISOR)
    try:
        uuid = await work.create("sh", "-c", "dmesg; sleep 3600", sandbox=sandbox, runtime=GVISOR)
        with monkeypatch.context() as broken:
            broken.setattr(Containerd, "ask", die)
            with pytest.raises(ConnectionAbortedError):
                await driver.start(uuid)
        await driver.create(work.spec(sandbox, uuid=uuid, runtime=GVISOR))  # the agent finds it made already
        await driver.start(uuid)
        assert b"gVisor" in (await run(driver, uuid, "dmesg"))[1]
        assert len((await driver.list(sandbox)).containers) == 1
        other = await work.create(sandbox=sandbox, runtime=GVISOR)
        with monkeypatch.context() as broken:
            broken.setattr(Containerd, "ask", die)
            with pytest.raises(ConnectionAbortedError):
                await driver.start(other)
        await driver.remove(other)
        assert [seen.uuid for seen in (await driver.list(sandbox)).containers] == [uuid]
    finally:
        await driver.remove_sandbox(sandbox)
        await driver.close()


async def test_a_handing_over_holds_up_no_event(
    a_containerd: ContainerdEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_SETTLE", 10 * DEADLINE)
    driver = await a_containerd.open()
    work = Workloads(driver, a_containerd.image)
    if GVISOR not in (await driver.info()).classes:
        pytest.skip("gVisor (runsc) is not installed")
    sandbox = await work.sandbox(runtime=GVISOR)
    told: list[str] = []

    async def listen() -> None:
        async for event in driver.events():
            told.append(event.sandbox)

    listening = asyncio.create_task(listen())
    try:
        seen = await work.finish("true", sandbox=sandbox, runtime=GVISOR)
        told.clear()
        await driver.start(seen.uuid)
        await ended(driver, seen.uuid)
        other = await work.sandbox()

        async def all_told() -> bool:
            return other in told

        await work.start("true", sandbox=other)
        await until(all_told, "events stand still")
        assert sandbox in told
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        for uuid in {one.uuid for one in (await driver.list()).sandboxes} & {sandbox, *told}:
            await driver.remove_sandbox(uuid)
        await driver.close()


@pytest.mark.needs("runtime classes")
async def test_a_container_has_a_virtual_machine_where_kata_boots(
    engine: Engine, runtime: Runtime, workloads: Workloads, classes: tuple[str, ...]
) -> None:
    if KATA not in classes:
        pytest.skip(f"{engine.name} knows no Kata: it needs a kernel and a machine that may run virtual machines")
    await runtime.probe(KATA)
    sandbox = await workloads.sandbox(runtime=KATA)
    seen = await workloads.finish("uname", "-r", sandbox=sandbox, runtime=KATA)
    own = await workloads.finish("uname", "-r", sandbox=sandbox)
    assert (await output(runtime, seen.uuid))[0] != (await output(runtime, own.uuid))[0]


@pytest.mark.needs("runtime classes", "archive")
async def test_files_pass_into_and_out_of_a_running_container_in_gvisor(
    runtime: Runtime, workloads: Workloads, gvisor: str
) -> None:
    sandbox = await workloads.sandbox(runtime=gvisor)
    uuid = await workloads.start(sandbox=sandbox, runtime=gvisor)
    await sh(runtime, uuid, "echo made inside > /root/out; ls /root")
    _, tar = await fetch(runtime, uuid, "/root/out")
    assert tar.getnames() == ["out"]
    await runtime.put_archive(uuid, "/root", pieces(tar_of((entry("in"), b"put in\n"), (entry("out"), b"changed\n"))))

    async def seen() -> bool:
        return (await run(runtime, uuid, "cat", "/root/in", "/root/out"))[1] == b"put in\nchanged\n"

    await until(seen, "what was put in is not seen")


@pytest.mark.needs("runtime classes")
async def test_what_the_host_would_take_for_processes_of_a_container_in_gvisor_is_not_shown(
    runtime: Runtime, workloads: Workloads, gvisor: str
) -> None:
    sandbox = await workloads.sandbox(runtime=gvisor)
    uuid = await workloads.start(sandbox=sandbox, runtime=gvisor)
    with pytest.raises(NotImplementedHere, match="run ps in the container"):
        await runtime.top(uuid, None)
    assert "sleep 3600" in await sh(runtime, uuid, "ps")
    assert (await runtime.stats(uuid)).memory_used > 0
