"""Networks by the unmodified client: chosen at create, attached to what runs, listed and detached; and what it sees."""

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp
from tests.system.conftest import Naming
from tests.system.rest import Rest

SERVER = ("sh", "-c", "exec httpd -f -p 80 -h /etc")


@pytest.fixture
def lan(cloud: HigginsUp, openstack: OpenStack, named: Naming) -> Iterator[dict[str, Any]]:
    """A network of the project beside its default one."""
    rest = Rest(cloud, "1.47")
    made = rest.call("POST", "/networks", {"name": named("lan")})
    yield made
    openstack.delete([row["name"] for row in openstack.json("list") if row["name"].startswith("on-lan-")])
    rest.call("DELETE", f"/networks/{made['uuid']}")


def inside(openstack: OpenStack, container: str) -> list[str]:
    """The addresses of a container's interfaces, as it sees them itself."""
    done = openstack.call("exec", container, "ip", "-4", "-o", "address", "show")
    return [line.split()[3].partition("/")[0] for line in done.out.splitlines() if " eth" in line]


def addresses(cloud: HigginsUp, container: str) -> dict[str, str]:
    """By network, as the API lists them."""
    listed = cloud.get(f"/containers/{container}/network_list")["networks"]
    return {port["net_id"]: port["fixed_ips"][0]["ip_address"] for port in listed}


def test_nets_are_chosen_by_name_or_uuid_with_the_wished_address(
    openstack: OpenStack, cloud: HigginsUp, named: Naming, lan: dict[str, Any]
) -> None:
    subnet = ipaddress.ip_network(lan["cidr"])
    by_name, by_uuid = named("on-lan"), named("on-lan")
    for name, network, address in ((by_name, lan["name"], subnet[77]), (by_uuid, lan["uuid"], subnet[78])):
        openstack("run", "--name", name, "--net", f"network={network},v4-fixed-ip={address}", "busybox", *SERVER)
        openstack.wait(name, "Running")
        assert addresses(cloud, name) == {lan["uuid"]: str(address)}
        assert inside(openstack, name) == [str(address)]
    fetch = ("exec", by_uuid, "timeout", "5", "wget", "-q", "-O", "-", f"http://{subnet[77]}/passwd")
    openstack.wait_until(lambda: "root:" in openstack.call(*fetch).out)
    taken = openstack.call("run", "--net", f"network={lan['name']},v4-fixed-ip={subnet[77]}", "busybox")
    assert "409" in taken.err and str(subnet[77]) in taken.err, taken


def test_a_network_is_attached_to_what_runs_and_detached_again(
    openstack: OpenStack, cloud: HigginsUp, named: Naming, lan: dict[str, Any]
) -> None:
    name, wished = named("on-lan"), str(ipaddress.ip_network(lan["cidr"])[99])
    openstack("run", "--name", name, "busybox", *SERVER)
    openstack.wait(name, "Running")
    ((default, first),) = addresses(cloud, name).items()
    for by in ("network", "port"):
        openstack("network", "attach", "--network", lan["name"], "--fixed-ip", wished, name)
        assert addresses(cloud, name) == {default: first, lan["uuid"]: wished}
        openstack.wait_until(lambda: inside(openstack, name) == [first, wished])
        listed = cloud.get(f"/containers/{name}/network_list")["networks"]
        port = next(one["port_id"] for one in listed if one["net_id"] == lan["uuid"])
        openstack("network", "detach", f"--{by}", lan["uuid"] if by == "network" else port, name)
        assert addresses(cloud, name) == {default: first}
        openstack.wait_until(lambda: inside(openstack, name) == [first])
    for words, told in (
        (("attach", "--network", "nobodys"), "could not be found"),
        (("attach", "--network", "default"), "is on network"),
        (("attach", "--network", lan["name"], "--fixed-ip", "192.0.2.1"), "192.0.2.1"),
        (("attach", "--network", lan["name"], "--fixed-ip", "fd00::1"), "fixed_ip"),
        (("detach", "--network", lan["name"]), "could not be found"),
    ):
        refused = openstack.call("network", *words, name)
        assert " failed: " in refused.out and told in refused.out, refused
