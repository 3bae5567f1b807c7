"""A container's image in the image service: answered at once, told of as it goes, and nothing left where it fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from msgspec import structs

from higgins.control import actions, containers, housekeeping, looking
from higgins.control.cloud import Actor, Cloud
from higgins.control.delivery import Depot
from higgins.control.snapshots import TooManyCommits
from higgins.images.shelf import Shelf
from higgins.model.errors import Conflict, EngineError, HostUnavailable, Invalid, StoreUnavailable
from higgins.model.resources import Action
from higgins.openstack.errors import ServiceUnavailable
from higgins.store.schema import action
from tests.contract.workloads import until
from tests.control.conftest import Clock, Host, draft
from tests.images.service import ScriptedImages


class Engine:
    """What is asked of a host about images: ``there`` are those that it has now."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.breaks_off = False
        self.keeps = False

    async def commit(self, uuid: str, name: str) -> str:
        self.there.append(name)
        return "sha256:made"

    @asynccontextmanager
    async def save(self, image: str) -> AsyncIterator[AsyncIterator[bytes]]:
        assert image in self.there
        yield self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(2**20)
        if self.breaks_off:
            raise EngineError("The engine lost the image.")

    async def remove_image(self, name: str) -> None:
        if self.keeps:
            raise HostUnavailable("The host does not answer.")
        self.there.remove(name)


@pytest.fixture
def engine(cloud: Cloud, host: Host) -> Engine:
    made = Engine()
    cloud.connect("one", made)  # type: ignore[arg-type]
    return made


@pytest.fixture
def service() -> ScriptedImages:
    return ScriptedImages()


@pytest.fixture
async def depot(cloud: Cloud, service: ScriptedImages, tmp_path: Path) -> AsyncIterator[Depot]:
    cloud.depot = Depot(service, Shelf(tmp_path))
    yield cloud.depot
    await cloud.depot.close()


@pytest.fixture
async def one(cloud: Cloud, host: Host, engine: Engine, depot: Depot, alice: Actor) -> str:
    """A container that runs."""
    made = await containers.create(cloud, alice, draft(memory=64, cpu=0.1), run=True)
    await host.says(made.uuid, state="running")
    return made.uuid


async def commit(cloud: Cloud, actor: Actor, container: str, name: str = "mine") -> str:
    return await looking.commit(cloud, structs.replace(actor, request_id="req-commit"), container, name, "v1", "token")


async def record(cloud: Cloud, actor: Actor, container: str) -> Action:
    return await actions.get(cloud, actor, container, "req-commit")


async def over(cloud: Cloud, actor: Actor, container: str) -> Action:
    """The commit's record once it is over."""

    async def look() -> Action | None:
        found = await record(cloud, actor, container)
        return found if found.finish_time is not None else None

    return await until(look)


async def until_sent(cloud: Cloud, actor: Actor, container: str) -> None:
    """Some of it, as is told."""

    async def sending() -> bool:
        return "sent to the image service" in ((await record(cloud, actor, container)).message or "")

    await until(sending)


async def tidied(cloud: Cloud) -> None:
    """What is left over is taken away, as far as that can be now."""
    assert cloud.depot is not None
    await cloud.depot.snapshots.keeper(cloud).round()


async def test_a_commit_becomes_an_image_and_leaves_none_on_the_host(
    cloud: Cloud, engine: Engine, service: ScriptedImages, one: str, alice: Actor
) -> None:
    made = await commit(cloud, alice, one)
    assert service.there == {made: "mine:v1"}
    done = await over(cloud, alice, one)
    assert (done.result, done.message) == ("Success", f"Image {made}: 3.0 MiB.")
    assert service.uploaded == {"mine:v1": bytes(3 * 2**20)}
    await tidied(cloud)
    assert engine.there == [] and service.there == {made: "mine:v1"}


async def test_an_image_that_was_sent_stays_though_its_host_cannot_be_tidied_now(
    cloud: Cloud, engine: Engine, service: ScriptedImages, one: str, alice: Actor, clock: Clock
) -> None:
    engine.keeps = True
    made = await commit(cloud, alice, one)
    assert (await over(cloud, alice, one)).result == "Success"
    await tidied(cloud)
    assert service.there == {made: "mine:v1"} and engine.there
    engine.keeps = False
    clock.forward(60)
    await tidied(cloud)
    assert service.there == {made: "mine:v1"} and not engine.there


async def test_how_far_it_is_is_told_and_other_changes_do_not_end_it(
    cloud: Cloud, host: Host, service: ScriptedImages, one: str, alice: Actor
) -> None:
    service.gate.clear()
    await commit(cloud, alice, one)

    await until_sent(cloud, alice, one)
    await containers.pause(cloud, alice, one)
    await host.says(one, state="paused")
    assert (await record(cloud, alice, one)).finish_time is None
    service.gate.set()
    assert (await over(cloud, alice, one)).result == "Success"


@pytest.mark.parametrize("whose", ["service", "engine"])
async def test_what_fails_says_why_and_leaves_no_image(
    cloud: Cloud, engine: Engine, service: ScriptedImages, one: str, alice: Actor, clock: Clock, whose: str
) -> None:
    if whose == "engine":
        engine.breaks_off = True
    else:
        service.fails = ServiceUnavailable("Glance", "no image can be made")
    await commit(cloud, alice, one)
    done = await over(cloud, alice, one)
    assert done.result == "Error"
    assert ("The engine lost the image" if whose == "engine" else "Glance does not answer now") in (done.message or "")
    await tidied(cloud)
    assert bool(service.there) is (whose == "service"), "it waits until the service answers again"
    service.fails = None
    clock.forward(60)
    await tidied(cloud)
    assert not service.there and not engine.there


