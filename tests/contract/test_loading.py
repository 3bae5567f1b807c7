"""Images that come as archives: checked, loaded under our name, run; and who can name them."""

import gzip
import hashlib
import json
from pathlib import Path
from uuid import uuid4

import pytest

from higgins.images.archive import take_apart
from higgins.images.base import ImageFiles
from higgins.model.errors import EngineError, ImageNotFound, ImagePullFailed, ImageRefused
from higgins.runtimes.base import Runtime
from tests.contract.workloads import Workloads, output
from tests.engines import Engine
from tests.engines.images import archive, busybox_config
from tests.images.test_archive import tar_of

pytestmark = pytest.mark.needs("load")


def checked(data: bytes, directory: Path) -> ImageFiles:
    """What is in the archive, below the directory."""
    source = directory / "archive"
    source.write_bytes(data)
    parts = take_apart(source, lambda digest: directory / digest)
    return ImageFiles(parts=parts, paths=tuple(directory / layer.digest for layer in parts.layers))


def name() -> str:
    return f"glance.invalid/{uuid4()}:0123456789abcdef"


async def forget(runtime: Runtime, image: str) -> None:
    for container in (await runtime.list()).containers:
        if container.image.endswith(image):
            await runtime.remove_sandbox(container.sandbox)
    await runtime.remove_image(image)


async def test_an_archive_is_loaded_under_our_name_and_runs(
    runtime: Runtime, workloads: Workloads, busybox_archive: Path, tmp_path: Path
) -> None:
    files, called = checked(gzip.compress(busybox_archive.read_bytes(), 1), tmp_path), name()
    image = await runtime.load(files, called)
    assert image == await runtime.load(files, called)
    try:
        assert called in image.names
        assert (await runtime.pull(called, policy="never")).id == image.id
        seen = await workloads.finish("echo", "it runs", image=called)
        assert (await output(runtime, seen.uuid))[0] == b"it runs\n"
    finally:
        await forget(runtime, called)
    with pytest.raises(ImageNotFound):
        await runtime.pull(called, policy="never")


async def test_what_is_saved_is_the_image_that_it_was(
    runtime: Runtime, engine: Engine, busybox_archive: Path, tmp_path: Path
) -> None:
    with (tmp_path / "saved").open("wb") as file:
        async with runtime.save(engine.image) as pieces:
            async for piece in pieces:
                file.write(piece)
    saved = checked((tmp_path / "saved").read_bytes(), tmp_path)
    assert saved.parts.layers == checked(busybox_archive.read_bytes(), tmp_path).parts.layers
    with pytest.raises(ImageNotFound):
        async with runtime.save("nothing-of-that-name:1"):
            pass


async def test_of_two_images_that_share_a_layer_both_run(
    runtime: Runtime, workloads: Workloads, busybox_archive: Path, tmp_path: Path
) -> None:
    names = []
    for number in range(2):
        place = tmp_path / str(number)
        place.mkdir()
        base = checked(busybox_archive.read_bytes(), place)
        top = tar_of([("word", str(number).encode())])
        both = layered(base.paths[0].read_bytes(), top)
        names.append(name())
        await runtime.load(checked(both, place), names[-1])
    try:
        for number, called in enumerate(names):
            seen = await workloads.finish("cat", "/word", image=called)
            assert (await output(runtime, seen.uuid))[0] == str(number).encode()
    finally:
        for called in names:
            await forget(runtime, called)


async def test_no_project_gets_a_loaded_image_by_its_id(runtime: Runtime, tmp_path: Path) -> None:
    mine = archive("mine:1", tar_of([("secret", uuid4().bytes)]), {"Cmd": ["/secret"]})
    called = name()
    image = await runtime.load(checked(mine, tmp_path), called)
    try:
        for guess in (image.id, image.id.removeprefix("sha256:"), image.id.removeprefix("sha256:")[:12]):
            with pytest.raises((ImageNotFound, ImagePullFailed)):
                await runtime.pull(guess, policy="never")
    finally:
        await forget(runtime, called)


@pytest.mark.needs("digests when an image is loaded")
async def test_a_layer_that_is_not_what_its_digest_says_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    files = checked(archive("mine:1", tar_of([("word", uuid4().bytes)]), busybox_config()), tmp_path)
    data = bytearray(files.paths[0].read_bytes())
    data[512] ^= 1
    files.paths[0].write_bytes(data)
    called = name()
    with pytest.raises(ImagePullFailed, match=called):
        await runtime.load(files, called)
    with pytest.raises(ImageNotFound):
        await runtime.pull(called, policy="never")


async def test_a_hostile_archive_reaches_no_engine(runtime: Runtime, engine: Engine, tmp_path: Path) -> None:
    before = {found.id for found in await runtime.images()}
    outside = tar_of([("../../etc/passwd", b"root::0:0::/:/bin/sh\n"), ("manifest.json", b"[{}]")])
    with pytest.raises(ImageRefused):
        await runtime.load(checked(outside, tmp_path), name())
    assert {found.id for found in await runtime.images()} == before


async def test_no_loaded_image_becomes_the_one_that_holds_sandboxes(runtime: Runtime, tmp_path: Path) -> None:
    files = checked(archive("mine:1", tar_of([("word", b"w")]), busybox_config()), tmp_path)
    pauses = [called for found in await runtime.images() for called in found.names if "pause" in called]
    for called in pauses:
        with pytest.raises(EngineError, match="choose another"):
            await runtime.load(files, called)


def layered(*layers: bytes) -> bytes:
    """An archive of busybox' configuration with these layers."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": busybox_config(),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": digests}]
    members = dict(zip(digests, layers, strict=True)) | {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    return tar_of(members.items())
