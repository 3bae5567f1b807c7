"""Names, and what a port is in the kernel's terms."""

from ipaddress import IPv4Address, IPv4Interface
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from higgins.model.errors import EngineError, Invalid
from higgins.networks.base import Plugged, PortWire
from higgins.networks.local import wires

#: Nothing here measures time, so that a busy machine changes no verdict.
UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck))

PORT = PortWire(
    uuid="00112233-4455-4677-8899-aabbccddeeff",
    network="ffeeddcc-bbaa-4988-8766-554433221100",
    project_id="blue",
    name="eth0",
    mac="02:00:0A:58:00:05",
    address="10.88.0.5",
    cidr="10.88.0.0/16",
    gateway="10.88.0.1",
    mtu=1450,
)


def test_a_port_in_the_kernel_s_terms() -> None:
    assert wires.place_of(PORT) == wires.Place(
        interface="eth0",
        mac="02:00:0a:58:00:05",
        mtu=1450,
        address=IPv4Interface("10.88.0.5/16"),
        gateway=IPv4Address("10.88.0.1"),
        default_route=True,
    )


def test_only_a_port_with_default_route_has_one() -> None:
    assert not wires.place_of(msgspec.structs.replace(PORT, default_route=False)).default_route


def test_a_network_without_gateway_has_no_default_route() -> None:
    place = wires.place_of(msgspec.structs.replace(PORT, gateway=""))
    assert (place.gateway, place.default_route) == (None, False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "10.99.0.5"),
        ("address", "somewhere"),
        ("gateway", "somewhere"),
        ("cidr", "10.88.0.0/33"),
        ("name", "eth0; reboot"),
        ("name", "an-interface-too-long"),
        ("name", "../eth0"),
        ("mac", "02:00"),
        ("network", "default"),
    ],
)
def test_a_value_that_no_port_may_have_is_refused(field: str, value: str) -> None:
    with pytest.raises(Invalid):
        wires.place_of(msgspec.structs.replace(PORT, **{field: value}))


def test_ipv6_is_refused_with_a_reason() -> None:
    with pytest.raises(EngineError, match="wires IPv4 only"):
        wires.place_of(msgspec.structs.replace(PORT, address="fd00::5", cidr="fd00::/64", gateway="fd00::1"))


@UNHURRIED
@given(st.uuids())
def test_interface_names_fit_the_kernel_and_are_known_again(uuid: UUID) -> None:
    bridge, port = wires.bridge_name(str(uuid)), wires.port_name(str(uuid))
    assert len(bridge) <= 15
    assert len(port) <= 15
    assert wires.is_bridge_name(bridge) and wires.is_port_name(port)
    assert not wires.is_bridge_name(port) and not wires.is_port_name(bridge)
    unfinished = wires.unfinished_name(str(uuid))
    assert len(unfinished) <= 15
    assert not wires.is_bridge_name(unfinished) and not wires.is_port_name(unfinished)


@UNHURRIED
@given(st.uuids())
def test_a_bridge_s_mac_is_a_local_unicast_address(uuid: UUID) -> None:
    first = int(wires.checked_mac(wires.bridge_mac(str(uuid)))[:2], 16)
    assert first & 0b11 == 0b10


@UNHURRIED
@given(st.uuids(), st.uuids(), st.integers(min_value=0))
def test_an_alias_tells_what_was_written(workload: UUID, port: UUID, netns: int) -> None:
    alias = wires.port_alias(str(workload), str(port), netns)
    assert wires.read_port_alias(alias) == Plugged(workload=str(workload), port=str(port))


@UNHURRIED
@given(st.text())
def test_a_foreign_alias_is_nobody_s(alias: str) -> None:
    assert wires.read_port_alias(alias) is None or alias.startswith("higgins:")


@UNHURRIED
@given(st.text())
def test_only_a_uuid_gets_into_a_name(value: str) -> None:
    try:
        name = wires.bridge_name(value)
    except Invalid:
        return
    assert wires.is_bridge_name(name)
