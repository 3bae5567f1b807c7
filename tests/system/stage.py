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


@contextlib.contextmanager
def in_place_of(
    cloud: HigginsUp, engine: Sequence[str], launcher: Launcher, data: Path | None = None
) -> Iterator[HigginsUp]:
    """Higgins on another engine or with other data, while the cloud of the session rests: a host has one Higgins."""
    cloud.stop()
    place = data or Path(tempfile.mkdtemp(prefix="higgins-other"))
    up = HigginsUp(place, engine, launcher)
    try:
        up.start()
        yield up
    finally:
        if up.process is not None:
            up.stop()
        up.clean()
        if data is None:
            shutil.rmtree(place)
        cloud.start()


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
