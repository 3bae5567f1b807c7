"""A cloud on each engine in turn, for tests that must hold on all of them."""

import shutil
import tempfile
from collections.abc import Iterator
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


@pytest.fixture(scope="module", params=["docker"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Higgins on one engine. It runs, and whoever ends it starts it again.

    One host has one Higgins: the one of the session is used where it is on the engine, else it rests meanwhile.
    """
    cloud: HigginsUp = request.getfixturevalue("cloud")
    if request.param == "docker":
        docker: DockerEngine = request.getfixturevalue("docker_engine")
        yield Stage(cloud, BehindDocker(docker))
        return
    containerd: ContainerdEngine = request.getfixturevalue("containerd_engine")
    launcher: Launcher = request.getfixturevalue("launcher")
    cloud.stop()
    data = Path(tempfile.mkdtemp(prefix="higgins-cri"))
    up = HigginsUp(data, containerd.options, launcher)
    up.start()
    yield Stage(up, BehindContainerd(containerd))
    if up.process is not None:
        up.stop()
    up.clean()
    shutil.rmtree(data)
    cloud.start()
