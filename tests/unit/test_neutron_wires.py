"""What the host's programs are told about a port of Neutron."""

import pytest
from msgspec.structs import replace

from higgins.model.errors import EngineError, Invalid
from higgins.networks.base import Address, Plugged, PortWire
from higgins.networks.neutron import wires

PORT = PortWire(
    uuid="11111111-0000-4000-8000-000000000001",
    network="22222222-0000-4000-8000-000000000002",
    project_id="red",
    name="eth0",
    mac="FA:16:3E:00:00:01",
    address="10.1.0.5",
    cidr="10.1.0.0/24",
    gateway="10.1.0.1",
    mtu=1442,
    others=(Address(address="fd00:1::5", cidr="fd00:1::/64", gateway="fe80::1"),),
    routes=(("169.254.169.254/32", "10.1.0.2"), ("fd02::/64", "fd00:1::9")),
    port="abcdef01-2345-4000-8000-000000000003",
    kind="ovs",
    bridge="br-int",
    answers=True,
)


def test_the_veth_is_named_after_neutrons_port() -> None:
    assert wires.outside(PORT, "/proc/1/fd/9") == [
        "link add name tapabcdef01-23 mtu 1442 type veth peer name eth0 address fa:16:3e:00:00:01 mtu 1442"
        " netns /proc/1/fd/9",
        "link set dev tapabcdef01-23 up",
    ]


def test_addresses_and_routes_of_both_families() -> None:
    assert wires.inside(PORT) == [
        "address replace 10.1.0.5/24 dev eth0",
        "address replace fd00:1::5/64 dev eth0 nodad",
        "link set dev eth0 up",
        "route replace default via 10.1.0.1 dev eth0 onlink",
        "route replace default via fe80::1 dev eth0 onlink",
        "route replace 169.254.169.254/32 via 10.1.0.2 dev eth0 onlink",
        "route replace fd02::/64 via fd00:1::9 dev eth0 onlink",
    ]


def test_a_port_that_does_not_lead_out_has_no_default_route() -> None:
    assert not any("default" in line for line in wires.inside(replace(PORT, default_route=False)))


def test_a_port_without_addresses_is_only_brought_up() -> None:
    bare = replace(PORT, address="", cidr="", gateway="", others=(), routes=())
    assert wires.inside(bare) == ["link set dev eth0 up"]


def test_ipv6_is_switched_on_where_the_port_has_it() -> None:
    assert "net/ipv6/conf/eth0/disable_ipv6=0" in wires.sysctls(PORT)
    assert wires.sysctls(replace(PORT, others=())) == []


def test_the_switch_knows_it_by_neutrons_id_and_we_by_our_own() -> None:
    words = wires.plugging(PORT, "w", "br-int", 7)
    assert words[:5] == ["--", "--may-exist", "add-port", "br-int", "tapabcdef01-23"]
    assert f'external_ids:iface-id="{PORT.port}"' in words
    listed = {
        "data": [
            ["tapabcdef01-23", ["map", [["iface-id", PORT.port], ["higgins-workload", "w"], ["higgins-port", "p"]]]],
            ["br-int", ["map", []]],
        ]
    }
    (found,) = wires.read_interfaces(listed)
    assert found.plugged == Plugged("w", "p") and found.cloud_port == PORT.port


@pytest.mark.parametrize("kind", ["", "vhostuser", "bridge", "binding_failed"])
def test_what_is_not_ovs_is_not_wired(kind: str) -> None:
    with pytest.raises(EngineError, match="Open vSwitch"):
        wires.bridge_of(replace(PORT, kind=kind), "br-int")


@pytest.mark.parametrize(
    "changes",
    [
        {"mac": "fa:16"},
        {"address": "10.1.0.5; reboot"},
        {"cidr": "x"},
        {"name": "eth0 up"},
        {"port": "a b"},
        {"port": ""},
    ],
)
def test_no_word_of_neutrons_becomes_another_command(changes: dict[str, str]) -> None:
    bad = replace(PORT, **changes)
    with pytest.raises(Invalid):
        wires.outside(bad, "/x")
        wires.inside(bad)
