"""Higgins registered in a real Keystone, serving with ``auth = keystone`` on an engine of its own."""

import contextlib
import itertools
import os
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import webob  # type: ignore[import-untyped]  # noqa: F401  it imports cgi, which Python 3.13 no longer has

from tests.engines.docker import DockerEngine, docker_engine, running_docker
from tests.engines.images import busybox_archive
from tests.openstack import SERVICES
from tests.openstack import cloud as openstack_cloud
from tests.openstack.between import Between, internal_endpoint
from tests.openstack.faulty import Way
from tests.openstack.neutron import Network, Port, Tenant, ports_of
from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp

__all__ = ["busybox_archive", "docker_engine"]

Login = Callable[..., OpenStack]
_REGION = "Networked"
_numbers = itertools.count(1)
#: Sleeps, and ends as soon as it is told to.
IDLE = ("sh", "-c", "trap exit TERM; sleep 100000 & wait")
Ports = Callable[[str], list[Port]]


class HigginsInCloud(HigginsUp):
    """``higgins up`` with a configuration file in its data directory."""

    @property
    def url(self) -> str:
        return f"http://{self.listen}/v1"

    @property
    def configuration(self) -> Path:
        return self.data / "higgins.conf"

    def spare_ports(self) -> set[str]:
        """The ports of Neutron that are made ahead, and can be taken."""
        with contextlib.closing(sqlite3.connect(f"file:{self.data}/higgins.db?mode=ro", uri=True)) as database:
            return {port for (port,) in database.execute("SELECT port FROM cloud_port WHERE state = 'spare'")}

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
def cinder_proxy() -> Iterator[Between]:
    """What stands between Higgins and Cinder, for whoever wants to disturb it."""
    with internal_endpoint("block-storage", 8776, "/v3") as proxy:
        yield proxy


@pytest.fixture(scope="session")
def volume_types() -> None:
    """Volume types: one for each backend, and one whose volumes may be attached several times."""
    cinder = openstack_cloud.cinder
    there = {one["name"] for one in cinder("GET", "types", "admin")["volume_types"]}
    for name, more in (
        ("loop", {"volume_backend_name": "loop"}),
        ("nfs", {"volume_backend_name": "nfs"}),
        ("shared", {"volume_backend_name": "loop", "multiattach": "<is> True"}),
    ):
        if name not in there:
            cinder("POST", "types", "admin", {"volume_type": {"name": name, "extra_specs": more}})


@pytest.fixture(scope="session")
def higgins(docker_engine: DockerEngine, way: Way, request: pytest.FixtureRequest) -> Iterator[HigginsInCloud]:
    """Higgins as the operator's guide sets it up. A token is believed for two seconds, so that tests need not wait."""
    if "cinder" in SERVICES:
        request.getfixturevalue("cinder_proxy")
    with tempfile.TemporaryDirectory(prefix="higgins-openstack") as directory:
        up = HigginsInCloud(Path(directory), ["--runtime", "docker", "--docker-url", docker_engine.url])
        settings = register(up.url).stdout
        more = "[placement]\nenabled = true\nstep_cpu = 2\nstep_memory = 256\n" if "placement" in SERVICES else ""
        up.configuration.write_text(f"{settings}token_cache_time = 2\n{_more(way)}{more}")
        up.start()
        yield up
        up.end()


def _more(way: Way) -> str:
    """The settings for images and volumes, as far as there are services for them."""
    more = f"[glance]\nenabled = true\nendpoint = {way.url}\n" if "glance" in SERVICES else ""
    return more + ("[DEFAULT]\nvolume = cinder\n" if "cinder" in SERVICES else "")


@contextlib.contextmanager
def logins(region: str = "RegionOne") -> Iterator[Login]:
    """``login("demo")``, ``login("rita", "demo")``: the client of a user in a project, kept for the session."""
    clients: dict[tuple[str, str], OpenStack] = {}

    def client(user: str, project: str | None = None) -> OpenStack:
        key = (user, project or user)
        if key not in clients:
            clients[key] = OpenStack(openstack_cloud.environment(*key) | {"OS_REGION_NAME": region})
        return clients[key]

    yield client
    for one in clients.values():
        one.close()