async def test_an_answer_that_is_lost_leaves_no_image(
    cloud: Cloud, service: ScriptedImages, one: str, alice: Actor
) -> None:
    service.loses_answers = True
    with pytest.raises(ServiceUnavailable):
        await commit(cloud, alice, one)
    done = await record(cloud, alice, one)
    assert (done.result, service.there != {}) == ("Error", True)
    await tidied(cloud)
    assert not service.there


async def test_when_the_token_is_over_what_is_left_is_taken_away_by_a_trust(
    cloud: Cloud, engine: Engine, depot: Depot, service: ScriptedImages, one: str, alice: Actor, clock: Clock
) -> None:
    service.fails = ServiceUnavailable("Glance", "no image can be made")
    await commit(cloud, alice, one)
    await over(cloud, alice, one)
    service.good.remove("token")
    clock.forward(3600)
    await depot.owners.tidy(cloud)
    assert service.given_back == [], "the trust is needed yet"
    service.fails = None
    await tidied(cloud)
    assert not service.there
    await depot.owners.tidy(cloud)
    assert service.given_back == ["trust-0-of-alice"]


async def test_what_cannot_be_begun_is_refused_at_once(
    cloud: Cloud, host: Host, service: ScriptedImages, one: str, alice: Actor
) -> None:
    with pytest.raises(Invalid, match="keeps for itself"):
        await commit(cloud, alice, one, "glance.invalid/other")
    with pytest.raises(Conflict, match="taken"):
        await looking.commit(cloud, alice, one, "taken", "latest", "token")
    await looking.commit(cloud, alice, one, "fine", "latest", "token")
    cloud.disconnect("one")
    with pytest.raises(HostUnavailable):
        await commit(cloud, alice, one)


async def test_what_cannot_be_written_down_is_not_begun(
    cloud: Cloud, service: ScriptedImages, one: str, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(work: object) -> None:
        raise StoreUnavailable("The database does not answer now.")

    monkeypatch.setattr(cloud.store, "write", away)
    with pytest.raises(StoreUnavailable):
        await commit(cloud, alice, one)
    assert not service.there


async def test_a_process_that_ends_says_so(
    cloud: Cloud, depot: Depot, service: ScriptedImages, one: str, alice: Actor
) -> None:
    service.gate.clear()
    await commit(cloud, alice, one)
    await depot.close()
    done = await record(cloud, alice, one)
    assert (done.result, "ended" in (done.message or "")) == ("Error", True)
    await tidied(cloud)
    assert not service.there


async def test_what_a_process_was_at_that_died_is_taken_away_after_a_while(
    cloud: Cloud, engine: Engine, service: ScriptedImages, one: str, alice: Actor, clock: Clock
) -> None:
    service.gate.clear()
    await commit(cloud, alice, one)
    await until_sent(cloud, alice, one)
    clock.forward(50)
    await tidied(cloud)
    assert service.there and engine.there, "somebody may be at it"
    clock.forward(20)
    await tidied(cloud)
    assert not service.there and not engine.there
    service.gate.set()
    assert (await over(cloud, alice, one)).result == "Error", "who was only slow finds nothing any more"


async def test_what_a_dead_process_was_at_is_over_after_a_while(
    cloud: Cloud, one: str, alice: Actor, clock: Clock
) -> None:
    left = {
        "container_uuid": one, "request_id": "req-commit", "action": "commit", "project_id": "red", "user_id": "alice",
        "generation": 2**31 - 1, "start_time": clock(), "alive_at": clock(),
    }  # fmt: skip
    await cloud.store.write(lambda conn: conn.execute(sa.insert(action).values(left)).rowcount)
    clock.forward(50)
    await cloud.store.write(lambda conn: housekeeping.sweep(conn, cloud))
    assert (await record(cloud, alice, one)).finish_time is None
    clock.forward(20)
    await cloud.store.write(lambda conn: housekeeping.sweep(conn, cloud))
    done = await record(cloud, alice, one)
    assert (done.result, "interrupted" in (done.message or "")) == ("Error", True)


async def test_of_a_container_one_image_is_made_at_once_and_of_a_projects_four(
    cloud: Cloud, host: Host, service: ScriptedImages, one: str, alice: Actor, bob: Actor
) -> None:
    async def another(actor: Actor) -> str:
        made = await containers.create(cloud, actor, draft(memory=64, cpu=0.1), run=True)
        await host.says(made.uuid, state="running")
        return made.uuid

    service.gate.clear()
    await commit(cloud, alice, one)
    with pytest.raises(Conflict, match="already"):
        await commit(cloud, alice, one, "again")
    for number in range(3):
        await commit(cloud, alice, await another(alice), f"more-{number}")
    last = await another(alice)
    with pytest.raises(TooManyCommits):
        await commit(cloud, alice, last, "last")
    assert sorted(service.there.values()) == ["mine:v1", *(f"more-{number}:v1" for number in range(3))]
    await commit(cloud, bob, await another(bob), "theirs")
    service.gate.set()
    assert (await over(cloud, alice, one)).result == "Success"
    await commit(cloud, alice, last, "last")
    assert (await over(cloud, alice, last)).result == "Success"
