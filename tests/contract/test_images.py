"""Images on the host, and new ones made of containers."""

import asyncio
from uuid import uuid4

import pytest

from higgins.model.errors import EngineError, ImageNotFound, ImagePullFailed
from higgins.runtimes.base import RegistryAuth, Runtime
from tests.contract.workloads import Workloads, observe, output, sh
from tests.engines import Engine
from tests.engines.registry import Registry


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


async def test_what_cannot_be_a_name_is_no_image(runtime: Runtime) -> None:
    for name in ("", "../containers/json", "busybox?force=1", "a//b", "busy box", "-x", "a/../b", "a\nb"):
        with pytest.raises(ImageNotFound):
            await runtime.pull(name)


async def test_no_name_of_an_image_removes_a_container(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start()
    for name in (f"../containers/higgins-{uuid}-1?force=1#", f"../containers/higgins-{uuid}-1"):
        await runtime.remove_image(name)
    assert (await observe(runtime, uuid)).state == "running"


async def test_pulls_that_cannot_reach_a_registry_all_fail_with_a_reason(runtime: Runtime) -> None:
    pulls = [runtime.pull("127.0.0.1:1/nothing:1", policy="always") for _ in range(3)]
    for error in await asyncio.gather(*pulls, return_exceptions=True):
        assert isinstance(error, EngineError)
        assert "127.0.0.1:1/nothing:1" in str(error)


@pytest.mark.needs("commit")
async def test_a_committed_container_is_an_image_that_runs(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start(labels={"mine": "kept"})
    await sh(runtime, uuid, "echo kept > /word")
    name = f"higgins.invalid/{uuid4().hex}:first"  # as the control plane calls it
    made = await runtime.commit(uuid, name)
    try:
        assert made == (await runtime.pull(name, policy="never")).id
        seen = await workloads.finish("cat", "/word", image=name)
        assert (await output(runtime, seen.uuid))[0] == b"kept\n"
    finally:
        await runtime.remove_sandbox(await sandbox_of(runtime, uuid))
        for container in (await runtime.list()).containers:
            if container.image.endswith(name):
                await runtime.remove(container.uuid)
        await runtime.remove_image(name)
    with pytest.raises(ImageNotFound):
        await runtime.pull(name, policy="never")


async def sandbox_of(runtime: Runtime, uuid: str) -> str:
    return next(seen.sandbox for seen in (await runtime.list()).containers if seen.uuid == uuid)


async def test_removing_an_image_that_is_gone_is_done(runtime: Runtime) -> None:
    await runtime.remove_image("nothing-of-that-name:1")


async def test_an_image_comes_from_a_registry_that_knows_the_caller(
    runtime: Runtime, workloads: Workloads, registry: Registry
) -> None:
    await runtime.remove_image(registry.image)
    pulled = await runtime.pull(registry.image, auth=registry.auth)
    assert registry.image in pulled.names
    assert pulled == await runtime.pull(registry.image, policy="always", auth=registry.auth)
    seen = await workloads.finish("echo", "runs", image=registry.image)
    assert (await output(runtime, seen.uuid))[0] == b"runs\n"


@pytest.mark.needs("names of one image")
async def test_pulls_of_one_image_at_once_all_get_it(runtime: Runtime, registry: Registry) -> None:
    await runtime.remove_image(registry.image)
    pulls = [runtime.pull(registry.image, policy="always", auth=registry.auth) for _ in range(4)]
    assert len({image.id for image in await asyncio.gather(*pulls)}) == 1


@pytest.mark.needs("images that are missing")
async def test_an_image_that_its_registry_does_not_have_is_not_found(runtime: Runtime, registry: Registry) -> None:
    for missing in (f"{registry.address}/library/busybox:2", f"{registry.address}/nothing/here:1"):
        with pytest.raises(ImageNotFound, match=missing):
            await runtime.pull(missing, auth=registry.auth)


@pytest.mark.needs("names of one image")
async def test_a_wrong_password_gets_no_image_even_beside_a_right_one(runtime: Runtime, registry: Registry) -> None:
    await runtime.remove_image(registry.image)
    wrong = RegistryAuth(username="reader", password="wrong", domain=registry.address)
    refused, pulled = await asyncio.gather(
        runtime.pull(registry.image, policy="always", auth=wrong),
        runtime.pull(registry.image, policy="always", auth=registry.auth),
        return_exceptions=True,
    )
    assert isinstance(refused, ImageNotFound | ImagePullFailed)
    assert registry.image in str(refused)
    assert "wrong" not in str(refused)
    assert not isinstance(pulled, BaseException)


@pytest.mark.needs("names of one image")
async def test_an_image_fetched_with_credentials_is_not_for_those_without(runtime: Runtime, registry: Registry) -> None:
    await runtime.remove_image(registry.image)
    wrong = RegistryAuth(username="reader", password="wrong", domain=registry.address)
    await runtime.pull(registry.image, auth=registry.auth)
    for auth in (None, wrong):
        with pytest.raises((ImageNotFound, ImagePullFailed)):
            await runtime.pull(registry.image, auth=auth)
        with pytest.raises(ImageNotFound):
            await runtime.pull(registry.image, policy="never", auth=auth)
    assert registry.image in (await runtime.pull(registry.image, policy="never", auth=registry.auth)).names
    await runtime.remove_image(registry.image)


@pytest.mark.needs("commit")
async def test_no_container_becomes_the_image_that_holds_sandboxes(runtime: Runtime, box: str) -> None:
    async def named() -> dict[str, str]:
        return {name: image.id for image in await runtime.images() for name in image.names}

    before = {name: of for name, of in (await named()).items() if "pause" in name}
    assert before
    for name in before:
        with pytest.raises(EngineError, match="choose another"):
            await runtime.commit(box, name)
    assert before.items() <= (await named()).items()
