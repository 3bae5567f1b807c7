"""In whose name images of the image service are read, for how long, and what hosts are given of them."""

import asyncio
import errno
from pathlib import Path

import pytest
from msgspec import structs

from higgins.control import containers, delivery, housekeeping, images
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.delivery import Depot
from higgins.control.query import ListQuery
from higgins.images.shelf import Shelf
from higgins.model.container import ContainerSpec
from higgins.model.errors import ImagePullFailed, ImageRefused, Invalid, NotFound
from higgins.model.images import FoundImage
from higgins.model.resources import Container
from higgins.openstack.errors import ServiceUnavailable
from higgins.runtimes.base import Image
from tests.contract.workloads import until
from tests.control.conftest import Clock, Host
from tests.images.service import BASE, ScriptedImages, archive


@pytest.fixture
def service() -> ScriptedImages:
    made = ScriptedImages()
    made.put("web", archive(b"web"))
    return made


@pytest.fixture
def depot(cloud: Cloud, host: Host, service: ScriptedImages, tmp_path: Path) -> Depot:
    cloud.depot = Depot(service, Shelf(tmp_path))
    return cloud.depot


async def create(cloud: Cloud, actor: Actor, image: str = "web", **more: object) -> Container:
    wanted = ContainerSpec(image=image, image_driver="glance", cpu=0.1, memory=64, **more)  # type: ignore[arg-type]
    spec = await delivery.pinned(cloud, actor, "token", wanted)
    return await containers.create(cloud, actor, Draft(name=None, spec=spec), run=True)


async def test_a_container_keeps_what_its_image_was(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor
) -> None:
    made = await create(cloud, alice)
    service.put("web", archive(b"another"))
    found = made.spec.found
    assert found is not None and made.spec.image == "web"
    spec = (await host.holds())[made.uuid].members[0].spec
    assert (spec.image, spec.found) == (found.engine_name, found)
    await host.says(made.uuid, state="running")
    await containers.rebuild(cloud, alice, made.uuid, token="token")
    assert (await containers.get(cloud, alice, made.uuid)).spec.found == found
    await host.says(made.uuid, state="running")
    await containers.rebuild(cloud, alice, made.uuid, image="web", token="token")
    assert (await containers.get(cloud, alice, made.uuid)).spec.found != found
    await host.says(made.uuid, state="running")
    await containers.rebuild(cloud, alice, made.uuid, image="busybox", image_driver="docker")
    assert (await containers.get(cloud, alice, made.uuid)).spec.found is None


async def test_without_an_image_service_it_is_named(cloud: Cloud, host: Host, alice: Actor) -> None:
    with pytest.raises(Invalid, match="glance is not set up"):
        await create(cloud, alice)


async def test_an_image_of_the_service_comes_from_no_registry(cloud: Cloud, depot: Depot, alice: Actor) -> None:
    with pytest.raises(Invalid, match="registry"):
        await create(cloud, alice, registry_id="mine")


async def test_a_host_is_given_the_images_of_its_own_containers(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor
) -> None:
    made = await create(cloud, alice)
    parts = await delivery.contents(cloud, host.number, made.uuid, 30)
    assert parts is not None and len(parts.layers) == 2
    async with delivery.layer(cloud, host.number, made.uuid, parts.layers[0].digest) as pieces:
        assert b"".join([piece async for piece in pieces]) == BASE
    with pytest.raises(NotFound):
        await delivery.contents(cloud, host.number + 1, made.uuid, 30)
    with pytest.raises(NotFound):
        async with delivery.layer(cloud, host.number, made.uuid, f"sha256:{'0' * 64}"):
            pass
    assert len(service.saved) == 1


class Fetching:
    """A host that has images of the service once it is let; the first one who asks is told that it failed."""

    def __init__(self) -> None:
        self.asked = 0
        self.begun, self.fails = asyncio.Event(), asyncio.Event()

    async def fetch(self, uuid: str, found: FoundImage) -> Image:
        self.asked += 1
        if self.asked == 1:
            self.begun.set()
            await self.fails.wait()
            raise ImagePullFailed("The connection broke off.")
        return Image(id="sha256:fetched", names=(found.engine_name,), size=1)


async def test_a_pull_that_fails_forgets_no_image_that_another_brought_meanwhile(
    cloud: Cloud, depot: Depot, alice: Actor
) -> None:
    host = Fetching()
    cloud.connect("one", host)  # type: ignore[arg-type]
    first = asyncio.ensure_future(delivery.pull(cloud, alice, "token", "web", "one"))
    async with asyncio.timeout(30):
        await host.begun.wait()
    pulled = await delivery.pull(cloud, alice, "token", "web", "one")
    host.fails.set()
    with pytest.raises(ImagePullFailed):
        await first
    assert await images.find(cloud, ListQuery(limit=10)) == [pulled]


async def test_a_pull_whose_process_died_is_forgotten_after_a_day(
    cloud: Cloud, clock: Clock, depot: Depot, alice: Actor
) -> None:
    found = await depot.find(cloud, alice, "token", "web")
    for name, there in ((found.engine_name, None), ("busybox:latest", "sha256:there")):
        await images.record(cloud, "red", repo="web", tag="", host="one", reference=name, image_id=there, found=found)
    for day, left in ((0, 2), (2, 1)):
        clock.forward(day * 86400)
        await cloud.store.write(lambda conn: housekeeping.sweep(conn, cloud))
        assert len(await images.find(cloud, ListQuery(limit=10))) == left