@pytest.fixture(scope="session")
def login(higgins: HigginsInCloud) -> Iterator[Login]:
    with logins() as login:
        yield login


@pytest.fixture(scope="session")
def between() -> Iterator[Between]:
    """A proxy in front of Neutron, through which Higgins in the region ``Networked`` reaches it."""
    made = Between(9696)
    yield made
    made.close()


@pytest.fixture(scope="session")
def networked_engine(own_namespaces: None, busybox_archive: Path) -> Iterator[DockerEngine]:
    """The engine of the Higgins that is ``networked``."""
    with running_docker(busybox_archive) as engine:
        yield engine


@pytest.fixture(scope="session")
def networked(
    between: Between, networked_engine: DockerEngine, way: Way, request: pytest.FixtureRequest
) -> Iterator[HigginsInCloud]:
    """Higgins with networks of Neutron, in a region and on an engine of its own. Whoever stops it starts it again.

    It looks every two seconds whether a port is still there.
    """
    places = {"identity": openstack_cloud.AUTH_URL.removesuffix("/v3"), "network": between.url}
    if "cinder" in SERVICES:
        places["block-storage"] = f"{request.getfixturevalue('cinder_proxy').url}/v3"
    openstack_cloud.region(_REGION, places)
    with tempfile.TemporaryDirectory(prefix="higgins-neutron") as directory:
        up = HigginsInCloud(Path(directory), networked_engine.options)
        password = Path(directory) / "password"
        password.write_text(openstack_cloud.PASSWORD)
        user = ("--user", "higgins-neutron", "--password-file", str(password))
        settings = register(up.url, "--region", _REGION, *user).stdout
        up.configuration.write_text(
            f"{settings}token_cache_time = 2\n[network]\ndriver = neutron\n[neutron]\ncheck_every = 2\n{_more(way)}"
        )
        up.start()
        yield up
        up.end()


@pytest.fixture(scope="session")
def tenant_login(networked: HigginsInCloud) -> Iterator[Login]:
    """As ``login``, of the Higgins that is ``networked``."""
    with logins(_REGION) as login:
        yield login


@pytest.fixture(scope="session")
def tenant() -> Tenant:
    return Tenant("demo", "demo")


@pytest.fixture(scope="session")
def admin() -> Tenant:
    """Who may delete ports that are in use."""
    return Tenant("admin", "admin")


@pytest.fixture
def network(tenant: Tenant) -> Iterator[Network]:
    made = tenant.network("10.70.0.0/24")
    yield made
    made.delete()


@pytest.fixture
def client(tenant_login: Login) -> OpenStack:
    return tenant_login("demo")


@pytest.fixture
def begin(client: OpenStack, network: Network) -> Iterator[Callable[..., str]]:
    """Have a container run on the network (or on ``nets``), without waiting for it; its name. It goes with the test."""
    names: list[str] = []

    def begin(*options: str, nets: tuple[str, ...] | None = None, command: tuple[str, ...] = IDLE) -> str:
        name = f"c{next(_numbers)}"
        names.append(name)
        chosen = nets if nets is not None else (f"network={network.name}",)
        words = [word for net in chosen for word in ("--net", net)]
        client("run", "--name", name, *words, *options, "busybox", *command)
        return name

    yield begin
    client.delete(names, "--stop")


@pytest.fixture
def run(client: OpenStack, begin: Callable[..., str]) -> Callable[..., str]:
    """The same, and wait until it is Running."""

    def run(*options: str, **more: Any) -> str:
        name = begin(*options, **more)
        client.wait(name, "Running")
        return name

    return run


@pytest.fixture
def ports(networked: HigginsInCloud) -> Ports:
    """The ports of a container."""
    own = openstack_cloud.token(openstack_cloud.password("demo", "demo"))
    return lambda container: ports_of(networked.url, container, own)
