"""A cloud on each engine in turn, for tests that must hold on all of them, and clouds of other makings."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from msgspec import Struct

from tests.engines.containerd import ContainerdEngine
from tests.engines.docker import DockerEngine
from tests.system.behind import BehindContainerd, BehindDocker, BehindTheBack
from tests.system.cloud import HigginsUp
from tests.system.launcher import Launcher


class Stage(Struct):
    """Higgins, and its engine as an operator drives it."""

    up: HigginsUp
    behind: BehindTheBack


_in_place: list[HigginsUp] = []


@contextlib.contextmanager
def in_place_of(
    cloud: HigginsUp, engine: Sequence[str], launcher: Launcher, data: Path | None = None
) -> Iterator[HigginsUp]:
    """Higgins on another engine or with other data. A host has one Higgins, so the one that serves rests meanwhile.

    That is the cloud of the session, or the one that is in its place.
    """
    resting = _in_place[-1] if _in_place else cloud
    resting.stop()
    place = data or Path(tempfile.mkdtemp(prefix="higgins-other"))
    up = HigginsUp(place, engine, launcher)
    _in_place.append(up)
    try:
        up.start()
        yield up
    finally:
        _in_place.remove(up)
        up.end()
        if data is None:
            shutil.rmtree(place)
        resting.start()


@pytest.fixture(scope="module", params=["docker", "cri"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Higgins on one engine. It runs, and whoever ends it starts it again."""
    cloud: HigginsUp = request.getfixturevalue("cloud")
    if request.param == "docker":
        docker: DockerEngine = request.getfixturevalue("docker_engine")
        yield Stage(cloud, BehindDocker(docker))
        return
    containerd: ContainerdEngine = request.getfixturevalue("containerd_engine")
    with in_place_of(cloud, containerd.options, request.getfixturevalue("launcher")) as up:
        yield Stage(up, BehindContainerd(containerd))
