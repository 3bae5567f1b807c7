"""Containers on Neutron's networks: a real Neutron with OVN, the unmodified client, and packets between namespaces."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.openstack import needs
from tests.openstack.cloud import ask, environment, password, token
from tests.openstack.conftest import IDLE, HigginsInCloud, Login, Ports
from tests.openstack.neutron import Inside, Network, Tenant, eventually, taps, wired
from tests.system.client import OpenStack

pytestmark = needs("keystone", "neutron")

Run = Callable[..., str]
SERVE = ("sh", "-c", f"busybox httpd -p 80 -h /etc; busybox httpd -p 81 -h /etc; {IDLE[-1]}")


@pytest.fixture
def other(tenant: Tenant) -> Iterator[Network]:
    """A second network, with an IPv6 subnet too."""
    made = tenant.network("10.71.0.0/24", "fd71::/64")
    yield made
    made.delete()


class Box:
    """A container that runs: its name, its ports, and its inside."""

    def __init__(self, name: str, ports: Ports) -> None:
        self.name = name
        self.ports = ports(name)
        self.inside = Inside(self.ports[0].id)

    @property
    def address(self) -> str:
        return self.ports[0].addresses[0]


@pytest.fixture
def box(run: Run, ports: Ports) -> Callable[..., Box]:
    return lambda *options, **more: Box(run(*options, **more), ports)


Boxes = Callable[..., Box]


def test_a_container_gets_a_port_and_two_reach_each_other(client: OpenStack, network: Network, box: Boxes) -> None:
    one, two = box(), box()
    uuid = client.show(two.name)["uuid"]
    (port,) = two.ports
    there = {found["id"]: found for found in network.ports()}
    assert len(there) == 2 and port.network == network.id
    found = there[port.id]
    assert [fixed["ip_address"] for fixed in found["fixed_ips"]] == list(port.addresses)
    assert (found["device_id"], found["device_owner"], found["status"]) == (uuid, "compute:higgins", "ACTIVE")
    assert one.inside.pings(two.address)
    client("delete", "--stop", one.name, two.name)
    for name in (one.name, two.name):
        client.wait(name, None)
    assert network.ports() == [], "when the container is gone so is its port: its network can be deleted"
    assert not wired() and not taps()


def test_what_the_subnet_says_is_so_inside(tenant: Tenant, client: OpenStack, box: Boxes) -> None:
    made = tenant.network(
        "10.72.0.0/24",
        dns_nameservers=["192.0.2.53", "192.0.2.54"],
        host_routes=[{"destination": "198.51.100.0/24", "nexthop": "10.72.0.9"}],
    )
    one = box(nets=(f"network={made.id}",))
    mtu = tenant.ask("GET", f"networks/{made.id}")["network"]["mtu"]
    assert f"mtu {mtu}" in one.inside.do("ip", "link", "show", "eth0").stdout
    assert "nameserver 192.0.2.53\nnameserver 192.0.2.54" in client("exec", one.name, "cat", "/etc/resolv.conf")
    routes = one.inside.routes()
    assert "default via 10.72.0.1 dev eth0" in routes and "198.51.100.0/24 via 10.72.0.9" in routes
    client.delete([one.name], "--stop")
    made.delete()


def test_a_fixed_address_and_both_families(other: Network, box: Boxes) -> None:
    one = box(nets=(f"network={other.name},v4-fixed-ip=10.71.0.77",))
    two, three = (box(nets=(f"network={other.name}",)) for _ in range(2))
    assert one.address == "10.71.0.77"
    v4, v6 = three.ports[0].addresses
    assert v4.startswith("10.71.0.") and v6.startswith("fd71:")
    assert two.inside.pings(v4) and two.inside.pings("10.71.0.77")
    eventually(lambda: two.inside.pings(v6), "IPv6 reaches the neighbour")


def test_security_groups_filter(tenant: Tenant, box: Boxes) -> None:
    web = tenant.group({"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})
    server, source = box("--security-group", web, command=SERVE), box()
    eventually(lambda: source.inside.connects(server.address, 80), "port 80 is let in")
    assert not source.inside.connects(server.address, 81) and not source.inside.pings(server.address)
    (group,) = tenant.ask("GET", f"security-groups?name={web}")["security_groups"]
    rule = {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "icmp"}
    tenant.ask("POST", "security-group-rules", {"security_group_rule": rule})
    eventually(lambda: source.inside.pings(server.address), "a rule that is added to the group counts at once")


def test_groups_are_added_to_what_runs_and_taken_from_it(tenant: Tenant, box: Boxes, networked: HigginsInCloud) -> None:
    web = tenant.group({"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})
    shut = tenant.group()
    server, source = box("--security-group", shut, command=SERVE), box()
    assert not source.inside.connects(server.address, 80)
    own = token(password("demo", "demo"))
    for verb, opened in (("add", True), ("remove", False)):
        path = f"{networked.url}/containers/{server.name}/{verb}_security_group?name={web}"
        assert ask(path, "POST", token=own, OpenStack_API_Version=_NEWEST).status == 202
        eventually(lambda now=opened: source.inside.connects(server.address, 80) is now, f"{verb} counts")  # type: ignore[misc]


def test_exposed_ports_are_open_to_all(box: Boxes) -> None:
    server, source = box("--expose-port", "80", command=SERVE), box()
    eventually(lambda: source.inside.connects(server.address, 80), "an exposed port is let in")
    assert not source.inside.connects(server.address, 81)


def test_nobody_sends_in_anothers_name(box: Boxes) -> None:
    liar, victim = box(), box()
    assert liar.inside.pings(victim.address)
    liar.inside.do("ip", "address", "add", "10.70.0.250/24", "dev", "eth0")
    assert not liar.inside.pings(victim.address, "-I", "10.70.0.250")


def test_a_port_that_was_given_is_used_and_kept(
    tenant: Tenant, client: OpenStack, network: Network, run: Run, ports: Ports
) -> None:
    mine = f"mine-{time.monotonic_ns()}"
    given = tenant.port(network, name=mine, fixed_ips=[{"ip_address": "10.70.0.60"}])
    name = run(nets=(f"port={given}",))
    (port,) = ports(name)
    assert (port.id, port.addresses) == (given, ("10.70.0.60",))
    refused = client.call("run", "--net", f"port={given}", "busybox", "true")
    assert "in use" in refused.err + refused.out
    client.delete([name], "--stop")
    kept = tenant.show_port(given)
    assert kept is not None and (kept["device_id"], kept["device_owner"], kept["name"]) == ("", "", mine)
    again = run(nets=(f"port={mine}",))
    assert ports(again)[0].id == given
    client.delete([again], "--stop")
    tenant.ask("DELETE", f"ports/{given}")


def test_networks_come_and_go_while_it_runs(
    client: OpenStack, network: Network, other: Network, box: Boxes, ports: Ports
) -> None:
    one, neighbour = box(), box(nets=(f"network={other.name}",))
    client("network", "attach", "--network", other.name, one.name)
    eventually(lambda: len(ports(one.name)) == 2, "it gets a second port")
    first, second = ports(one.name)
    assert (first.network, second.network) == (network.id, other.id)
    eventually(lambda: one.inside.pings(neighbour.address), "it reaches its neighbour on the new network")
    assert "default via 10.70.0.1 dev eth0" in one.inside.routes()
    client("network", "detach", "--network", network.name, one.name)
    eventually(lambda: network.ports() == [], "the port of the network that it left is gone")
    eventually(lambda: "default via 10.71.0.1" in one.inside.routes(), "the other one leads out")
    eventually(lambda: one.inside.pings(neighbour.address), "and it reaches its neighbour still")
    assert client.status(one.name) == "Running"


def test_several_networks_at_once(network: Network, other: Network, box: Boxes) -> None:
    one = box(nets=(f"network={network.name}", f"network={other.name}"))
    links = one.inside.do("ip", "-o", "-4", "address").stdout
    for number, port in enumerate(one.ports):
        assert f"eth{number}    inet {port.addresses[0]}/24" in links


@pytest.mark.parametrize(
    ("nets", "options", "sentence"),
    [
        (("network=nowhere",), (), "Network nowhere could not be found"),
        (("port=nothing",), (), "Port nothing could not be found"),
        (("network={name},v4-fixed-ip=10.99.0.5",), (), "in no subnet of network"),
        (("network={name}", "network={id}"), (), "named twice"),
        (None, ("--security-group", "nobody"), "Security group nobody could not be found"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    client: OpenStack, network: Network, nets: tuple[str, ...] | None, options: tuple[str, ...], sentence: str
) -> None:
    chosen = [one.format(name=network.name, id=network.id) for one in nets or ("network={name}",)]
    words = [word for net in chosen for word in ("--net", net)]
    done = client.call("run", *words, *options, "busybox", "true")
    assert sentence in done.out + done.err
    assert network.ports() == []


def test_another_projects_network_is_not_seen(tenant_login: Login, network: Network) -> None:
    done = tenant_login("alt").call("run", "--net", f"network={network.id}", "busybox", "true")
    assert f"Network {network.id} could not be found" in done.out + done.err


def test_without_a_network_named_the_projects_first_is_taken(
    tenant: Tenant, network: Network, run: Run, ports: Ports, networked: HigginsInCloud
) -> None:
    name = run(nets=())
    own = [one for one in tenant.ask("GET", f"networks?project_id={tenant.project}")["networks"] if one["subnets"]]
    assert ports(name)[0].network == min(own, key=lambda one: str(one["created_at"]))["id"]
    listed = ask(f"{networked.url}/networks", token=token(password("demo", "demo")), OpenStack_API_Version=_NEWEST)
    assert network.name in [one["name"] for one in listed.body["networks"]]


_NEWEST = "container latest"


def test_a_capsule_has_a_port(tenant: Tenant, network: Network, networked: HigginsInCloud) -> None:
    own = token(password("demo", "demo"))
    template = {
        "kind": "capsule",
        "metadata": {"name": "two"},
        "spec": {"containers": [{"image": "busybox", "command": ["sleep", "1000"]} for _ in range(2)]},
    }
    made = ask(f"{networked.url}/capsules/", "POST", token=own, json={"template": template}).body["uuid"]
    place = f"{networked.url}/capsules/{made}"
    eventually(lambda: bool(ask(place, token=own).body["status"] == "Running"), "it runs")
    ((address,),) = ask(place, token=own).body["addresses"].values()
    assert tenant.show_port(address["port"]) is not None
    ask(place, "DELETE", token=own)
    eventually(lambda: ask(place, token=own).status == 404, "it goes")
    assert tenant.show_port(address["port"]) is None


def test_a_floating_address_leads_to_it(tenant: Tenant, admin: Tenant, network: Network, box: Boxes) -> None:
    outside = admin.ask(
        "POST",
        "networks",
        {
            "network": {
                "name": "public",
                "router:external": True,
                "provider:network_type": "flat",
                "provider:physical_network": "public",
            }
        },
    )["network"]["id"]
    subnet = {"network_id": outside, "cidr": "172.24.4.0/24", "ip_version": 4, "gateway_ip": "172.24.4.1"}
    admin.ask("POST", "subnets", {"subnet": subnet | {"enable_dhcp": False}})
    router = tenant.ask("POST", "routers", {"router": {"external_gateway_info": {"network_id": outside}}})["router"]
    tenant.ask("PUT", f"routers/{router['id']}/add_router_interface", {"subnet_id": network.subnets[0]})
    floating = tenant.ask("POST", "floatingips", {"floatingip": {"floating_network_id": outside}})["floatingip"]
    pinged = tenant.group({"protocol": "icmp"})
    one = box("--security-group", pinged)
    client = [sys.executable, "-W", "ignore", "-c", "from openstackclient.shell import main; raise SystemExit(main())"]
    words = ("floating", "ip", "set", "--port", one.ports[0].id, floating["floating_ip_address"])
    subprocess.run([*client, *words], env=os.environ | environment("demo", "demo"), check=True)
    probe = ["busybox", "ping", "-c", "1", "-W", "2", floating["floating_ip_address"]]
    eventually(lambda: subprocess.run(probe, capture_output=True).returncode == 0, "it answers from the outside")
    tenant.ask("DELETE", f"floatingips/{floating['id']}")
    tenant.ask("PUT", f"routers/{router['id']}/remove_router_interface", {"subnet_id": network.subnets[0]})
    tenant.ask("DELETE", f"routers/{router['id']}")
    admin.ask("DELETE", f"networks/{outside}")


def test_it_outlives_a_restart_of_higgins(
    client: OpenStack, box: Boxes, ports: Ports, networked: HigginsInCloud
) -> None:
    one, two = box(), box()
    networked.kill()
    networked.start()
    assert ports(two.name) == two.ports and one.inside.pings(two.address)
    time.sleep(3)  # it looks whether the ports are still there
    assert ports(two.name) == two.ports and client.status(two.name) == "Running"