async def test_who_asks_while_an_image_is_fetched_is_told_to_ask_again(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor
) -> None:
    made = await create(cloud, alice)
    service.gate.clear()
    assert await delivery.contents(cloud, host.number, made.uuid, 0) is None
    waiting = asyncio.ensure_future(delivery.contents(cloud, host.number, made.uuid, 30))
    service.gate.set()
    assert await waiting is not None
    assert len(service.saved) == 1


async def test_when_the_token_is_over_the_users_trust_is_used(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor
) -> None:
    first, second = await create(cloud, alice), await create(cloud, alice)
    assert len(service.trusts) == 1
    service.good.remove("token")
    assert await delivery.contents(cloud, host.number, first.uuid, 30) is not None
    assert [token for _, token in service.saved] == ["token", service.trusts[0]]
    assert await delivery.contents(cloud, host.number, second.uuid, 30) is not None
    assert len(service.saved) == 2


async def test_another_process_reads_by_the_trust_alone(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor, tmp_path: Path
) -> None:
    made = await create(cloud, alice)
    cloud.depot = Depot(service, Shelf(tmp_path / "other"))
    assert await delivery.contents(cloud, host.number, made.uuid, 30) is not None
    assert [token for _, token in service.saved] == service.trusts


async def test_without_token_and_trust_the_owner_is_told_what_helps(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor
) -> None:
    service.gives_trusts = False
    made = await create(cloud, alice)
    service.good.clear()
    with pytest.raises(ImageRefused, match="rebuild the container"):
        await delivery.contents(cloud, host.number, made.uuid, 30)
    service.good.add("token")
    service.gives_trusts = True
    assert (await create(cloud, alice)).spec.found == made.spec.found
    assert await delivery.contents(cloud, host.number, made.uuid, 30) is not None


async def test_a_trust_that_is_over_makes_room_for_another(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor
) -> None:
    made = await create(cloud, alice)
    service.good.clear()
    with pytest.raises(ImageRefused, match="rebuild the container"):
        await delivery.contents(cloud, host.number, made.uuid, 30)
    service.good.add("token")
    await create(cloud, alice)
    assert len(service.trusts) == 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (ServiceUnavailable("Glance", "the image cannot be read"), "Glance does not answer"),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot store the image web now: No space"),
    ],
)
async def test_what_cannot_be_done_now_is_worth_another_try(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor, fault: Exception, told: str
) -> None:
    made = await create(cloud, alice)
    service.fails = fault
    with pytest.raises(ImagePullFailed, match=told):
        await delivery.contents(cloud, host.number, made.uuid, 30)
    service.fails = None
    assert await delivery.contents(cloud, host.number, made.uuid, 30) is not None


async def test_a_trust_is_given_back_with_the_users_last_image(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor, bob: Actor, clock: Clock
) -> None:
    hers, his = await create(cloud, alice), await create(cloud, bob)
    await containers.delete(cloud, alice, hers.uuid, force=True)
    await host.removed(hers.uuid)
    await depot.owners.tidy(cloud)
    assert service.given_back == []  # somebody may be making a container just now
    clock.forward(3600)
    await depot.owners.tidy(cloud)
    assert service.given_back == [service.trusts[0]]
    assert await delivery.contents(cloud, host.number, his.uuid, 30) is not None
    await create(cloud, structs.replace(alice, request_id="req-9"))
    assert len(service.trusts) == 3


async def test_a_trust_stays_for_the_container_that_is_just_being_made(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages, alice: Actor, clock: Clock
) -> None:
    before = await create(cloud, alice)
    await containers.delete(cloud, alice, before.uuid, force=True)
    await host.removed(before.uuid)
    clock.forward(3600)
    await delivery.pinned(cloud, alice, "token", ContainerSpec(image="web", image_driver="glance", cpu=0.1, memory=64))
    await depot.owners.tidy(cloud)
    assert len(service.trusts) == 1 and service.given_back == []


async def asked(cloud: Cloud, host: Host, project: str, image: str) -> None:
    """A container of a project has an image, and its host asks for it."""
    made = await create(cloud, Actor(user_id="somebody", project_id=project), image)
    assert await delivery.contents(cloud, host.number, made.uuid, 0) is None


async def fetching(service: ScriptedImages, *images: str) -> None:
    async def claim() -> bool:
        return {name for name, _ in service.saved} >= set(images)

    await until(claim)


async def test_many_who_want_one_image_keep_nobody_from_another(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages
) -> None:
    service.put("other", archive(b"other"))
    service.gate.clear()
    for number in range(5):
        await asked(cloud, host, f"project-{number}", "web")
    await fetching(service, "web")
    await asked(cloud, host, "another", "other")
    await fetching(service, "other")
    assert [name for name, _ in service.saved] == ["web", "other"]
    await depot.close()


async def test_a_project_that_wants_many_images_leaves_half_of_the_turns_to_others(
    cloud: Cloud, host: Host, depot: Depot, service: ScriptedImages
) -> None:
    names = [f"image-{number}" for number in range(5)]
    for name in names:
        service.put(name, archive(name.encode()))
    service.gate.clear()
    for name in names:
        await asked(cloud, host, "greedy", name)
    await fetching(service, *names[:2])
    await asked(cloud, host, "modest", "web")
    await asked(cloud, host, "humble", names[4])  # which the greedy one waits for too
    await fetching(service, "web", names[4])
    assert sorted(name for name, _ in service.saved) == sorted([*names[:2], "web", names[4]])
    service.gate.set()
    await fetching(service, *names)
    await depot.close()
