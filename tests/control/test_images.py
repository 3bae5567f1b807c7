"""Images made by commit: a name of the engine that belongs to one project."""

import pytest

from higgins.control import containers, images, looking, registries
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.model.container import ContainerSpec
from higgins.model.errors import Invalid
from higgins.runtimes.base import Image
from tests.control.conftest import Host, draft


class Engine:
    """What is asked of a host's engine about images."""

    def __init__(self) -> None:
        self.committed: list[str] = []
        self.removed: list[str] = []

    async def commit(self, uuid: str, name: str) -> str:
        self.committed.append(name)
        return "sha256:made"

    async def pull(self, name: str, auth: object) -> Image:
        return Image(id="sha256:pulled", names=(name,), size=1)

    async def remove_image(self, name: str) -> None:
        self.removed.append(name)


@pytest.fixture
def engine(cloud: Cloud, host: Host) -> Engine:
    made = Engine()
    cloud.connect("one", made)  # type: ignore[arg-type]
    return made


async def commit(cloud: Cloud, host: Host, actor: Actor, name: str, tag: str = "latest") -> str:
    made = await containers.create(cloud, actor, draft(memory=64, cpu=0.1), run=True)
    await host.says(made.uuid, state="running")
    return await looking.commit(cloud, actor, made.uuid, name, tag)


async def image_of(cloud: Cloud, host: Host, actor: Actor, name: str) -> tuple[str, str]:
    """What the engine is asked for when a project makes a container of an image, and when it is to pull it."""
    wanted = Draft(name=None, spec=ContainerSpec(image=name, memory=64, cpu=0.1))
    made = await containers.create(cloud, actor, wanted, run=True)
    spec = (await host.holds())[made.uuid].members[0].spec
    assert made.spec.image == name
    return spec.image, spec.image_pull_policy


async def test_what_one_project_commits_is_no_other_projects_image(
    cloud: Cloud, host: Host, engine: Engine, alice: Actor, bob: Actor
) -> None:
    await commit(cloud, host, alice, "busybox")
    (name,) = engine.committed
    assert name.startswith("higgins.invalid/")
    assert await image_of(cloud, host, bob, "busybox") == ("busybox", "ifnotpresent")
    assert await image_of(cloud, host, alice, "busybox:latest") == (name, "never")
    assert await image_of(cloud, host, alice, "busybox") == (name, "never")
    assert await image_of(cloud, host, alice, "busybox:1.36") == ("busybox:1.36", "ifnotpresent")


async def test_two_projects_and_an_administrator_have_images_of_the_same_name(
    cloud: Cloud, host: Host, engine: Engine, alice: Actor, bob: Actor, admin: Actor
) -> None:
    pulled = await images.pull(cloud, admin, "busybox", "latest", "one")
    hers, his = await commit(cloud, host, alice, "busybox"), await commit(cloud, host, bob, "busybox")
    assert len({pulled.uuid, hers, his}) == 3
    assert len(set(engine.committed)) == 2
    assert (await images.get(cloud, pulled.uuid)).image_id == "sha256:pulled"
    assert await commit(cloud, host, alice, "busybox") == hers


async def test_an_image_made_by_commit_is_taken_off_by_its_own_name(
    cloud: Cloud, host: Host, engine: Engine, alice: Actor
) -> None:
    uuid = await commit(cloud, host, alice, "mine", "v1")
    await images.delete(cloud, uuid)
    assert engine.removed == engine.committed
    assert await image_of(cloud, host, alice, "mine:v1") == ("mine:v1", "ifnotpresent")


@pytest.mark.parametrize(
    "name",
    [
        "higgins.invalid/a",
        "glance.invalid/a",
        "higgins-pause:1",
        "docker.io/library/higgins-pause",
        "Higgins.Invalid/a",
    ],
)
async def test_reserved_names_are_refused(cloud: Cloud, host: Host, engine: Engine, alice: Actor, name: str) -> None:
    with pytest.raises(Invalid):
        await image_of(cloud, host, alice, name)
    with pytest.raises(Invalid):
        await commit(cloud, host, alice, name)
    made = await containers.create(cloud, alice, draft(memory=64), run=True)
    await host.says(made.uuid, state="running")
    with pytest.raises(Invalid):
        await containers.rebuild(cloud, alice, made.uuid, image=name)
    assert engine.committed == []


async def test_a_registry_cannot_lead_to_reserved_names(cloud: Cloud, alice: Actor) -> None:
    for domain in ("higgins.invalid", "glance.invalid/a"):
        with pytest.raises(Invalid):
            await registries.create(cloud, alice, domain=domain)
    made = await registries.create(cloud, alice, domain="registry.example")
    with pytest.raises(Invalid):
        await registries.update(cloud, alice, made.uuid, {"domain": "higgins.invalid"})
