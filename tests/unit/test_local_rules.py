"""The ruleset: what holds for whatever ports and rules there are."""

import ipaddress
import re
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from higgins.model.errors import Invalid
from higgins.networks.base import Neighbour, PortFilter, Rule
from higgins.networks.local.boxes import box, boxes, disjoint
from higgins.networks.local.rules import no_ruleset, ruleset
from higgins.networks.local.wires import bridge_name, port_name, tunnel_name

#: Nothing here measures time, so that a busy machine changes no verdict.
UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck))

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"
BLUE = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
RED = "dddddddd-dddd-4ddd-8ddd-dddddddddddd"


def port(uuid: str, address: str, network: str = BLUE, project_id: str = "blue", **more: object) -> PortFilter:
    return PortFilter(uuid=uuid, address=address, network=network, project_id=project_id, **more)  # type: ignore[arg-type]


def elements(text: str, name: str) -> set[str]:
    """What is in a set or map of the ruleset."""
    found = re.search(rf"^  (?:set|map) {name} {{\n.*?^  }}", text, re.MULTILINE | re.DOTALL)
    assert found, f"no {name}"
    listed = re.search(r"elements = { (.*) }", found[0])
    return set(listed[1].split(", ")) if listed else set()


def open_to(text: str, sender: PortFilter) -> set[str]:
    """The places that the sender's project chain accepts."""
    key = f'"{bridge_name(sender.network)}" . {sender.address} : jump '
    chains = [element.removeprefix(key) for element in elements(text, "sender_project") if element.startswith(key)]
    return {place for chain in chains for place in elements(text, chain.replace("project_", "open_"))}


def test_ports_of_one_project_are_open_to_each_other_and_to_no_other() -> None:
    mine, hers = port(ONE, "10.0.0.5"), port(TWO, "10.0.0.6", project_id="red")
    text = ruleset([mine, hers])
    assert open_to(text, mine) == {f'"{bridge_name(BLUE)}" . 10.0.0.5'}
    assert open_to(text, hers) == {f'"{bridge_name(BLUE)}" . 10.0.0.6'}


def test_a_closed_port_is_open_to_nobody() -> None:
    mine, closed = port(ONE, "10.0.0.5"), port(TWO, "10.0.0.6", project_open=False)
    assert open_to(ruleset([mine, closed]), mine) == {f'"{bridge_name(BLUE)}" . 10.0.0.5'}


def test_rules_become_elements() -> None:
    rules = (
        Rule(protocol="tcp", port_min=80, port_max=80),
        Rule(protocol="udp", port_min=53, port_max=60, remote="192.0.2.0/24"),
        Rule(protocol="icmp", port_min=8, port_max=0),
        Rule(remote="198.51.100.7/32"),
        Rule(remote="fd00::/8"),
    )
    text = ruleset([port(ONE, "10.0.0.5", rules=rules)])
    place = f'"{bridge_name(BLUE)}" . 10.0.0.5'
    assert elements(text, "open_services") == {
        f"{place} . 0.0.0.0-255.255.255.255 . 6 . 80",
        f"{place} . 192.0.2.0-192.0.2.255 . 17 . 53-60",
    }
    assert elements(text, "open_echoes") == {f"{place} . 0.0.0.0-255.255.255.255 . 2048"}
    assert elements(text, "open_to_remote") == {f"{place} . 198.51.100.7"}


def let_in(text: str, receiver: PortFilter) -> set[str]:
    """What the chains of the groups of a port accept."""
    key = f'"{bridge_name(receiver.network)}" . {receiver.address} : jump '
    entered = [one.removeprefix(key) for one in elements(text, "receiver_groups") if one.startswith(key)]
    jumps = [re.search(rf"chain {chain} {{\n(.*?)\n  }}", text, re.DOTALL) for chain in entered]
    numbers = [number for found in jumps if found for number in re.findall(r"jump group_(\d+)", found[1])]
    kinds = ("remotes", "services", "echoes")
    return {f"{kind} {one}" for number in numbers for kind in kinds for one in elements(text, f"{kind}_{number}")}


def test_the_rules_of_a_group_are_there_once_however_many_ports_have_it() -> None:
    web = (Rule(protocol="tcp", port_min=80, port_max=80), Rule(protocol="icmp", port_min=8, port_max=0))
    lan = (Rule(remote="192.0.2.0/24"), Rule(protocol="udp", port_min=53, port_max=53))
    one, two = port(ONE, "10.0.0.5", groups=(web, lan)), port(TWO, "10.0.0.6", groups=(web,))
    none = port(RED, "10.0.0.7", groups=((),))
    text = ruleset([one, two, none])
    assert text.count(". 6 . 80") == 1
    everywhere = "0.0.0.0-255.255.255.255"
    assert let_in(text, two) == {f"services {everywhere} . 6 . 80", f"echoes {everywhere} . 2048"}
    more = {"remotes 192.0.2.0-192.0.2.255", f"services {everywhere} . 17 . 53"}
    assert let_in(text, one) == let_in(text, two) | more
    assert let_in(text, none) == set()


