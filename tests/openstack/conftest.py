"""Higgins registered in a real Keystone, serving with ``auth = keystone`` on an engine of its own."""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import webob  # type: ignore[import-untyped]  # noqa: F401  it imports cgi, which Python 3.13 no longer has

from tests.engines.docker import DockerEngine, docker_engine
from tests.engines.images import busybox_archive
from tests.openstack import SERVICES
from tests.openstack import cloud as openstack_cloud
from tests.openstack.faulty import Way
from tests.openstack.proxy import Proxy, internal_endpoint
from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp

__all__ = ["busybox_archive", "docker_engine"]

Login = Callable[..., OpenStack]


class HigginsInCloud(HigginsUp):
    """``higgins up`` with a configuration file in its data directory."""

    @property
    def url(self) -> str:
        return f"http://{self.listen}/v1"

    @property
    def configuration(self) -> Path:
        return self.data / "higgins.conf"

    def _arguments(self, verb: str, *options: str) -> list[str]:
        return super()._arguments(verb, "--config-file", str(self.configuration), *options)


def register(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """``higgins openstack register`` by the cloud's administrator."""
    command = [sys.executable, "-m", "higgins.cli.main", "openstack", "register", "--url", url, *options]
    environment = os.environ | openstack_cloud.environment("admin", "admin")
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True)


@pytest.fixture(scope="session")
def way() -> Iterator[Way]:
    """The way from Higgins to Glance."""
    made = Way(openstack_cloud.GLANCE)
    yield made
    made.close()


@pytest.fixture(scope="session")
def cinder_proxy() -> Iterator[Proxy]:
    """What stands between Higgins and Cinder, for whoever wants to disturb it."""
    with internal_endpoint("block-storage", "http://127.0.0.1:8776", "/v3") as proxy:
        yield proxy


@pytest.fixture(scope="session")
def higgins(docker_engine: DockerEngine, way: Way, request: pytest.FixtureRequest) -> Iterator[HigginsInCloud]:
    """Higgins as the operator's guide sets it up. A token is believed for two seconds, so that tests need not wait."""
    if "cinder" in SERVICES:
        request.getfixturevalue("cinder_proxy")
    with tempfile.TemporaryDirectory(prefix="higgins-openstack") as directory:
        up = HigginsInCloud(Path(directory), ["--runtime", "docker", "--docker-url", docker_engine.url])
        settings = register(up.url).stdout
        more = f"\n[glance]\nenabled = true\nendpoint = {way.url}\n"
        more += "[DEFAULT]\nvolume = cinder\n" if "cinder" in SERVICES else ""
        more += "[placement]\nenabled = true\nstep_cpu = 2\n" if "placement" in SERVICES else ""
        up.configuration.write_text(f"{settings}token_cache_time = 2\n{more}")
        up.start()
        yield up
        if up.process is not None:
            up.stop()
        up.clean()


@pytest.fixture(scope="session")
def login(higgins: HigginsInCloud) -> Iterator[Login]:
    """``login("demo")``, ``login("rita", "demo")``: the client of a user in a project, kept for the session."""
    clients: dict[tuple[str, str], OpenStack] = {}

    def client(user: str, project: str | None = None) -> OpenStack:
        key = (user, project or user)
        if key not in clients:
            clients[key] = OpenStack(openstack_cloud.environment(*key))
        return clients[key]

    yield client
    for one in clients.values():
        one.close()
