"""Networks that span hosts, with real packets between two namespaces that are hosts."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from higgins.networks.base import Neighbour, PortFilter, PortWire, Rule
from higgins.networks.local.wires import bridge_name, tunnel_name
from tests.networks.conftest import wire
from tests.networks.distant import DistantHost, Wish
from tests.networks.namespaces import PATIENCE, Namespace, is_kept_from, listening, pings, reaches

TUNNEL = 77


class Hosts:
    """Two hosts, and what a control plane would know of them."""

    def __init__(self, hosts: list[DistantHost]) -> None:
        self.hosts = hosts
        self.ports: dict[str, tuple[int, PortWire, tuple[Rule, ...]]] = {}
        self.opened: list[Namespace] = []

    def container(self, on: int, port: PortWire, *rules: Rule) -> Namespace:
        """A sandbox that is plugged and let through, and known to the other host."""
        self.opened.append(Namespace())
        self.hosts[on].do(Wish(netns=self.opened[-1].path, workload=str(uuid4()), ports=[port]))
        self.ports[port.uuid] = (on, port, rules)
        self.tell()
        return self.opened[-1]

    def tell(self) -> None:
        for number, host in enumerate(self.hosts):
            host.do(Wish(filters=self.filters(number), neighbours=self.neighbours(number)))

    def filters(self, number: int) -> list[PortFilter]:
        return [
            PortFilter(
                uuid=port.uuid, address=port.address, mac=port.mac, network=port.network, project_id=port.project_id,
                rules=rules,
            )
            for on, port, rules in self.ports.values()
            if on == number
        ]  # fmt: skip

    def neighbours(self, number: int) -> list[Neighbour]:
        here = {port.network for on, port, _ in self.ports.values() if on == number}
        return [
            Neighbour(
                network=port.network, tunnel=TUNNEL, project_id=port.project_id, address=port.address, mac=port.mac,
                host=self.hosts[on].address,
            )
            for on, port, _ in self.ports.values()
            if on != number and port.network in here
        ]  # fmt: skip


@pytest.fixture
def hosts(own_namespaces: None, tmp_path: Path) -> Iterator[Hosts]:
    """192.0.2.1 and 192.0.2.2, on a cable."""
    places = [Namespace(), Namespace()]
    places[0].run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", str(places[1].pid))
    for number, place in enumerate(places, 1):
        place.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", "up0")
        place.run("ip", "link", "set", "up0", "up")
    made = [DistantHost(place, tmp_path / f"{number}", f"192.0.2.{number}") for number, place in enumerate(places, 1)]
    site = Hosts(made)
    yield site
    for place in site.opened:
        place.close()
    for host in made:
        host.close()


def test_containers_of_a_network_reach_each_other_across_hosts(hosts: Hosts) -> None:
    network = str(uuid4())
    one = hosts.container(0, wire(network, 5))
    two = hosts.container(1, wire(network, 6))
    with listening(one, 80), listening(two, 80):
        assert reaches(one, "10.88.1.6", 80) == "10.88.1.5"
        assert reaches(two, "10.88.1.5", 80) == "10.88.1.6"


def test_a_full_packet_fits_through_the_tunnel(hosts: Hosts) -> None:
    network = str(uuid4())
    one = hosts.container(0, wire(network, 5))
    hosts.container(1, wire(network, 6))
    assert "mtu 1450" in one.run("ip", "link", "show", "eth0")
    one.run("busybox", "ping", "-c", "1", "-W", "20", "-s", "1422", "10.88.1.6")


def test_another_project_on_the_same_network_is_not_reached(hosts: Hosts) -> None:
    network = str(uuid4())
    blue = hosts.container(0, wire(network, 5))
    red = hosts.container(1, wire(network, 6, project="red"))
    hosts.container(1, wire(network, 7))
    with listening(red, 80):
        assert pings(blue, "10.88.1.7", 20)
        assert is_kept_from(blue, "10.88.1.6", 80)


def test_the_rules_of_a_port_let_in_from_other_hosts_what_they_name(hosts: Hosts) -> None:
    network = str(uuid4())
    blue = hosts.container(0, wire(network, 5))
    red = hosts.container(1, wire(network, 6, project="red"), Rule(protocol="tcp", port_min=80, port_max=80))
    with listening(red, 80, 81):
        assert reaches(blue, "10.88.1.6", 80) == "10.88.1.5"
        assert is_kept_from(blue, "10.88.1.6", 81)


def test_each_host_is_its_own_gateway(hosts: Hosts) -> None:
    network = str(uuid4())
    one = hosts.container(0, wire(network, 5))
    hosts.container(1, wire(network, 6))
    assert pings(one, "10.88.1.1", 20)
    hosts.hosts[0].place.run("ip", "address", "delete", "10.88.1.1/24", "dev", bridge_name(network))
    one.run("ip", "neigh", "flush", "all")
    assert not pings(one, "10.88.1.1", 1), "the other host's gateway answers"


def test_a_container_that_moves_is_found_where_it_is(hosts: Hosts) -> None:
    network = str(uuid4())
    port, third = wire(network, 6), wire(network, 7)
    one = hosts.container(0, wire(network, 5))
    hosts.container(1, third)
    before = hosts.container(1, port)
    assert pings(one, "10.88.1.6", 20)
    before.close()
    moved = replace(port, uuid=str(uuid4()))
    del hosts.ports[port.uuid]
    hosts.container(0, moved)
    assert pings(one, "10.88.1.6", 20), "on the same host now"
    assert pings(one, "10.88.1.7", 20), "the others are where they were"


def test_what_is_no_port_of_the_network_comes_through_from_no_host(hosts: Hosts) -> None:
    """As if one host were stolen: it sends under an address that is not its own, into a network that it holds."""
    network = str(uuid4())
    one = hosts.container(0, wire(network, 5))
    hosts.container(0, wire(network, 7))
    stolen = hosts.container(1, wire(network, 6))
    assert pings(stolen, "10.88.1.5", 20)
    place = hosts.hosts[1].place
    place.run("nft", "flush", "ruleset")  # nobody holds it to anything there
    assert pings(stolen, "10.88.1.5", 20)
    with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("10.88.1.5", 9999))
        ear.settimeout(PATIENCE)
        for own in ("10.88.1.8", "10.88.1.7"):
            stolen.run("ip", "address", "add", f"{own}/24", "dev", "eth0")
            send(stolen, own, "10.88.1.5", b"forged")
        send(stolen, "10.88.1.6", "10.88.1.5", b"honest")
        assert ear.recv(100) == b"honest"


def send(place: Namespace, source: str, address: str, words: bytes) -> None:
    with place.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.bind((source, 0))
        mouth.sendto(words, (address, 9999))


def test_a_tunnel_s_packets_are_taken_from_hosts_of_that_network_only(hosts: Hosts) -> None:
    network = str(uuid4())
    hosts.container(0, wire(network, 5))
    two = hosts.container(1, wire(network, 6))
    assert pings(two, "10.88.1.5", 20)
    hosts.hosts[1].place.run("ip", "address", "add", "192.0.2.3/24", "dev", "up0")
    hosts.hosts[1].place.run("nft", "flush", "ruleset")
    tunnel = tunnel_name(network)
    entry = json.loads(hosts.hosts[1].place.run("bridge", "-json", "fdb", "show", "dev", tunnel))
    mac = next(row["mac"] for row in entry if "dst" in row)
    # The same packets under another address of the sending machine, as a stranger's would come.
    hosts.hosts[1].place.run("ip", "link", "delete", tunnel)
    add = f"link add {tunnel} type vxlan id {TUNNEL} local 192.0.2.3 dstport 4789 nolearning proxy"
    hosts.hosts[1].place.run("ip", *add.split())
    hosts.hosts[1].place.run("ip", "link", "set", tunnel, "master", bridge_name(network), "up")
    hosts.hosts[1].place.run("bridge", "fdb", "replace", mac, "dev", tunnel, "dst", "192.0.2.1", "self", "permanent")
    hosts.hosts[1].place.run("ip", "neigh", "replace", "10.88.1.5", "lladdr", mac, "dev", tunnel, "nud", "permanent")
    assert not pings(two, "10.88.1.5", 1)


def test_a_neighbour_that_the_bridge_has_forgotten_already_can_be_forgotten(hosts: Hosts) -> None:
    """As the bridge does when a container that has moved here sends before its host was told."""
    network = str(uuid4())
    one, port = hosts.container(0, wire(network, 5)), wire(network, 6)
    hosts.container(1, port)
    hosts.container(1, wire(network, 7))
    place = hosts.hosts[0].place
    place.run("bridge", "fdb", "del", port.mac, "dev", tunnel_name(network), "master")
    del hosts.ports[port.uuid]
    hosts.tell()
    assert port.mac not in place.run("bridge", "fdb", "show", "dev", tunnel_name(network))
    assert pings(one, "10.88.1.7", 20)


def test_an_agent_that_starts_again_keeps_the_ways_and_removes_those_of_gone_networks(
    hosts: Hosts, tmp_path: Path
) -> None:
    network = str(uuid4())
    one = hosts.container(0, wire(network, 5))
    hosts.container(1, wire(network, 6))
    hosts.container(1, wire(network, 7))
    place = hosts.hosts[0].place
    before = place.run("ip", "-json", "link", "show", "dev", tunnel_name(network))
    place.run("bridge", "fdb", "del", mac_of(place, network), "dev", tunnel_name(network), "dst", "192.0.2.2", "self")
    again = DistantHost(place, tmp_path / "1", "192.0.2.1")
    again.do(Wish(filters=hosts.filters(0), neighbours=hosts.neighbours(0)))
    after = place.run("ip", "-json", "link", "show", "dev", tunnel_name(network))
    assert json.loads(before)[0]["ifindex"] == json.loads(after)[0]["ifindex"], "it was not made anew"
    assert pings(one, "10.88.1.6", 20) and pings(one, "10.88.1.7", 20), "what was lost is there again"
    again.do(Wish(filters=[], neighbours=[]))
    assert tunnel_name(network) not in place.run("ip", "link")
    again.close()


def mac_of(place: Namespace, network: str) -> str:
    rows = json.loads(place.run("bridge", "-json", "fdb", "show", "dev", tunnel_name(network)))
    return str(next(row["mac"] for row in rows if "dst" in row))
