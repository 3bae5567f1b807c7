"""The life of a container and of its sandbox, and each verb done twice."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from higgins.model.errors import ContainerGone, EngineError, ImageNotFound
from higgins.runtimes.base import Runtime, SandboxSpec
from tests.contract.workloads import SLEEP, Workloads, ended, observe, output, sh, until


async def test_a_container_goes_from_created_to_running_to_exited_to_gone(
    runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.create()
    assert (await observe(runtime, uuid)).state == "created"
    await runtime.start(uuid)
    running = await observe(runtime, uuid)
    assert (running.state, running.exit_code, running.finished_at) == ("running", None, None)
    assert running.started_at is not None
    await runtime.stop(uuid, 0)
    stopped = await observe(runtime, uuid)
    assert stopped.state == "exited"
    assert stopped.finished_at is not None
    assert stopped.finished_at >= running.started_at - timedelta(seconds=1)
    await runtime.remove(uuid)
    with pytest.raises(ContainerGone):
        await observe(runtime, uuid)


async def test_each_verb_done_twice_is_done(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    container = workloads.spec(sandbox, *SLEEP)
    for _ in range(2):
        await runtime.create(container)
    for _ in range(2):
        await runtime.start(container.uuid)
    for _ in range(2):
        await runtime.stop(container.uuid, 0)
    for _ in range(2):
        await runtime.remove(container.uuid)
    for _ in range(2):
        await runtime.remove_sandbox(sandbox)
    assert await runtime.list(sandbox) == await runtime.list(str(uuid4()))


async def test_a_sandbox_asked_for_twice_is_one_and_stays_as_it_is(runtime: Runtime) -> None:
    spec = SandboxSpec(uuid=str(uuid4()), project_id="demo")
    first = await runtime.create_sandbox(spec)
    assert first == await runtime.create_sandbox(spec)
    assert (await runtime.list(spec.uuid)).sandboxes == (first,)
    await runtime.remove_sandbox(spec.uuid)


async def test_a_sandbox_has_a_network_namespace_of_its_own_with_only_lo_in_it(
    runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.sandbox()
    (sandbox,) = (await runtime.list(uuid)).sandboxes
    assert sandbox.ready
    assert Path(sandbox.netns).stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
    container = await workloads.start(sandbox=uuid)
    assert (await sh(runtime, container, "ls /sys/class/net")).split() == ["lo"]
    assert "inet 127.0.0.1" in await sh(runtime, container, "ip addr show lo")


async def test_members_of_a_sandbox_share_its_network(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    (seen,) = (await runtime.list(sandbox)).sandboxes
    containers = [await workloads.start(sandbox=sandbox) for _ in range(2)]
    namespaces = {(await sh(runtime, uuid, "readlink /proc/self/ns/net")).strip() for uuid in containers}
    assert namespaces == {f"net:[{Path(seen.netns).stat().st_ino}]"}


async def test_a_container_has_the_hostname_that_was_wished(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox(hostname="wished")
    uuid = await workloads.start(sandbox=sandbox, hostname="wished")
    assert (await sh(runtime, uuid, "hostname")).strip() == "wished"


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_the_exit_code_is_the_commands(workloads: Workloads, code: int) -> None:
    assert (await workloads.finish("sh", "-c", f"exit {code}")).exit_code == code


async def test_a_container_that_exited_starts_again(runtime: Runtime, workloads: Workloads) -> None:
    uuid = (await workloads.finish("sh", "-c", "echo again; exit 4")).uuid
    await runtime.start(uuid)

    async def twice() -> bool:
        return (await output(runtime, uuid))[0] == b"again\nagain\n"

    await until(twice)
    assert (await ended(runtime, uuid)).exit_code == 4


async def test_stop_lets_a_container_end_by_itself(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done")
    await until_ready(runtime, uuid)
    await runtime.stop(uuid, 30)
    assert (await observe(runtime, uuid)).exit_code == 7


async def test_stop_kills_what_does_not_end(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    await until_ready(runtime, uuid)
    await runtime.stop(uuid, 0)
    seen = await observe(runtime, uuid)
    assert (seen.state, seen.exit_code, seen.oom_killed) == ("exited", 137, False)


async def until_ready(runtime: Runtime, uuid: str) -> None:
    """Until the container has said that its traps are set."""

    async def ready() -> bool:
        return (await output(runtime, uuid))[0] == b"ready\n"

    await until(ready)


@pytest.mark.needs("kill")
async def test_kill_sends_the_signal_that_was_asked_for(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start("sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done")
    await until_ready(runtime, uuid)
    await runtime.kill(uuid, "SIGUSR1")
    assert (await ended(runtime, uuid)).exit_code == 9


@pytest.mark.needs("kill")
async def test_kill_of_a_container_that_does_not_run_is_refused(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.create()
    with pytest.raises(EngineError):
        await runtime.kill(uuid, "SIGTERM")


@pytest.mark.needs("kill")
async def test_a_signal_that_does_not_exist_is_refused(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start()
    with pytest.raises(EngineError):
        await runtime.kill(uuid, "SIGNONSENSE")
    assert (await observe(runtime, uuid)).state == "running"


@pytest.mark.needs("pause")
async def test_pause_and_unpause_may_be_done_twice(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start()
    for _ in range(2):
        await runtime.pause(uuid)
    assert (await observe(runtime, uuid)).state == "paused"
    for _ in range(2):
        await runtime.unpause(uuid)
    assert (await observe(runtime, uuid)).state == "running"


@pytest.mark.needs("pause")
async def test_a_paused_container_can_be_stopped_and_removed(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    stopped, removed = [await workloads.start(sandbox=sandbox) for _ in range(2)]
    for uuid in (stopped, removed):
        await runtime.pause(uuid)
    await runtime.stop(stopped, 0)
    assert (await observe(runtime, stopped)).state == "exited"
    await runtime.remove(removed)
    assert [seen.uuid for seen in (await runtime.list(sandbox)).containers] == [stopped]


@pytest.mark.needs("command faults")
async def test_a_command_that_does_not_exist_is_named(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.create("no-such-command")
    with pytest.raises(EngineError, match=r"command.*no-such-command"):
        await runtime.start(uuid)
    assert (await observe(runtime, uuid)).state != "running"
    await runtime.remove(uuid)


async def test_the_image_of_a_container_must_be_on_the_host(runtime: Runtime, workloads: Workloads) -> None:
    container = workloads.spec(await workloads.sandbox(), image="nothing-of-that-name:1")
    with pytest.raises(ImageNotFound, match="nothing-of-that-name:1"):
        await runtime.create(container)


async def test_a_container_without_its_sandbox_is_refused(runtime: Runtime, workloads: Workloads) -> None:
    container = workloads.spec(str(uuid4()), *SLEEP)
    with pytest.raises(EngineError) as refused:
        await runtime.create(container)
        await runtime.start(container.uuid)
    assert not isinstance(refused.value, ContainerGone | ImageNotFound)


async def test_every_verb_says_that_a_container_is_gone(runtime: Runtime) -> None:
    uuid = str(uuid4())
    verbs = [
        runtime.start(uuid),
        runtime.stop(uuid, 0),
        runtime.exec(uuid, ("true",)),
        runtime.attach(uuid),
        runtime.stats(uuid),
        runtime.update(uuid, cpu=1, memory=0),
        output(runtime, uuid),
    ]
    for verb in verbs:
        with pytest.raises(ContainerGone, match=uuid):
            await verb


async def test_the_command_and_its_surroundings_are_as_asked_for(runtime: Runtime, workloads: Workloads) -> None:
    script = "echo $1; echo $COLOUR; pwd; echo $PATH"
    seen = await workloads.finish(
        "word", entrypoint=("sh", "-c", script, "sh"), environment={"COLOUR": "blue=green"}, workdir="/tmp"
    )
    assert await output(runtime, seen.uuid) == (b"word\nblue=green\n/tmp\n/bin\n", b"")


async def test_without_a_command_the_images_own_runs(runtime: Runtime, workloads: Workloads) -> None:
    container = workloads.spec(await workloads.sandbox(), interactive=True)
    await runtime.create(container)
    await runtime.start(container.uuid)
    assert (await sh(runtime, container.uuid, "cat /proc/1/comm")).strip() in ("sh", "busybox")


async def test_two_incarnations_stand_side_by_side(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    first = workloads.spec(sandbox, *SLEEP)
    second = workloads.spec(sandbox, *SLEEP, uuid=first.uuid, incarnation=2)
    for container in (first, second):
        await runtime.create(container)
    await runtime.start(first.uuid)
    states = {seen.incarnation: seen.state for seen in (await runtime.list(sandbox)).containers}
    assert states == {1: "created", 2: "running"}
    await runtime.remove(first.uuid, 1)
    await runtime.remove(first.uuid, 1)
    assert [seen.incarnation for seen in (await runtime.list(sandbox)).containers] == [2]
    await runtime.remove(first.uuid)
    assert (await runtime.list(sandbox)).containers == ()


async def test_remove_takes_a_running_container_and_all_its_incarnations(
    runtime: Runtime, workloads: Workloads
) -> None:
    sandbox = await workloads.sandbox()
    first = workloads.spec(sandbox, *SLEEP)
    await runtime.create(first)
    await runtime.start(first.uuid)
    await runtime.create(workloads.spec(sandbox, *SLEEP, uuid=first.uuid, incarnation=2))
    await runtime.remove(first.uuid)
    assert (await runtime.list(sandbox)).containers == ()


async def test_removing_a_sandbox_takes_what_runs_in_it(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    for _ in range(2):
        await workloads.start(sandbox=sandbox)
    await runtime.remove_sandbox(sandbox)
    left = await runtime.list(sandbox)
    assert (left.sandboxes, left.containers) == ((), ())


async def test_two_creates_of_one_uuid_at_once_make_one(runtime: Runtime, workloads: Workloads) -> None:
    spec = SandboxSpec(uuid=str(uuid4()), project_id="demo")
    one, other = await asyncio.gather(runtime.create_sandbox(spec), runtime.create_sandbox(spec))
    assert one == other
    container = workloads.spec(spec.uuid, *SLEEP)
    await asyncio.gather(runtime.create(container), runtime.create(container))
    await asyncio.gather(runtime.start(container.uuid), runtime.start(container.uuid))
    seen = await runtime.list(spec.uuid)
    assert [found.state for found in seen.containers] == ["running"]
    await asyncio.gather(runtime.remove(container.uuid), runtime.remove(container.uuid))
    await asyncio.gather(runtime.remove_sandbox(spec.uuid), runtime.remove_sandbox(spec.uuid))


async def test_twenty_containers_come_and_go_at_once(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    containers = [workloads.spec(sandbox, *SLEEP) for _ in range(20)]
    await asyncio.gather(*map(runtime.create, containers))
    assert {seen.uuid for seen in (await runtime.list(sandbox)).containers} == {made.uuid for made in containers}
    await asyncio.gather(*(runtime.remove(made.uuid) for made in containers))
    assert (await runtime.list(sandbox)).containers == ()
