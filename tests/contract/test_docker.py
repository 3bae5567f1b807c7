"""What the contract of all engines cannot see, on a Docker Engine."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from higgins.runtimes.base import Runtime
from tests.contract.workloads import Workloads, output
from tests.engines.docker import DockerEngine


@pytest.fixture
def engine(a_docker: DockerEngine) -> DockerEngine:
    return a_docker


@pytest.fixture
async def runtime(engine: DockerEngine) -> AsyncIterator[Runtime]:
    driver = await engine.open()
    yield driver
    await driver.close()


async def test_the_engine_tells_what_it_is(runtime: Runtime) -> None:
    info = await runtime.info()
    assert info.engine == "docker"
    assert info.version.startswith("20.10") or int(info.version.split(".")[0]) > 20
    assert "runc" in info.classes


async def test_a_runtime_class_has_a_kernel_of_its_own(runtime: Runtime, workloads: Workloads) -> None:
    if "runsc" not in (await runtime.info()).classes:
        pytest.skip("gVisor is not installed")
    sandbox = await workloads.sandbox(runtime="runsc")
    seen = await workloads.finish("dmesg", sandbox=sandbox, runtime="runsc")
    assert b"gVisor" in (await output(runtime, seen.uuid))[0]
    assert (await runtime.list(sandbox)).sandboxes[0].ready


async def test_removal_leaves_no_directory_of_logs_or_files(
    engine: DockerEngine, runtime: Runtime, workloads: Workloads
) -> None:
    await runtime.remove_sandbox(await workloads.sandbox())  # the first one leaves the image that sandboxes run
    before = engine.remains()
    uuid = await workloads.start("echo", "logged")
    assert engine.remains() > before
    (container,) = (seen for seen in (await runtime.list()).containers if seen.uuid == uuid)
    await runtime.remove_sandbox(container.sandbox)
    assert engine.remains() == before


async def test_a_health_check_of_the_image_is_not_run(engine: DockerEngine, workloads: Workloads) -> None:
    name = f"checked-{uuid4()}:1"
    made = engine.command("create", "--health-cmd", "false", engine.image, "sleep", "3600").strip()
    try:
        engine.command("commit", made, name)
        uuid = await workloads.start(image=name)
        assert "Health" not in json.loads(engine.command("inspect", f"higgins-{uuid}-1"))[0]["State"]
    finally:
        engine.command("rm", made)
    # The image goes with the engine: a container of it is removed only after this.


async def test_whoever_carries_our_labels_by_its_image_is_not_ours(
    engine: DockerEngine, runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.start()
    before = await runtime.list()
    labels = ["uuid=" + uuid, "sandbox=" + uuid, "kind=container", "incarnation=9", "project=demo"]
    options = [part for label in labels for part in ("--label", f"org.higgins.{label}")]
    made = engine.command("create", *options, engine.image, "sleep", "3600").strip()
    try:
        assert await runtime.list() == before
        await runtime.stop(uuid, 0)
        await runtime.remove(uuid)
        assert made in engine.command("ps", "--all", "--quiet", "--no-trunc")
    finally:
        engine.command("rm", "--force", made)


async def test_an_image_made_of_a_container_has_the_owners_labels_but_not_ours(
    engine: DockerEngine, runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.start(labels={"mine": "kept"})
    name = f"made-{uuid4()}:1"
    await runtime.commit(uuid, name)
    try:
        labels = json.loads(engine.command("image", "inspect", name))[0]["Config"]["Labels"]
        assert labels["mine"] == "kept"
        assert not any(value for key, value in labels.items() if key.startswith("org.higgins."))
    finally:
        await runtime.remove_image(name)


async def test_a_sandbox_whose_process_died_is_not_ready_and_comes_back(
    engine: DockerEngine, runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.sandbox()
    engine.command("kill", f"higgins-sandbox-{uuid}")
    (dead,) = (await runtime.list(uuid)).sandboxes
    assert (dead.ready, dead.netns) == (False, "")
    assert await workloads.sandbox(uuid=uuid) == uuid
    (alive,) = (await runtime.list(uuid)).sandboxes
    assert alive.ready


async def test_what_an_interrupted_start_left_unusable_is_made_anew(
    engine: DockerEngine, runtime: Runtime, workloads: Workloads
) -> None:
    sandbox = await workloads.sandbox()
    uuid = await workloads.create("sleep", "3600", sandbox=sandbox)
    found = engine.command("inspect", "--format", "{{.Id}}", f"higgins-{uuid}-1").strip()
    engine.leave_half_started(found)
    await runtime.start(uuid)
    (seen,) = (await runtime.list(sandbox)).containers
    assert (seen.uuid, seen.state, seen.incarnation) == (uuid, "running", 1)
    assert await output(runtime, uuid) == (b"", b"")