def test_rules_do_not_grow_with_the_members_of_a_group() -> None:
    web = (Rule(protocol="tcp", port_min=80, port_max=80),)
    few = ruleset([port(ONE, "10.0.0.5", groups=(web,))])
    uuids = [f"{n:08x}-1111-4111-8111-111111111111" for n in range(200)]
    many = ruleset([port(uuid, f"10.0.1.{n}", groups=(web,)) for n, uuid in enumerate(uuids)])
    assert len(many.splitlines()) == len(few.splitlines())
    assert many.count(". 6 . 80") == 1


def test_a_port_may_send_as_itself_only() -> None:
    text = ruleset([port(ONE, "10.0.0.5", mac="02:00:00:00:00:05"), port(TWO, "10.0.0.6")])
    assert elements(text, "senders") == {f'"{port_name(ONE)}" . 02:00:00:00:00:05 . 10.0.0.5'}
    assert elements(text, "senders_of_any_mac") == {f'"{port_name(TWO)}" . 10.0.0.6'}


def test_two_ports_at_one_place_are_both_left_out(caplog: pytest.LogCaptureFixture) -> None:
    text = ruleset([port(ONE, "10.0.0.5"), port(TWO, "10.0.0.5", project_id="red")])
    assert elements(text, "places") == set()
    assert "share the address 10.0.0.5" in caplog.text


def test_one_address_on_two_networks_is_two_places() -> None:
    mine, hers = port(ONE, "10.0.0.5"), port(TWO, "10.0.0.5", network=RED, project_id="red")
    text = ruleset([mine, hers])
    assert open_to(text, mine) == {f'"{bridge_name(BLUE)}" . 10.0.0.5'}


def test_the_host_is_closed_on_request_only() -> None:
    assert "hook input" not in ruleset([])
    assert "hook input" in ruleset([], reach_host=False)


def test_rules_do_not_grow_with_ports() -> None:
    few = ruleset([port(ONE, "10.0.0.5")])
    many = ruleset([port(f"{n:08x}-1111-4111-8111-111111111111", f"10.0.1.{n}") for n in range(200)])
    assert len(many.splitlines()) <= len(few.splitlines()) + 1


@pytest.mark.parametrize(
    "rule",
    [
        Rule(protocol="carrier-pigeon"),
        Rule(protocol="tcp", port_min=90, port_max=80),
        Rule(protocol="tcp", port_min=0, port_max=65536),
        Rule(protocol="icmp", port_min=256),
        Rule(remote="0.0.0.0/0 } ; flush ruleset"),
    ],
)
def test_a_rule_that_makes_no_sense_lets_nothing_in_and_is_named(rule: Rule, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Invalid) as caught:
        box(rule)
    sound = Rule(protocol="tcp", port_min=80, port_max=80)
    assert boxes([rule, sound]) == boxes([sound])
    assert str(caught.value) in caplog.text


spans = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda ends: (min(ends), max(ends)))


@UNHURRIED
@given(st.lists(st.tuples(spans, spans), max_size=8))
def test_disjoint_boxes_hold_the_same_points_once(given_boxes: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    def points(some: list[tuple[tuple[int, int], tuple[int, int]]]) -> list[tuple[int, int]]:
        return [(x, y) for (a, b), (c, d) in some for x in range(a, b + 1) for y in range(c, d + 1)]

    result = points(disjoint(given_boxes))
    assert set(result) == set(points(given_boxes))
    assert len(result) == len(set(result))


remotes = st.one_of(
    st.none(),
    st.builds(
        lambda base, length: str(ipaddress.ip_network((base, length), strict=False)),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    ),
    st.just("fd00::/8"),
)
ranges = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted)
rules = st.one_of(
    st.builds(
        lambda protocol, ports, remote: Rule(protocol=protocol, port_min=ports[0], port_max=ports[1], remote=remote),
        st.sampled_from(["tcp", "udp", "sctp", "47"]),
        ranges,
        remotes,
    ),
    st.builds(lambda code, remote: Rule(protocol="icmp", port_min=code, remote=remote), st.integers(0, 255), remotes),
    st.builds(Rule, protocol=st.sampled_from([None, "tcp", "udp", "icmp"]), remote=remotes),
)
filters = st.lists(
    st.builds(
        PortFilter,
        uuid=st.uuids().map(str),
        address=st.integers(5, 14).map(lambda last: f"10.0.0.{last}"),
        mac=st.sampled_from(["", "02:00:00:00:00:05"]),
        network=st.sampled_from([BLUE, RED]),
        project_id=st.sampled_from(["blue", "red", 'green" } ; flush ruleset', ""]),
        project_open=st.booleans(),
        rules=st.lists(rules, max_size=5).map(tuple),
        groups=st.lists(st.lists(rules, max_size=4).map(tuple), max_size=3).map(tuple),
    ),
    max_size=8,
)


