"""Who reaches whom, with real packets."""

import socket
from pathlib import Path
from uuid import uuid4

import pytest

from higgins.model.errors import EngineError
from higgins.networks.base import Rule
from higgins.networks.local import open_local_network
from tests.networks.conftest import Site, wire
from tests.networks.namespaces import Namespace, is_kept_from, listening, pings, reaches


async def test_two_on_one_network_reach_each_other_under_their_own_addresses(site: Site) -> None:
    network = str(uuid4())
    one = await site.container(wire(network, 5))
    two = await site.container(wire(network, 6))
    with listening(one, 80), listening(two, 80):
        assert reaches(one, "10.88.1.6", 80) == "10.88.1.5"
        assert reaches(two, "10.88.1.5", 80) == "10.88.1.6"


async def test_two_networks_of_one_project_reach_each_other(site: Site) -> None:
    one = await site.container(wire(str(uuid4()), 5))
    two = await site.container(wire(str(uuid4()), 5, subnet="10.88.2"))
    with listening(two, 80):
        assert reaches(one, "10.88.2.5", 80) == "10.88.1.5"


async def test_host_and_container_reach_each_other(site: Site) -> None:
    one = await site.container(wire(str(uuid4()), 5))
    with listening(one, 80), listening(site.host, 8080):
        assert reaches(site.host, "10.88.1.5", 80) == "10.88.1.1"
        assert reaches(one, "10.88.1.1", 8080) == "10.88.1.5"


async def test_the_outside_sees_the_host_s_address(site: Site, outside: Namespace) -> None:
    one = await site.container(wire(str(uuid4()), 5))
    with listening(outside, 80):
        assert reaches(one, "198.51.100.2", 80) == "198.51.100.1"


async def test_another_project_is_not_reached(site: Site) -> None:
    shared = str(uuid4())
    blue = await site.container(wire(shared, 5))
    near = await site.container(wire(shared, 6, project="red"))
    far = await site.container(wire(str(uuid4()), 5, subnet="10.88.2", project="red"))
    with listening(near, 80), listening(far, 80), listening(blue, 80):
        assert reaches(near, "10.88.2.5", 80), "the red ones reach each other"
        assert is_kept_from(blue, "10.88.2.5", 80), "across bridges"
        assert is_kept_from(blue, "10.88.1.6", 80), "in one bridge"
        assert is_kept_from(far, "10.88.1.5", 80)


async def test_the_outside_reaches_an_exposed_port_and_no_other(site: Site, outside: Namespace) -> None:
    exposed = Rule(protocol="tcp", port_min=80, port_max=81)
    one = await site.container(wire(str(uuid4()), 5), rules=(exposed,))
    with listening(one, 80, 81, 82):
        assert reaches(outside, "10.88.1.5", 80) == "198.51.100.2"
        assert reaches(outside, "10.88.1.5", 81)
        assert is_kept_from(outside, "10.88.1.5", 82)


async def test_a_rule_s_remote_is_held_to(site: Site, outside: Namespace) -> None:
    near, far = Rule(protocol="tcp", remote="198.51.100.0/24"), Rule(protocol="tcp", remote="203.0.113.0/24")
    one = await site.container(wire(str(uuid4()), 5), rules=(near,))
    two = await site.container(wire(str(uuid4()), 5, subnet="10.88.2"), rules=(far,))
    with listening(one, 80), listening(two, 80):
        assert reaches(outside, "10.88.1.5", 80)
        assert is_kept_from(outside, "10.88.2.5", 80)


async def test_a_port_closed_to_its_project_lets_in_by_rule_only(site: Site) -> None:
    network = str(uuid4())
    one = await site.container(wire(network, 5))
    two = await site.container(
        wire(network, 6), project_open=False, rules=(Rule(protocol="tcp", port_min=80, port_max=80),)
    )
    with listening(two, 80, 81), listening(one, 80):
        assert reaches(one, "10.88.1.6", 80), "by its rule"
        assert is_kept_from(one, "10.88.1.6", 81), "in the same bridge"
        assert reaches(two, "10.88.1.5", 80), "answers come back"


async def test_ping_passes_where_icmp_is_let_in(site: Site, outside: Namespace) -> None:
    ping = Rule(protocol="icmp", port_min=8, port_max=0)
    await site.container(wire(str(uuid4()), 5), rules=(ping,))
    await site.container(wire(str(uuid4()), 5, subnet="10.88.2"), rules=(Rule(protocol="icmp", port_min=13),))
    assert pings(outside, "10.88.1.5", 30)
    assert not pings(outside, "10.88.2.5", 1), "its rule is for another type"


async def test_a_changed_filter_counts_at_once(site: Site, outside: Namespace) -> None:
    port = wire(str(uuid4()), 5)
    one = await site.container(port)
    with listening(one, 80):
        assert is_kept_from(outside, "10.88.1.5", 80)
        await site.let(port, rules=(Rule(protocol="tcp", port_min=80, port_max=80),))
        assert reaches(outside, "10.88.1.5", 80)
        await site.let(port)
        assert is_kept_from(outside, "10.88.1.5", 80)


async def test_a_port_in_no_filter_is_silent(site: Site) -> None:
    port = wire(str(uuid4()), 5)
    place = site.sandbox()
    await site.network.plug(place.path, str(uuid4()), [port])
    with listening(site.host, 8080):
        assert is_kept_from(place, "10.88.1.1", 8080)
        await site.let(port)
        assert reaches(place, "10.88.1.1", 8080)


