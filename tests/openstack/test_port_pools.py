"""Ports made ahead in a real Neutron: made with one request, given to one container each, and never left over."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import json

from tests.openstack import needs
from tests.openstack.between import Answer, Between, Fault, Request, neutron_error
from tests.openstack.cloud import ask, password, token
from tests.openstack.conftest import IDLE, HigginsInCloud, Ports
from tests.openstack.neutron import Inside, Network, Tenant, eventually, taps, wired
from tests.system.client import OpenStack

pytestmark = needs("keystone", "neutron")

Run = Callable[..., str]
SIZE = 4
AT_ONCE = 20


@pytest.fixture(scope="module")
def options(networked: HigginsInCloud) -> Iterator[Callable[[str], None]]:
    """Start Higgins again with these in the group ``[neutron]``; without them once the module is done."""
    before = networked.configuration.read_text()

    def start(more: str) -> None:
        networked.stop()
        networked.configuration.write_text(f"{before}\n[neutron]\n{more}\n")
        networked.start()

    yield start
    start("")


@pytest.fixture(scope="module", autouse=True)
def pooled(options: Callable[[str], None]) -> None:
    options(f"port_pool = {SIZE}\nready_timeout = 5")


@pytest.fixture(autouse=True)
def nothing_is_left(networked: HigginsInCloud) -> Iterator[None]:
    """Of what the test made, on the host. Its network cannot be deleted while a port is left in Neutron."""
    yield
    eventually(lambda: not wired() and not taps(), f"{wired()} and {taps()} are left")


@pytest.fixture
def first(run: Run, networked: HigginsInCloud) -> str:
    """A container after which the pool was filled."""
    name = run()
    eventually(lambda: len(networked.spare_ports()) == SIZE, "ports are made ahead")
    return name


@pytest.fixture
def spare(networked: HigginsInCloud, network: Network, first: str) -> Callable[[], set[str]]:
    """The ports that no container has: those that Higgins would give and that are in Neutron."""
    return lambda: networked.spare_ports() & {one["id"] for one in network.ports()}


def making(request: Request) -> list[dict[str, object]]:
    """What ports a request is to make."""
    if request.method != "POST" or not request.path.startswith("/v2.0/ports"):
        return []
    body = json.decode(request.body)
    return list(body.get("ports") or [body["port"]])


def looks(request: Request) -> bool:
    """Whether it asks if ports are still there."""
    return request.method == "GET" and request.path.startswith("/v2.0/ports?id=")


def no_more(answer: Answer) -> Fault:
    return lambda request: answer if making(request) else None


def test_they_are_made_with_one_request_and_a_container_has_one_at_once(
    client: OpenStack, admin: Tenant, between: Between, network: Network, spare: Callable[[], set[str]], first: str,
    run: Run, ports: Ports,
) -> None:  # fmt: skip
    asked = [len(made) for one in between.seen if (made := making(one)) and made[0]["network_id"] == network.id]
    assert asked == [1, SIZE]
    ahead = spare()
    (there,) = ports(first)
    hosts = {one["binding:host_id"] for one in admin.ask("GET", f"ports?network_id={network.id}")["ports"]} - {""}
    assert len(ahead) == SIZE and len(hosts) == 1
    with between.failing(no_more(Answer(503, b"gone"))):  # it needs no port that Neutron would have to make
        name = run()
    (port,) = ports(name)
    assert port.id in ahead
    uuid = client.show(name)["uuid"]

    def known() -> bool:
        (found,) = [one for one in network.ports() if one["id"] == port.id]
        return (found["device_id"], found["status"]) == (uuid, "ACTIVE")

    eventually(known, "Neutron knows whose it is")
    assert Inside(port.id).pings(there.addresses[0])
    eventually(lambda: len(spare()) == SIZE, "the pool is filled again")


def test_twenty_at_once_have_twenty_ports(
    client: OpenStack, networked: HigginsInCloud, network: Network, spare: Callable[[], set[str]], ports: Ports
) -> None:
    ahead, own = spare(), token(password("demo", "demo"))

    def create(number: int) -> str:
        body = {"name": f"many{number}", "image": "busybox", "command": list(IDLE), "cpu": 0.1, "memory": "32"}
        asked = {**body, "nets": [{"network": network.id}]}
        answer = ask(f"{networked.url}/containers?run=true", "POST", token=own, json=asked)
        assert answer.status == 202, answer
        return str(answer.body["uuid"])

    with ThreadPoolExecutor(AT_ONCE) as threads:
        uuids = list(threads.map(create, range(AT_ONCE)))
    try:
        for uuid in uuids:
            client.wait(uuid, "Running")
        given = {uuid: ports(uuid)[0].id for uuid in uuids}
        assert len(set(given.values())) == AT_ONCE and ahead <= set(given.values())

        def known() -> bool:
            devices = {one["id"]: one["device_id"] for one in network.ports()}
            return all(devices[port] == uuid for uuid, port in given.items())

        eventually(known, "Neutron knows whose each is")
    finally:
        client.delete(uuids, "--stop")


def test_one_that_somebody_deletes_is_made_anew(admin: Tenant, spare: Callable[[], set[str]]) -> None:
    gone = spare().pop()
    admin.ask("DELETE", f"ports/{gone}")
    eventually(lambda: len(spare()) == SIZE, "there is another one in its stead")


def test_one_that_is_gone_when_it_is_taken_is_made_anew(
    client: OpenStack, admin: Tenant, between: Between, spare: Callable[[], set[str]], begin: Run, first: str,
    ports: Ports,
) -> None:  # fmt: skip
    ahead = spare()
    with between.failing(lambda request: Answer(503) if looks(request) else None):  # so that nobody misses them
        for one in ahead:
            admin.ask("DELETE", f"ports/{one}")
        name = begin()
        eventually(lambda: not {one.id for one in ports(name)} & ahead and bool(ports(name)), "it has another one")
    eventually(
        lambda: client.status(name) == "Running", "with that it runs, also if its host had given up the first one"
    )
    (port,), (there,) = ports(name), ports(first)
    eventually(lambda: f"tap{port.id[:11]}" in wired(), "its host plugs that")
    eventually(lambda: Inside(port.id).pings(there.addresses[0]), "and it reaches its neighbour")


def test_one_in_other_groups_is_given_to_nobody(tenant: Tenant, spare: Callable[[], set[str]]) -> None:
    changed = spare().pop()
    (group,) = tenant.ask("GET", f"security-groups?name={tenant.group()}")["security_groups"]
    tenant.ask("PUT", f"ports/{changed}", {"port": {"security_groups": [group["id"]]}})
    eventually(lambda: changed not in spare() and len(spare()) == SIZE, "there is another one in its stead")
    assert tenant.show_port(changed) is None


def test_a_crash_while_they_are_made_leaves_none_too_many(
    between: Between, networked: HigginsInCloud, network: Network, run: Run, spare: Callable[[], set[str]]
) -> None:
    lost: Fault = lambda request: Answer(0, passed=True) if making(request) else None  # noqa: E731
    with between.failing(lost) as met:
        run()
        eventually(lambda: bool(met), "the pool is filled again")
        networked.kill()
    networked.start()
    eventually(lambda: len(network.ports()) == 2 + SIZE, "the pool is full")
    eventually(lambda: len(spare()) == SIZE, "and holds what was made before the crash")


def test_a_container_goes_before_a_pool(
    client: OpenStack, between: Between, network: Network, run: Run, ports: Ports, spare: Callable[[], set[str]]
) -> None:
    """Neutron's quota is used up by what was made ahead: the project gets it back when it wants another port."""
    ahead = spare()

    def full(request: Request) -> Answer | None:
        over = making(request) and len(network.ports()) > SIZE
        return neutron_error(409, "OverQuota", "Quota exceeded for resources: ['port'].") if over else None

    with between.failing(full):
        name = run(nets=(f"network={network.name},v4-fixed-ip=10.70.0.200",))
    assert ports(name)[0].addresses == ("10.70.0.200",)
    eventually(lambda: not ahead & spare(), "they are given back")


def test_turned_off_they_go(
    options: Callable[[str], None], client: OpenStack, network: Network, first: str, ports: Ports
) -> None:
    (port,) = ports(first)
    options("port_pool = 0")
    eventually(lambda: [one["id"] for one in network.ports()] == [port.id], "what was made ahead is gone")
    assert client.status(first) == "Running"
    options(f"port_pool = {SIZE}\nready_timeout = 5")
