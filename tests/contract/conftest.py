"""One suite for every engine. Add a line to ``ENGINES``, and a driver is held to all of it."""

import asyncio
import os
from collections.abc import AsyncIterator, Generator, Mapping
from typing import Protocol

import pytest

from higgins.runtimes.base import Runtime
from tests.contract.workloads import SHARED, Workloads
from tests.engines import Engine, seen
from tests.engines.containerd import (
    ContainerdEngine,
    containerd_engine,
    containerd_sid,
    containerd_trixie,
    containerd_users,
    plain_cri,
)
from tests.engines.docker import DockerEngine, docker_engine, docker_sid, docker_store, docker_trixie
from tests.engines.images import busybox_archive
from tests.engines.podman import podman_engine
from tests.engines.registry import registry
from tests.engines.seen import LeftOut, Sight

__all__ = [
    "busybox_archive",
    "containerd_engine",
    "containerd_sid",
    "containerd_trixie",
    "containerd_users",
    "docker_engine",
    "docker_sid",
    "docker_store",
    "docker_trixie",
    "plain_cri",
    "podman_engine",
    "registry",
]

#: The name of an engine → the session fixture that gives it, running. (Its module's fixtures are imported above.)
ENGINES = {
    "containerd": "containerd_engine",
    "containerd-trixie": "containerd_trixie",
    "containerd-sid": "containerd_sid",
    "containerd-users": "containerd_users",
    "plain-cri": "plain_cri",
    "docker": "docker_engine",
    "docker-trixie": "docker_trixie",
    "docker-sid": "docker_sid",
    "docker-store": "docker_store",
    "podman": "podman_engine",
}

#: Those that "make test" has; the others take minutes, and are tried by "make test-engines".
USUAL = "containerd,docker"

#: Set when what the suite sees shall be written down: see ``tests.engines.seen``.
RECORD = "HIGGINS_SEEN"
LEFT_OUT = pytest.StashKey[LeftOut]()

#: Whether the run is one that may take its time, as "make test-engines" is.
THOROUGH = "HIGGINS_ENGINES" in os.environ

CHOSEN = os.environ.get("HIGGINS_ENGINES", USUAL).split(",")


def some(kind: str) -> list[str]:
    return [name for name in CHOSEN if name.startswith(kind)]


@pytest.fixture(scope="session", params=CHOSEN)
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(ENGINES[request.param])
    return found


@pytest.fixture(scope="session", params=some("containerd"))
def a_containerd(request: pytest.FixtureRequest) -> ContainerdEngine:
    """Each containerd among them, for what only its driver does."""
    found: ContainerdEngine = request.getfixturevalue(ENGINES[request.param])
    return found


@pytest.fixture(scope="session", params=some("docker"))
def a_docker(request: pytest.FixtureRequest) -> DockerEngine:
    """Each Docker among them, for what only Docker's driver does."""
    found: DockerEngine = request.getfixturevalue(ENGINES[request.param])
    return found


def leave_out(request: pytest.FixtureRequest, engine: Engine) -> None:
    """Skip a test that needs what the engine cannot do."""
    for marker in request.node.iter_markers("needs"):
        for verb in marker.args:
            if verb in engine.cannot:
                name = seen.claim(request.node.name)
                request.node.stash[LEFT_OUT] = LeftOut(claim=name, part=verb, reason=engine.cannot[verb])
                pytest.skip(f"{engine.name}: {engine.cannot[verb]}")


@pytest.fixture
async def runtime(engine: Engine, request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    """An open driver. Tests that need what some engine cannot do say so: ``@pytest.mark.needs("commit")``."""
    leave_out(request, engine)
    driver = await engine.open()
    yield driver
    await driver.close()


@pytest.fixture
async def workloads(engine: Engine, runtime: Runtime) -> AsyncIterator[Workloads]:
    """Makes workloads, and removes at the end whatever the test left on the engine."""
    made = Workloads(runtime, engine.image)
    yield made
    left = await runtime.list()
    uuids = {sandbox.uuid for sandbox in left.sandboxes} | {container.sandbox for container in left.containers}
    await asyncio.gather(*(runtime.remove_sandbox(uuid) for uuid in uuids - {SHARED}))


@pytest.fixture
async def box(workloads: Workloads) -> str:
    """A container that sleeps, for tests that only look into it or write files of their own. Its uuid.

    It is shared by all of them, because making one takes longer than most of these tests.
    """
    return await workloads.shared()


class Note(Protocol):
    """``note("/dev/shm", "65536k")``: what this engine does how. It fails where the record of this version differs."""

    def __call__(self, what: str, how: str) -> None: ...


#: By engine, what this run has seen.
_seen: dict[str, Sight] = {}


@pytest.fixture
async def note(request: pytest.FixtureRequest, runtime: Runtime) -> Note:
    name: str = request.node.callspec.params["engine"]
    version = (await runtime.info()).version
    sight = _sight(name)
    sight.version = version
    kept = seen.read(name)

    def observed(what: str, how: str) -> None:
        sight.observed[what] = how
        if kept is not None and kept.version == version and not os.environ.get(RECORD):
            written = kept.observed.get(what)
            assert written == how, f"{what}: {how!r}, and written is {written!r}: run make differences"

    return observed


def _sight(engine: str) -> Sight:
    return _seen.setdefault(engine, Sight(version=""))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember which claims held, and which were left out for want of what."""
    report = yield
    params: Mapping[str, str] = item.callspec.params if hasattr(item, "callspec") else {}
    if engine := next((params[name] for name in ("engine", "a_containerd", "a_docker") if name in params), None):
        if report.when == "call" and report.passed:
            _sight(engine).held += 1
        if left_out := item.stash.get(LEFT_OUT, None):
            _sight(engine).left_out.append(left_out)
            del item.stash[LEFT_OUT]
    return report


def pytest_sessionfinish(exitstatus: int) -> None:
    """Write what was seen where that is wanted, of a run in which everything held."""
    if os.environ.get(RECORD) and exitstatus == 0:
        for engine, sight in _seen.items():
            seen.write(engine, sight)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*verbs): skip where the engine has no means for one of these verbs")
