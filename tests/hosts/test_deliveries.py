"""Images of the image service on their way to a host of another machine."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from higgins.agent.deliveries import Deliveries
from higgins.agent.remote import RemoteLink
from higgins.agent.streams import LocalStreams
from higgins.control import containers, delivery, images
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.delivery import Depot
from higgins.control.query import ListQuery
from higgins.images.base import ImageFiles, Parts
from higgins.images.shelf import Shelf
from higgins.model.container import ContainerSpec
from higgins.model.errors import (
    EngineError,
    HostUnavailable,
    ImageNotFound,
    ImagePullFailed,
    ImageRefused,
    NotFound,
)
from higgins.model.images import FoundImage
from higgins.model.resources import Container
from higgins.openstack.errors import ServiceUnavailable
from higgins.runtimes.base import Image
from tests.hosts.conftest import Joining
from tests.hosts.places import RemoteHost
from tests.images.service import ScriptedImages, archive


class Loading:
    """What an engine does with images; ``used`` are those of containers."""

    def __init__(self) -> None:
        self.loaded: dict[str, Image] = {}
        self.used: set[str] = set()

    async def pull(self, image: str, *, policy: str) -> Image:
        if image not in self.loaded:
            raise ImageNotFound(f"{image} is not here")
        return self.loaded[image]

    async def load(self, image: ImageFiles, name: str) -> Image:
        assert all(
            path.stat().st_size == layer.size for path, layer in zip(image.paths, image.parts.layers, strict=True)
        )
        self.loaded[name] = Image(image.parts.id, (name,), sum(layer.size for layer in image.parts.layers))
        return self.loaded[name]

    async def images(self) -> list[Image]:
        return list(self.loaded.values())

    async def remove_image(self, name: str) -> None:
        if name in self.used:
            raise EngineError("It is used.")
        del self.loaded[name]


class Counted:
    """The link of a host; ``layers`` are those that came over it."""

    def __init__(self, link: RemoteLink) -> None:
        self._link = link
        self.layers: list[str] = []

    async def image(self, host: int, container: str, timeout: float) -> Parts | None:
        return await self._link.image(host, container, timeout)

    def layer(self, host: int, container: str, digest: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        self.layers.append(digest)
        return self._link.layer(host, container, digest)


class Place:
    """A host of another machine, as far as images are concerned."""

    def __init__(self, host: RemoteHost, *, limit: int = 2**30, engine: Loading | None = None) -> None:
        self.host, self.link, self.engine = host, Counted(host.link), engine or Loading()
        self.directory = host.data / "images"
        shelf = Shelf(self.directory, limit=limit)
        ours: Any = (self.link, lambda: host.number, self.engine, shelf)
        self.deliveries = Deliveries(*ours, limit=limit)

    async def bring(self, made: Container, policy: str = "ifnotpresent") -> FoundImage:
        assert made.spec.found is not None
        await self.deliveries.bring(made.uuid, made.spec.found, policy)
        return made.spec.found


@pytest.fixture
def service() -> ScriptedImages:
    made = ScriptedImages()
    for name in ("one", "two", "three"):
        made.put(name, archive(name.encode()))
    return made


@pytest.fixture
def depot(cloud: Cloud, service: ScriptedImages, tmp_path: Path) -> Depot:
    cloud.depot = Depot(service, Shelf(tmp_path / "depot"))
    return cloud.depot


async def create(cloud: Cloud, actor: Actor, image: str) -> Container:
    wanted = ContainerSpec(image=image, image_driver="glance", cpu=0.1, memory=64)
    spec = await delivery.pinned(cloud, actor, "token", wanted)
    return await containers.create(cloud, actor, Draft(name=None, spec=spec), run=True)


async def test_a_layer_that_images_share_travels_once_and_lies_there_once(
    cloud: Cloud, depot: Depot, host: RemoteHost, alice: Actor, service: ScriptedImages
) -> None:
    place = Place(host)
    for image in ("one", "two", "one"):
        found = await place.bring(await create(cloud, alice, image))
        assert found.engine_name in place.engine.loaded
    assert len(place.link.layers) == 3 and len(set(place.link.layers)) == 3
    assert {path.name for path in (place.directory / "layers").iterdir()} == {
        digest.removeprefix("sha256:") for digest in place.link.layers
    }
    assert sorted(name for name, _ in service.saved) == ["one", "two"]


async def test_a_host_is_told_of_no_other_hosts_images(
    cloud: Cloud, depot: Depot, host: RemoteHost, joined: Joining, alice: Actor, stack: AsyncExitStack
) -> None:
    made = await create(cloud, alice, "one")
    other = await joined("another")
    with pytest.raises(NotFound):
        await other.link.image(other.number, made.uuid, 1)
    with pytest.raises(NotFound):
        async with other.link.layer(other.number, made.uuid, f"sha256:{'0' * 64}"):
            pass


async def test_an_image_is_pulled_to_a_host_and_told_to_no_other(
    cloud: Cloud, depot: Depot, joined: Joining, alice: Actor, service: ScriptedImages
) -> None:
    engine = Loading()
    streams = LocalStreams(engine)  # type: ignore[arg-type]
    host, other = await joined("near", streams), await joined("another")
    with pytest.raises(HostUnavailable, match="starting"):
        await delivery.pull(cloud, alice, "token", "one", "near")
    assert await images.find(cloud, ListQuery(limit=10)) == []
    streams.deliveries = Place(host, engine=engine).deliveries
    for _ in range(2):
        pulled = await delivery.pull(cloud, alice, "token", "one", "near")
    assert await images.find(cloud, ListQuery(limit=10)) == [pulled]
    (loaded,) = engine.loaded.values()
    assert (pulled.repo, pulled.image_id, pulled.size) == ("one", loaded.id, str(loaded.size))
    assert len(service.saved) == 1
    assert await host.link.image(host.number, pulled.uuid, 1) is not None
    with pytest.raises(NotFound):
        await other.link.image(other.number, pulled.uuid, 1)
    await images.delete(cloud, pulled.uuid)
    assert not engine.loaded


async def test_an_image_that_is_refused_is_not_worth_another_try(
    cloud: Cloud, depot: Depot, host: RemoteHost, alice: Actor, service: ScriptedImages
) -> None:
    service.put("rubbish", b"x" * 5000)
    with pytest.raises(ImageRefused, match="docker save"):
        await Place(host).bring(await create(cloud, alice, "rubbish"))


async def test_what_the_image_service_says_reaches_the_host(
    cloud: Cloud, depot: Depot, host: RemoteHost, alice: Actor, service: ScriptedImages
) -> None:
    made, place = await create(cloud, alice, "one"), Place(host)
    service.fails = ServiceUnavailable("Glance", "the image cannot be read")
    with pytest.raises(ImagePullFailed, match="Glance does not answer now"):
        await place.bring(made)
    service.fails = None
    await place.bring(made)


async def test_what_is_on_the_host_is_not_asked_for_unless_always(
    cloud: Cloud, depot: Depot, host: RemoteHost, alice: Actor
) -> None:
    made, place = await create(cloud, alice, "one"), Place(host)
    with pytest.raises(ImageNotFound, match="never to fetch it"):
        await place.bring(made, "never")
    await place.bring(made)
    await host.link.close()
    for policy in ("never", "ifnotpresent"):
        await place.bring(made, policy)
    with pytest.raises(RuntimeError, match="closed"):
        await place.bring(made, "always")


async def test_an_engine_keeps_what_fits_and_what_is_used(
    cloud: Cloud, depot: Depot, host: RemoteHost, alice: Actor
) -> None:
    place = Place(host, limit=350_000)  # one image
    first = await place.bring(await create(cloud, alice, "one"))
    place.engine.used.add(first.engine_name)
    second = await place.bring(await create(cloud, alice, "two"))
    third = await place.bring(await create(cloud, alice, "three"))
    assert set(place.engine.loaded) == {first.engine_name, third.engine_name}
    assert second.engine_name not in place.engine.loaded
