"""Images on the host, and new ones made of containers."""

import asyncio
from uuid import uuid4

import pytest

from higgins.model.errors import EngineError, ImageNotFound
from higgins.runtimes.base import Runtime
from tests.contract.workloads import Workloads, output, sh
from tests.engines import Engine


async def test_an_image_on_the_host_needs_no_registry(runtime: Runtime, engine: Engine) -> None:
    for policy in ("ifnotpresent", "never"):
        image = await runtime.pull(engine.image, policy=policy)
        assert any(name.endswith(engine.image) for name in image.names)
        assert image.size > 0
    assert image.id in [found.id for found in await runtime.images()]


async def test_a_name_without_tag_means_latest(runtime: Runtime, engine: Engine) -> None:
    name, _, tag = engine.image.rpartition(":")
    assert tag == "latest"
    assert (await runtime.pull(name, policy="never")).id == (await runtime.pull(engine.image, policy="never")).id


async def test_never_pulling_what_is_not_there_finds_nothing(runtime: Runtime) -> None:
    with pytest.raises(ImageNotFound, match="nothing-of-that-name:1"):
        await runtime.pull("nothing-of-that-name:1", policy="never")


async def test_pulls_that_cannot_reach_a_registry_all_fail_with_a_reason(runtime: Runtime) -> None:
    pulls = [runtime.pull("127.0.0.1:1/nothing:1", policy="always") for _ in range(3)]
    for error in await asyncio.gather(*pulls, return_exceptions=True):
        assert isinstance(error, EngineError)
        assert "127.0.0.1:1/nothing:1" in str(error)


@pytest.mark.needs("commit")
async def test_a_committed_container_is_an_image_that_runs(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start(labels={"mine": "kept"})
    await sh(runtime, uuid, "echo kept > /word")
    name = f"made-{uuid4()}:first"
    made = await runtime.commit(uuid, name)
    try:
        assert made == (await runtime.pull(name, policy="never")).id
        seen = await workloads.finish("cat", "/word", image=name)
        assert (await output(runtime, seen.uuid))[0] == b"kept\n"
    finally:
        await runtime.remove_sandbox(await sandbox_of(runtime, uuid))
        for container in (await runtime.list()).containers:
            if container.image == name:
                await runtime.remove(container.uuid)
        await runtime.remove_image(name)
    with pytest.raises(ImageNotFound):
        await runtime.pull(name, policy="never")


async def sandbox_of(runtime: Runtime, uuid: str) -> str:
    return next(seen.sandbox for seen in (await runtime.list()).containers if seen.uuid == uuid)


async def test_removing_an_image_that_is_gone_is_done(runtime: Runtime) -> None:
    await runtime.remove_image("nothing-of-that-name:1")
