"""Images of a real Glance: whose are found by whom, what is brought, and that an engine runs it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from higgins.images.glance import Glance
from higgins.images.shelf import Shelf
from higgins.model.errors import Conflict, ImageNotFound, ImageRefused, Unauthorized
from higgins.openstack.errors import ServiceUnavailable
from higgins.runtimes.docker import open_docker
from tests.engines.docker import DockerEngine
from tests.openstack import cloud, needs
from tests.openstack.cloud import glance, identifier, password, token, upload

pytestmark = needs("keystone", "glance")

URL = "http://127.0.0.1:9292"


class Tenant:
    """A project, a token of its member, and Glance as it sees it."""

    def __init__(self, service: Glance, project: str) -> None:
        self.service = service
        self.project = identifier("projects", project)
        self.token = token(password(project, project))

    async def finds(self, reference: str) -> str:
        return (await self.service.resolve(reference, self.token, self.project)).id


@pytest.fixture
async def service() -> AsyncIterator[Glance]:
    async def endpoint() -> str:
        return URL

    async with aiohttp.ClientSession() as session:
        yield Glance(session, endpoint)


@pytest.fixture
def demo(service: Glance) -> Tenant:
    return Tenant(service, "demo")


@pytest.fixture
def alt(service: Glance) -> Tenant:
    return Tenant(service, "alt")


def name() -> str:
    """One that no other test uses."""
    return f"image-{uuid.uuid4()}"


async def test_a_private_image_is_found_by_its_project_only(demo: Tenant, alt: Tenant, busybox_archive: Path) -> None:
    called = name()
    made = upload(demo.token, called, busybox_archive.read_bytes())
    assert await demo.finds(called) == await demo.finds(made) == made
    for reference in (called, made):
        with pytest.raises(ImageNotFound, match="may not use it"):
            await alt.finds(reference)


async def test_a_shared_image_is_found_by_whom_it_is_shared_with(demo: Tenant, alt: Tenant) -> None:
    called = name()
    made = upload(demo.token, called, b"data", visibility="shared")
    with pytest.raises(ImageNotFound):
        await alt.finds(called)
    glance("POST", f"images/{made}/members", demo.token, {"member": alt.project})
    assert await alt.finds(made) == made
    glance("PUT", f"images/{made}/members/{alt.project}", alt.token, {"status": "accepted"})
    assert await alt.finds(called) == made


async def test_ones_own_image_goes_before_a_public_one_of_the_same_name(demo: Tenant, alt: Tenant) -> None:
    called = name()
    public = upload(token(password("admin", "admin")), called, b"data", visibility="public")
    assert await demo.finds(called) == public
    own = upload(demo.token, called, b"data")
    assert await demo.finds(called) == own
    assert await alt.finds(called) == public
    upload(demo.token, called, b"more data")
    with pytest.raises(Conflict, match="use the id"):
        await demo.finds(called)


async def test_what_cannot_be_an_image_of_a_container_is_refused(demo: Tenant) -> None:
    made = upload(demo.token, name(), b"data", container_format="ami", disk_format="ami")
    with pytest.raises(ImageRefused, match="container format ami"):
        await demo.finds(made)
    for nonsense in ("", "no such image", str(uuid.uuid4()), "../images", "a?b=c&d"):
        with pytest.raises(ImageNotFound):
            await demo.finds(nonsense)


async def test_an_image_is_brought_once_and_an_engine_runs_it_under_our_name(
    demo: Tenant, docker_engine: DockerEngine, busybox_archive: Path, tmp_path: Path
) -> None:
    made = upload(demo.token, name(), busybox_archive.read_bytes())
    found = await demo.service.resolve(made, demo.token, demo.project)
    shelf = Shelf(tmp_path / "shelf")
    brought: list[Path] = []

    async def save(target: Path) -> None:
        brought.append(target)
        await demo.service.save(found, demo.token, target)

    first, *others = await asyncio.gather(*(shelf.take_in(found, save) for _ in range(5)))
    assert set(others) == {first} and len(brought) == 1
    before = json.loads(docker_engine.command("image", "inspect", "busybox:latest"))[0]
    runtime = open_docker(docker_engine.url)
    loaded = await runtime.load(shelf.files(first), found.engine_name)
    await runtime.close()
    assert loaded.id == before["Id"]
    ran = docker_engine.command("run", "--rm", "--network", "none", found.engine_name, "echo", "it runs")
    assert ran == "it runs\n"
    docker_engine.command("rmi", found.engine_name)


async def test_an_image_that_is_no_archive_leaves_nothing_behind(demo: Tenant, tmp_path: Path) -> None:
    found = await demo.service.resolve(upload(demo.token, name(), b"x" * 5000), demo.token, demo.project)
    shelf = Shelf(tmp_path)
    with pytest.raises(ImageRefused, match="docker save"):
        await shelf.take_in(found, lambda target: demo.service.save(found, demo.token, target))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_token_that_is_no_more_is_told_as_that(demo: Tenant) -> None:
    with pytest.raises(Unauthorized, match="Glance does not accept the token"):
        await demo.service.resolve("busybox", "nonsense", demo.project)


async def test_while_glance_is_away_it_is_named(demo: Tenant) -> None:
    made = upload(demo.token, name(), b"data")
    cloud.service("stop", "glance")
    try:
        with pytest.raises(ServiceUnavailable, match="Glance does not answer now"):
            await demo.finds(made)
    finally:
        cloud.service("start", "glance")
    assert await demo.finds(made) == made
