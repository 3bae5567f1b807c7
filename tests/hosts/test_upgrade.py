"""From one release to the next under traffic: replicas of both side by side, and an agent of the old one."""

import asyncio
import io
import subprocess
import tarfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from higgins.store.database import make_engine
from higgins.store.migrate import revisions
from higgins.store.schema import schema_floor
from tests.engines import need
from tests.engines.images import busybox_archive
from tests.hosts.chaos.cloud import SPARE, ChaosCloud, chaos_cloud, held
from tests.hosts.chaos.history import Answer, Operation
from tests.hosts.chaos.load import Client, Load
from tests.hosts.chaos.run import remains, rest
from tests.hosts.processes import command
from tests.releases import NEXT, next_release

__all__ = ["busybox_archive"]

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = "src/higgins/store/migrations"
#: How many requests are accepted in each state of the upgrade, and seconds that this may take.
SOME, PATIENCE = 8, 180


def _git(*words: str) -> bytes | None:
    """What git prints; None where it cannot tell."""
    try:
        command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *words]
        return subprocess.run(command, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def _chain(migrations: Path) -> list[str]:
    """The revisions there, the oldest first; none where they are no chain, as in the middle of a merge."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    scripts = ScriptDirectory.from_config(config)
    try:
        with warnings.catch_warnings(action="error"):  # of a revision that is there twice
            return [one.revision for one in scripts.walk_revisions()][::-1] if len(scripts.get_heads()) == 1 else []
    except UserWarning:
        return []


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the last release with other tables: what was there before the newest migrations came."""
    changes = (_git("rev-list", "--max-count=40", "HEAD", "--", f"{MIGRATIONS}/versions") or b"").decode().split()
    now = revisions()
    for change in changes:
        packed = _git("archive", f"{change}^1", "src")
        if packed is None:
            continue
        place = tmp_path_factory.mktemp("previous")
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(place, filter="data")
        chain = _chain(place / MIGRATIONS)
        if chain and chain != now and chain == now[: len(chain)]:
            return place / "src"
    pytest.skip("there is no release with older tables: this tree has no history, or not enough of it")


@pytest.fixture
def cloud(own_namespaces: None, busybox_archive: Path, previous: Path) -> Iterator[ChaosCloud]:
    need("dockerd", "docker", "runc", "catatonit", "ip", "nsenter", "nft")
    with chaos_cloud(busybox_archive, ("one",), source=previous) as made:
        yield made


@asynccontextmanager
async def traffic(cloud: ChaosCloud, client: Client) -> AsyncIterator[Load]:
    _, made = await client.insist("POST", "networks", json={"name": "beside"})
    cloud.network = made["uuid"]
    load = Load(client, cloud.network, seed=1)
    asking = asyncio.create_task(load.run(2))
    try:
        yield load
    finally:
        load.end()
        await asking


async def goes_on(load: Load) -> None:
    """Until some more requests were accepted."""

    def accepted() -> int:
        return sum(one.outcome == "accepted" for one in load.history if one.answers)

    wanted = accepted() + SOME
    await until(lambda: accepted() >= wanted, lambda: f"{load.history[-5:]}")


async def until(claim: Callable[[], bool], what: Callable[[], str]) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + PATIENCE
    while not claim():
        assert clock() < deadline, what()
        await asyncio.sleep(0.2)


@pytest.mark.timeout(900)
async def test_an_upgrade_loses_no_request_and_no_container(cloud: ChaosCloud) -> None:
    old, new = cloud.replicas
    (one,) = cloud.machines
    client = Client([old.url, new.url], old.credentials())
    try:
        body = {"name": "stays", "image": "busybox", "command": ["sleep", "86400"]}
        _, made = await client.insist("POST", "containers?run=true", json=body)
        stays = made["uuid"]
        await until(lambda: stays in held(one).running, lambda: f"{held(one)}")
        before = one.containers()
        async with traffic(cloud, client) as load:
            await goes_on(load)  # all of it is old
            new.source = None
            await asyncio.to_thread(new.start)  # it brings the tables to its version; the old one works on with them
            await goes_on(load)
            await asyncio.to_thread(old.stop)
            await goes_on(load)  # the agent is older than the control plane
            assert one.agent is not None
            await asyncio.to_thread(one.agent.stop)
            one.source = None
            await asyncio.to_thread(one.start, *SPARE)
            await goes_on(load)
        history = [Operation("stays", "create", [Answer(202)], stays), *load.history]
        found = await rest(cloud, client, history)
        assert found == [], found
        lost = [one for one in load.history if not (one.answers and one.answers[-1].final)]
        assert not lost, "\n".join(map(repr, lost))
        assert stays in held(one).running
        assert before & one.containers(), "it is another container"
        assert await remains(cloud, client) == []
    finally:
        await client.close()


async def test_an_api_process_is_started_again_beside_the_next_release_unless_that_forbids_it(
    own_namespaces: None, busybox_archive: Path, tmp_path: Path
) -> None:
    with chaos_cloud(busybox_archive, ()) as cloud:
        old, new = cloud.replicas
        new.stop()
        new.source = next_release(tmp_path)
        new.start()
        old.stop()
        old.start()
        for one in (old, new):
            client = Client([one.url], old.credentials())
            await client.insist("POST", "networks", json={"name": f"of {one.name}"})
            await client.close()
        old.stop()
        engine = make_engine(cloud.database.url)
        with engine.begin() as conn:
            conn.execute(sa.update(schema_floor).values(revision=NEXT))
        engine.dispose()
        refused = await asyncio.to_thread(command, "api", *old.options())
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1].startswith(
            f"higgins: The database is at revision {NEXT}, made by a newer"
        )
        assert "Traceback" not in refused.stderr
