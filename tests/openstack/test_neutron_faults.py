"""Neutron fails while containers come, run and go: they wait and say why, deletes end, nothing is left over."""

from collections.abc import Callable, Iterator

import pytest

from tests.openstack import cloud, needs
from tests.openstack.between import Answer, Between, Fault, Request, neutron_error
from tests.openstack.conftest import HigginsInCloud, Ports
from tests.openstack.neutron import Inside, Network, Tenant, eventually, taps, wired
from tests.system.client import OpenStack

pytestmark = needs("keystone", "neutron")

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def nothing_is_left(networked: HigginsInCloud) -> Iterator[None]:
    """Of what the test made, on the host. Its network cannot be deleted while a port is left in Neutron."""
    yield
    eventually(lambda: not wired() and not taps(), f"{wired()} and {taps()} are left")


def making(answer: Answer, *, times: int = 1000) -> Fault:
    """Ports cannot be made, so many times."""
    left = iter(range(times))
    return lambda request: answer if _makes(request) and next(left, None) is not None else None


def _makes(request: Request) -> bool:
    return request.method == "POST" and request.path.startswith("/v2.0/ports")


def always(answer: Answer) -> Fault:
    return lambda request: answer


def reason(client: OpenStack, name: str) -> str:
    return str(client.show(name)["status_reason"] or "")


QUOTA = neutron_error(409, "OverQuota", "Quota exceeded for resources: ['port'].")


def test_a_refusal_is_the_reason_and_a_start_tries_again(
    client: OpenStack, network: Network, begin: Run, between: Between, ports: Ports
) -> None:
    with between.failing(making(QUOTA)):
        name = begin()
        eventually(lambda: client.status(name) == "Error", "a definite refusal is an error")
        assert "Neutron refuses" in reason(client, name) and "Quota exceeded" in reason(client, name)
    client("start", name)
    eventually(lambda: client.status(name) == "Running", "started again it comes up")
    assert len(ports(name)) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (neutron_error(500, "HTTPInternalServerError", "Request Failed: internal server error."), "answers 500"),
        (Answer(503, b"gone for lunch"), "answers 503"),
        (Answer(429, b"slowly", headers=(("Retry-After", "1"),)), "answers 429"),
        (neutron_error(409, "RetryRequest", "Somebody was quicker."), "answers 409"),
        (Answer(0), "does not answer"),
    ],
    ids=["500", "503", "429", "409", "broken"],
)
def test_while_neutron_fails_it_waits_and_says_why(
    client: OpenStack, begin: Run, between: Between, network: Network, answer: Answer, says: str
) -> None:
    with between.failing(making(answer)) as met:
        name = begin()
        eventually(lambda: f"Neutron {says}" in reason(client, name), "its owner reads what it waits for")
        assert client.status(name) == "Creating"
        eventually(lambda: len(met) > 2, "it is tried again and again")
    client.wait(name, "Running")
    assert not reason(client, name) and len(network.ports()) == 1


def test_an_answer_that_is_lost_makes_no_second_port(
    client: OpenStack, run: Run, between: Between, network: Network
) -> None:
    with between.failing(making(Answer(0, passed=True), times=1)) as met:
        run()
    assert len(met) == 1 and len(network.ports()) == 1


def test_a_token_that_is_over_is_replaced(client: OpenStack, run: Run, between: Between) -> None:
    with between.failing(making(Answer(401, b"{}"), times=1)) as met:
        run()
    assert len(met) == 1


def test_a_slow_neutron_is_awaited(client: OpenStack, run: Run, between: Between, network: Network) -> None:
    with between.slow(1.5):
        name = run()
        client.delete([name], "--stop")
    assert network.ports() == []


def test_a_delete_ends_once_neutron_is_back(client: OpenStack, run: Run, between: Between, network: Network) -> None:
    name = run()
    with between.failing(always(Answer(503, b"gone"))):
        client("delete", "--stop", name)
        eventually(lambda: "Neutron answers 503" in reason(client, name), "its owner reads what it waits for")
        assert client.status(name) == "Deleting" and not wired(), "on its host nothing is left"
    client.wait(name, None)
    assert network.ports() == []


def test_what_was_never_made_is_deleted_all_the_same(
    client: OpenStack, begin: Run, between: Between, network: Network
) -> None:
    with between.failing(making(Answer(500, b"", passed=True))) as met:
        name = begin()
        eventually(lambda: bool(met), "a port was made, and nobody was told")
        client("delete", "--stop", name)
        client.wait(name, None)
    assert network.ports() == []


def test_a_port_that_somebody_deletes_is_made_anew(
    admin: Tenant, client: OpenStack, run: Run, network: Network, ports: Ports
) -> None:
    name, neighbour = run(), run()
    (before,) = ports(name)
    admin.ask("DELETE", f"ports/{before.id}")
    eventually(lambda: [one.id for one in ports(name)] not in ([], [before.id]), "it has another port")
    eventually(lambda: "tap" + ports(name)[0].id[:11] in wired(), "its host plugs that")
    (after,), (there,) = ports(name), ports(neighbour)
    inside = Inside(after.id)
    eventually(lambda: inside.pings(there.addresses[0]), "and it reaches its neighbour")
    assert client.status(name) == "Running" and len(network.ports()) == 2


def test_a_given_port_that_somebody_deletes_is_told(
    admin: Tenant, tenant: Tenant, client: OpenStack, run: Run, network: Network
) -> None:
    given = tenant.port(network)
    name = run(nets=(f"port={given}",))
    admin.ask("DELETE", f"ports/{given}")
    eventually(lambda: f"Port {given}" in reason(client, name), "its owner reads what is missing")
    assert client.status(name) == "Running"


def test_an_attachment_that_is_refused_leaves_the_rest_alone(
    tenant: Tenant, client: OpenStack, run: Run, between: Between, ports: Ports
) -> None:
    other = tenant.network("10.73.0.0/24")
    name = run()
    before = ports(name)
    with between.failing(making(QUOTA)):
        client("network", "attach", "--network", other.name, name)
        eventually(lambda: "Quota exceeded" in reason(client, name), "its owner reads why")
    assert client.status(name) == "Running" and ports(name) == before
    other.delete()


def test_a_crash_between_the_port_and_its_row_leaves_one_port(
    client: OpenStack, begin: Run, between: Between, network: Network, networked: HigginsInCloud
) -> None:
    with between.failing(making(Answer(0, passed=True))) as met:
        name = begin()
        eventually(lambda: bool(met), "the port is made")
        networked.kill()
    networked.start()
    client.wait(name, "Running")
    assert len(network.ports()) == 1


def test_neutron_itself_is_stopped(client: OpenStack, run: Run, network: Network) -> None:
    first, second = run(), run()
    cloud.service("stop", "neutron")
    try:
        assert client.status(first) == "Running"
        refused = client.call("run", "busybox", "true")
        assert "Neutron does not answer now" in refused.out + refused.err
        client("delete", "--stop", first)
        eventually(lambda: "Neutron does not answer" in reason(client, first), "its owner reads what it waits for")
    finally:
        cloud.service("start", "neutron")
    client.wait(first, None)
    assert client.status(second) == "Running" and len(network.ports()) == 1