async def test_packets_pass_where_iptables_drops_what_is_forwarded(site: Site, outside: Namespace) -> None:
    """As Docker sets it."""
    network = str(uuid4())
    one = await site.container(wire(network, 5))
    two = await site.container(wire(network, 6))
    site.host.run("iptables", "-w", "-P", "FORWARD", "DROP")
    try:
        with listening(outside, 80), listening(two, 80):
            assert is_kept_from(one, "198.51.100.2", 80)
            await site.network.setup()
            await site.network.setup()
            assert reaches(one, "198.51.100.2", 80)
            assert reaches(one, "10.88.1.6", 80)
        assert site.host.run("iptables", "-w", "-S", "FORWARD").count("hg+") == 2
        await site.network.teardown()
        assert site.host.run("iptables", "-w", "-S", "FORWARD") == "-P FORWARD DROP\n"
    finally:
        site.host.run("iptables", "-w", "-P", "FORWARD", "ACCEPT")


async def test_the_host_is_closed_to_containers_on_request(site: Site, outside: Namespace, tmp_path: Path) -> None:
    site.network = open_local_network(tmp_path / "network", reach_host=False)
    one = await site.container(wire(str(uuid4()), 5))
    with listening(site.host, 8080), listening(one, 80), listening(outside, 80):
        assert is_kept_from(one, "10.88.1.1", 8080)
        assert reaches(site.host, "10.88.1.5", 80)
        assert reaches(one, "198.51.100.2", 80)
        assert pings(one, "10.88.1.1", 30)


async def test_a_subnet_that_the_host_has_already_is_refused(site: Site, outside: Namespace) -> None:
    place = site.sandbox()
    with pytest.raises(EngineError, match=r"198\.51\.100\.0/24 overlaps out0"):
        await site.network.plug(place.path, str(uuid4()), [wire(str(uuid4()), 5, subnet="198.51.100")])
    await site.container(wire(str(uuid4()), 5))
    with pytest.raises(EngineError, match="overlaps hg"):
        await site.network.plug(place.path, str(uuid4()), [wire(str(uuid4()), 6)])


def _udp(place: Namespace, address: str) -> socket.socket:
    """A datagram socket that may claim any address."""
    made = place.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
    made.bind((address, 0))
    return made


async def test_packets_under_a_foreign_address_or_mac_are_dropped(site: Site) -> None:
    """What is sent in order arrives in order: the honest datagram sent last is all that comes."""
    network = str(uuid4())
    port = wire(network, 5)
    liar = await site.container(port)
    victim = await site.container(wire(network, 6))
    await site.container(wire(network, 7))
    with listening(victim, 80):
        assert reaches(liar, "10.88.1.6", 80), "and both know each other's MAC address now"
    for target, address in ((victim, "10.88.1.6"), (site.host, "10.88.1.1")):
        with target.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((address, 9000))
            server.settimeout(30)
            for claimed in ("10.88.1.7", "10.88.1.99", "192.0.2.1"):
                with _udp(liar, claimed) as client:
                    client.sendto(b"lie", (address, 9000))
            with _udp(liar, "10.88.1.5") as client:
                client.sendto(b"truth", (address, 9000))
            assert server.recvfrom(100)[0] == b"truth"

    liar.run("ip", "link", "set", "eth0", "address", "02:00:0a:01:00:63")
    with listening(victim, 80), listening(site.host, 8080):
        assert is_kept_from(liar, "10.88.1.6", 80)
        assert is_kept_from(liar, "10.88.1.1", 8080)
        liar.run("ip", "link", "set", "eth0", "address", port.mac)
        assert reaches(liar, "10.88.1.6", 80)


async def test_an_announcement_of_a_foreign_address_is_dropped(site: Site) -> None:
    network = str(uuid4())
    port = wire(network, 5)
    liar = await site.container(port)
    victim = await site.container(wire(network, 6))
    with listening(site.host, 8080):
        assert reaches(victim, "10.88.1.1", 8080), "the gateway's MAC address is known"
    honest = victim.run("ip", "neighbour", "show", "10.88.1.1").split()[4]
    mac = bytes.fromhex(port.mac.replace(":", ""))
    with liar.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as raw:
        raw.bind(("eth0", 0x0806))
        gateway, everybody = socket.inet_aton("10.88.1.1"), b"\xff" * 6
        for operation in (1, 2):
            body = b"\0\1\x08\0\6\4" + operation.to_bytes(2, "big") + mac + gateway + everybody + gateway
            raw.send(everybody + mac + b"\x08\x06" + body)
    with listening(victim, 80):
        assert reaches(liar, "10.88.1.6", 80), "what was sent before has arrived, or never will"
    assert victim.run("ip", "neighbour", "show", "10.88.1.1").split()[4] == honest


async def test_nothing_but_ipv4_and_arp_leaves_a_port(site: Site) -> None:
    network = str(uuid4())
    one = await site.container(wire(network, 5))
    two = await site.container(wire(network, 6))
    for place, address in ((one, "fd00::5/64"), (two, "fd00::6/64")):
        place.run("ip", "-6", "address", "add", address, "dev", "eth0", "nodad")
    assert pings(one, "fd00::5", 30), "its own"
    assert not pings(one, "fd00::6", 1)