@UNHURRIED
@given(filters)
def test_no_port_of_another_project_is_ever_open_to_a_sender(ports: list[PortFilter]) -> None:
    text = ruleset(ports)
    for sender in ports:
        allowed = {
            f'"{bridge_name(other.network)}" . {other.address}'
            for other in ports
            if other.project_id == sender.project_id and other.project_open
        }
        assert open_to(text, sender) <= allowed


@UNHURRIED
@given(filters)
def test_what_is_open_by_rule_is_a_place_with_rules(ports: list[PortFilter]) -> None:
    text = ruleset(ports)
    places = {f'"{bridge_name(each.network)}" . {each.address} ' for each in ports if each.rules}
    for name in ("open_services", "open_echoes", "open_to_remote"):
        assert all(any(element.startswith(place) for place in places) for element in elements(text, name))


@UNHURRIED
@given(filters)
def test_a_port_is_open_by_the_rules_of_its_own_groups_only(ports: list[PortFilter]) -> None:
    text = ruleset(ports)
    places = {f'"{bridge_name(each.network)}" . {each.address}' for each in ports if any(each.groups)}
    assert {element.split(" : ")[0] for element in elements(text, "receiver_groups")} <= places
    for each in ports:
        alone = let_in(ruleset([each]), each)
        assert let_in(text, each) in (alone, set()), "nothing where its place is another's, too"


@UNHURRIED
@given(st.permutations([port(ONE, "10.0.0.5"), port(TWO, "10.0.0.6", project_id="red"), port(RED, "10.0.0.7")]))
def test_the_order_of_the_filters_does_not_change_the_text(ports: list[PortFilter]) -> None:
    assert ruleset(ports) == ruleset(sorted(ports, key=lambda each: each.address))


@settings(UNHURRIED, max_examples=25)
@given(ports=filters, reach_host=st.booleans())
def test_nft_takes_every_ruleset(own_namespaces: None, ports: list[PortFilter], reach_host: bool) -> None:
    text = ruleset(ports, table="higgins-checked", reach_host=reach_host)
    ended = subprocess.run(["nft", "-c", "-f", "-"], input=text, text=True, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr + text


def test_removal_names_our_tables_only() -> None:
    assert set(re.findall(r"table (\S+ \S+)", no_ruleset("higgins"))) == {"inet higgins", "bridge higgins"}


def neighbour(address: str = "10.0.0.9", **more: object) -> Neighbour:
    known = {"tunnel": 7, "project_id": "blue", "mac": "02:00:00:00:00:09", "host": "192.0.2.2", "network": BLUE}
    return Neighbour(address=address, **(known | more))  # type: ignore[arg-type]


def test_a_neighbour_may_do_what_its_project_s_ports_here_may_and_is_held_to_its_addresses() -> None:
    text = ruleset([port(ONE, "10.0.0.5")], [neighbour()])
    place = f'"{bridge_name(BLUE)}" . 10.0.0.9'
    assert place in elements(text, "places") and elements(text, "beyond") == {place}
    assert f"{place} : jump project_0" in elements(text, "sender_project")
    assert f'"{tunnel_name(BLUE)}" . 02:00:00:00:00:09 . 10.0.0.9' in elements(text, "senders")
    assert elements(text, "tunnel_ends") == {"192.0.2.2 . 0x700"}
    assert place not in elements(text, "open_0"), "whether it lets that in is judged where it is"


def test_a_port_that_came_here_is_no_neighbour_any_more() -> None:
    text = ruleset([port(ONE, "10.0.0.9")], [neighbour()])
    assert elements(text, "beyond") == set()
    assert "from_hosts" not in text


def test_a_neighbour_of_a_project_that_has_no_port_here_sends_to_nobody() -> None:
    text = ruleset([port(ONE, "10.0.0.5")], [neighbour(project_id="red")])
    assert elements(text, "sender_project") == {f'"{bridge_name(BLUE)}" . 10.0.0.5 : jump project_0'}


@pytest.mark.parametrize("wrong", [{"mac": "x; drop"}, {"address": "10.0.0.9 }"}, {"host": "here"}, {"network": "n"}])
def test_nothing_but_addresses_passes_into_the_rules_of_a_neighbour(wrong: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        ruleset([], [neighbour(**wrong)])
