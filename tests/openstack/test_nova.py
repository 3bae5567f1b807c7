"""A host shared with a real Nova (whose hypervisor is its fake one): neither gets what the other holds."""

import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from keystoneauth1 import session

from tests.engines import wait_until
from tests.openstack import cloud, needs
from tests.openstack.cloud import password
from tests.openstack.conftest import IDLE, Login
from tests.system.client import OpenStack

pytestmark = needs("keystone", "glance", "placement", "neutron", "nova")

_numbers = itertools.count(1)
#: MiB: what a server leaves of the host, and a container that is larger than that.
LEFT, LARGER = 1024, 1800


def ask(url: str, method: str = "GET", json: Any = None, **headers: str) -> Any:
    """A request by the cloud's administrator; what the service answers."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    answer = session.Session(auth=password("admin", "admin")).request(url, method, json=json, headers=sent)
    return answer.json() if answer.content else None


def nova(method: str, path: str, json: Any = None) -> Any:
    return ask(f"http://127.0.0.1:8774/v2.1/{path}", method, json, OpenStack_API_Version="compute 2.90")


def placement(path: str) -> Any:
    return ask(f"http://127.0.0.1:8778/{path}", OpenStack_API_Version="placement 1.38")


@pytest.fixture(scope="module")
def provider() -> str:
    """Nova's, of this machine."""

    def found() -> list[Any]:
        listed: list[Any] = placement(f"resource_providers?name={socket.gethostname()}")["resource_providers"]
        return listed

    wait_until(lambda: bool(found()), "Nova does not offer this machine")
    return str(found()[0]["uuid"])


@pytest.fixture(scope="module")
def image() -> str:
    return cloud.upload(cloud.token(password("admin", "admin")), "disk", b"x" * 1024, container_format="bare")


@pytest.fixture(scope="module")
def unlimited() -> None:
    """The servers of these tests are as large as the host."""
    nova("PUT", f"os-quota-sets/{cloud.identifier('projects', 'admin')}", {"quota_set": {"ram": -1, "force": True}})


@pytest.fixture
def boot(provider: str, image: str, unlimited: None) -> Iterator[Callable[[], str]]:
    """Have Nova start a server that leaves ``LEFT`` of the host's memory, if all of it is free; its id."""
    made = []

    def boot() -> str:
        memory = placement(f"resource_providers/{provider}/inventories")["inventories"]["MEMORY_MB"]
        size = int(memory["total"] * memory["allocation_ratio"]) - memory["reserved"] - LEFT
        name = f"large-{next(_numbers)}"
        flavor = {"name": name, "ram": size, "vcpus": 1, "disk": 1}
        flavor_id = nova("POST", "flavors", {"flavor": flavor})["flavor"]["id"]
        server = {"name": name, "imageRef": image, "flavorRef": flavor_id, "networks": "none"}
        made.append(nova("POST", "servers", {"server": server})["server"]["id"])
        return str(made[-1])

    yield boot
    for server in made:
        remove(server)


def status(server: str) -> str | None:
    """What Nova says of it; None once it is gone."""
    for one in nova("GET", "servers/detail?all_tenants=1")["servers"]:
        if one["id"] == server:
            return str(one["status"])
    return None


def remove(server: str) -> None:
    if status(server) is not None:
        nova("DELETE", f"servers/{server}")
        wait_until(lambda: status(server) is None, "Nova does not delete it")


def held(provider: str) -> int:
    """MiB that Nova sees taken."""
    return int(placement(f"resource_providers/{provider}/usages")["usages"]["MEMORY_MB"])


def create(client: OpenStack) -> str:
    name = f"beside-nova-{next(_numbers)}"
    client("run", "--name", name, "--memory", str(LARGER), "busybox", *IDLE)
    return name


def test_a_container_waits_for_no_room_that_a_server_has(boot: Callable[[], str], login: Login) -> None:
    demo = login("demo")
    server = boot()
    wait_until(lambda: status(server) == "ACTIVE", "Nova does not start it")
    refused = create(demo)
    assert "Placement has no more room on it" in demo.wait(refused, "Error")["status_reason"]
    remove(server)

    def runs() -> bool:
        # What Placement refused is asked for again after ten seconds.
        name = create(demo)
        came = demo.wait(name, "Running", "Error")["status"]
        demo.delete([name], "--stop")
        return bool(came == "Running")

    wait_until(runs, "the room of a server that is gone is not used")
    demo.delete([refused], "--stop")


def test_a_server_gets_no_room_that_containers_have(boot: Callable[[], str], login: Login, provider: str) -> None:
    demo = login("demo")
    container = create(demo)
    demo.wait(container, "Running")
    late = boot()
    wait_until(lambda: status(late) == "ERROR", "Nova takes what a container has")
    assert held(provider) >= LARGER
    demo.delete([container], "--stop")
    wait_until(lambda: held(provider) <= LEFT, "what containers had is held for ever")
    second = boot()
    wait_until(lambda: status(second) == "ACTIVE", "Nova does not get what containers had")
