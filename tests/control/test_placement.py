"""Which host a workload goes to, and why not to the others: judged on arrays, without a database."""

from datetime import datetime, timedelta
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from higgins.control.placement.choosing import Choice, choose
from higgins.control.placement.cores import pick, share
from higgins.control.placement.filters import Question
from higgins.control.placement.fleet import READ, Fleet, fleet_of
from higgins.control.placement.needs import Company, Need, company_of, cores_of
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec
from higgins.model.errors import Invalid
from higgins.model.resources import HostInfo

NOW = datetime(2026, 6, 1, 12)
#: What is claimed is what is there.
EXACT = Settings(cpu_allocation_ratio=1.0, memory_allocation_ratio=1.0, disk_allocation_ratio=1.0)
SMALL = Need(cpu=1, memory=256, disk=0, project="red")


def row(name: str, number: int, **values: Any) -> Any:
    """A row of the host table: 8 cores, 8 GiB, nothing on it."""
    info = values.pop("info", HostInfo(runtimes=("runc",)))
    defaults = {
        "id": number, "uuid": f"uuid-{name}", "name": name, "zone": "nova", "revision": 0, "seen_at": NOW,
        "cpus": 8.0, "cpu_used": 0.0, "memory": 8192, "memory_used": 0, "disk": 100, "disk_used": 0, "cores": 0,
        "cores_used": 0, "containers": 0, "disabled": False, "draining": False, "forced_down": False, "tenant": None,
    }  # fmt: skip
    unknown = values.keys() - defaults.keys()
    assert not unknown
    return SimpleNamespace(**{**defaults, **values, "info": msgspec.json.encode(info).decode()})


def judged(need: Need = SMALL, settings: Settings = EXACT, **hosts: dict[str, Any]) -> Choice:
    """The choice among hosts that differ from the usual one as said, numbered from 1."""
    return choose(Question(fleet=fleet(**hosts), need=need, settings=settings, now=NOW))


def fleet(**hosts: dict[str, Any]) -> Fleet:
    """Hosts that differ from the usual one as said, numbered from 1."""
    rows = [row(name, number, **values) for number, (name, values) in enumerate(hosts.items(), 1)]
    return fleet_of([attrgetter(*READ)(one) for one in rows])


@pytest.mark.parametrize(
    ("host", "need", "reason"),
    [
        ({"disabled": True}, {}, "it is disabled"),
        ({"draining": True}, {}, "it is being drained"),
        ({"forced_down": True}, {}, "it is down"),
        ({"seen_at": NOW - timedelta(minutes=5)}, {}, "it is down"),
        ({}, {"host": "other"}, "host other was asked for"),
        ({}, {"zone": "south"}, "it is in zone nova, and zone south was asked for"),
        ({}, {"volume_hosts": frozenset({7})}, "a volume of the container lies on another host"),
        ({}, {"volume_hosts": frozenset({1, 7})}, "a volume of the container lies on another host"),
        ({}, {"runtimes": frozenset({"runc", "kata"})}, "it has no runtime kata"),
        ({}, {"labels": {"ssd": "yes"}}, "its label ssd is not yes"),
        ({}, {"beside": frozenset({7})}, "a container that it shall be beside is on another host"),
        ({}, {"apart": frozenset({1})}, "a container that it shall not be beside is there"),
        ({}, {"cores": 1}, "it gives no dedicated CPUs"),
        ({"cores": 4, "cores_used": 3}, {"cpu": 2, "cores": 2}, "it has too few dedicated CPUs left"),
        ({"cpu_used": 7.5}, {}, "it has too little CPU left"),
        ({"cores": 8}, {}, "it has too little CPU left"),
        ({"memory_used": 8000}, {}, "it has too little memory left"),
        ({"disk_used": 100}, {"disk": 1}, "it has too little disk left"),
    ],
)
def test_each_host_that_cannot_take_it_says_why(host: dict[str, Any], need: dict[str, Any], reason: str) -> None:
    choice = judged(structs.replace(SMALL, **need), one=host)
    assert (choice.names(), choice.refused()) == ([], {"one": reason})


def test_of_many_hosts_the_reasons_are_counted() -> None:
    hosts: dict[str, Any] = {f"h{n}": {"disabled": n < 3, "memory_used": 8192} for n in range(9)}
    assert judged(**hosts).why() == "6 hosts: it has too little memory left; 3 hosts: it is disabled"


def test_without_any_host_there_is_none() -> None:
    assert (judged().names(), judged().why()) == ([], "")


def test_labels_runtimes_zone_and_name_are_met_together() -> None:
    info = HostInfo(runtimes=("runc", "kata"), labels={"ssd": "yes"})
    need = structs.replace(SMALL, runtimes=frozenset({"kata"}), labels={"ssd": "yes"}, zone="south", host="uuid-b")
    assert judged(need, a={}, b={"info": info, "zone": "south"}).names() == ["b"]


def test_spreading_takes_the_emptiest_host_and_packing_the_fullest() -> None:
    hosts: dict[str, Any] = {"a": {"memory_used": 4096}, "b": {}, "c": {"cpu_used": 6.0}}
    assert judged(**hosts).names() == ["b", "a", "c"]
    assert judged(settings=structs.replace(EXACT, spread=False), **hosts).names() == ["c", "a", "b"]


def test_an_image_that_is_there_outweighs_a_little_load_and_not_much() -> None:
    need = structs.replace(SMALL, image_hosts=frozenset({2}))
    assert judged(need, a={}, b={"memory_used": 256}).names() == ["b", "a"]
    assert judged(need, a={}, b={"memory_used": 4096}).names() == ["a", "b"]


def test_zones_are_filled_evenly_where_the_operator_wants_it() -> None:
    spread = structs.replace(EXACT, spread_zones=True)
    hosts: dict[str, Any] = {
        "a": {"zone": "x", "cpu_used": 6.0}, "b": {"zone": "x"}, "c": {"zone": "y", "cpu_used": 2.0},
    }  # fmt: skip
    assert judged(settings=spread, **hosts).names() == ["c", "b", "a"]
    assert judged(**hosts).names() == ["b", "c", "a"]


# groups


def group(policy: str, **values: Any) -> Need:
    return structs.replace(SMALL, group="web", policy=policy, **values)


def test_a_group_kept_apart_has_one_member_on_each_host_and_spreads_over_zones() -> None:
    hosts: dict[str, Any] = {"a": {"zone": "x"}, "b": {"zone": "x"}, "c": {"zone": "y"}}
    choice = judged(group("anti-affinity", companions={1: 1}), **hosts)
    assert choice.names() == ["c", "b"]
    assert choice.refused() == {"a": "it has a member of group web already"}


def test_a_group_kept_together_stays_on_its_host() -> None:
    assert judged(group("affinity"), a={}, b={}).names() == ["a", "b"]
    choice = judged(group("affinity", companions={2: 3}), a={}, b={})
    assert (choice.names(), choice.refused()) == (["b"], {"a": "group web is on another host"})


def test_the_soft_policies_only_prefer() -> None:
    counts = {1: 2, 2: 1}
    assert judged(group("soft-anti-affinity", companions=counts), a={}, b={}, c={}).names() == ["c", "b", "a"]
    assert judged(group("soft-affinity", companions=counts), a={}, b={}, c={}).names() == ["a", "b", "c"]


def test_hints_are_read_as_clients_send_them() -> None:
    assert company_of({}) == Company()
    assert company_of({"group": "web"}) == Company(group="web")
    assert company_of({"same_host": "a", "different_host": "b, c"}) == Company(same=("a",), different=("b", "c"))
    with pytest.raises(Invalid, match="policy near is not one of affinity"):
        company_of({"group": "web", "policy": "near"})
    with pytest.raises(Invalid, match="a policy needs a group"):
        company_of({"policy": "affinity"})


# tenants

ALL = structs.replace(EXACT, tenant_isolation=("all",))
RED = structs.replace(EXACT, tenant_isolation=("red",))
HOUSES: dict[str, Any] = {
    "empty": {},
    "red": {"containers": 2, "tenant": "red"},
    "blue": {"containers": 1, "tenant": "blue"},
    "several": {"containers": 2, "tenant": ""},
}


@pytest.mark.parametrize(
    ("settings", "project", "names"),
    [
        (EXACT, "red", {"empty", "red", "blue", "several"}),
        (structs.replace(EXACT, tenant_isolation=("none",)), "red", {"empty", "red", "blue", "several"}),
        (ALL, "red", {"empty", "red"}),
        (ALL, "green", {"empty"}),
        (RED, "red", {"empty", "red"}),
        (RED, "blue", {"empty", "blue", "several"}),
        (RED, "green", {"empty", "blue", "several"}),
    ],
)
def test_projects_that_share_hosts_with_no_other_are_kept_apart(
    settings: Settings, project: str, names: set[str]
) -> None:
    choice = judged(structs.replace(SMALL, project=project), settings, **HOUSES)
    assert set(choice.names()) == names
    assert set(choice.refused().values()) <= {"it holds containers of another project, which may not be shared with"}


def test_a_project_alone_on_its_hosts_fills_these_before_it_takes_another() -> None:
    assert judged(SMALL, ALL, **HOUSES).names() == ["red", "empty"]


# whole cores


def test_cores_come_from_one_numa_node_and_leave_the_larger_gap() -> None:
    nodes = ((0, 1, 2, 3), (4, 5, 6, 7))
    assert pick(nodes, frozenset(), 2) == (0, 1)
    assert pick(nodes, frozenset({4}), 3) == (5, 6, 7)
    assert pick(nodes, frozenset({4}), 4) == (0, 1, 2, 3)
    assert pick(nodes, frozenset({0, 4}), 4) == (1, 2, 3, 5)
    assert pick(nodes, frozenset({0, 4}), 7) is None


@given(
    nodes=st.lists(st.integers(0, 5), max_size=4),
    taken=st.frozensets(st.integers(0, 24)),
    count=st.integers(1, 24),
)
def test_cores_are_picked_whenever_there_are_enough_and_nobody_has_them(
    nodes: list[int], taken: frozenset[int], count: int
) -> None:
    starts = [sum(nodes[:n]) for n in range(len(nodes))]
    cores = tuple(tuple(range(start, start + size)) for start, size in zip(starts, nodes, strict=True))
    free = {number for node in cores for number in node} - taken
    picked = pick(cores, taken, count)
    assert (picked is None) == (len(free) < count)
    if picked is not None:
        assert len(set(picked)) == count
        assert set(picked) <= free
        if any(len(set(node) - taken) >= count for node in cores):
            assert sum(bool(set(node) & set(picked)) for node in cores) == 1


def test_a_host_whose_free_cores_are_near_to_one_another_comes_first() -> None:
    cores = HostInfo(runtimes=("runc",), cores=((0, 1), (2, 3)))
    need = structs.replace(SMALL, cpu=2, cores=2, taken={1: frozenset({0, 2})})
    hosts: dict[str, Any] = {
        "a": {"info": cores, "cores": 4, "cores_used": 2, "cpu_used": 2.0},
        "b": {"info": cores, "cores": 4, "memory_used": 4096},
    }
    assert judged(need, **hosts).names() == ["b", "a"]


def test_a_workload_that_takes_whole_cores_leaves_the_shared_ones_alone() -> None:
    assert judged(structs.replace(SMALL, cpu=2, cores=2), a={"cores": 4, "cpu_used": 4.0}).names() == ["a"]
    assert judged(structs.replace(SMALL, cpu=4), a={"cores": 4, "cores_used": 4, "cpu_used": 4.0}).names() == ["a"]


def test_members_share_out_the_cores_and_init_containers_use_the_same() -> None:
    members = [("init", 2), ("main", 1), ("main", 0), ("main", 2)]
    assert share([3, 4, 7], members) == [(3, 4), (3,), (), (4, 7)]


def test_dedicated_cpus_are_whole() -> None:
    specs = [ContainerSpec(image="i", cpu=2, cpu_policy="dedicated"), ContainerSpec(image="i", cpu=1.5)]
    assert cores_of(specs) == 2
    for bad in (0.5, 1.5):
        with pytest.raises(Invalid, match="dedicated CPUs are whole"):
            cores_of([ContainerSpec(image="i", cpu=bad, cpu_policy="dedicated")])


# all of it


HOSTS = st.lists(
    st.fixed_dictionaries(
        {
            "zone": st.sampled_from(["x", "y"]),
            "cpu_used": st.integers(0, 8).map(float),
            "memory_used": st.integers(0, 32).map(lambda n: 256 * n),
            "containers": st.integers(0, 2),
            "tenant": st.sampled_from(["red", "blue", ""]),
            "disabled": st.booleans(),
            "draining": st.booleans(),
        }
    ),
    max_size=12,
)
NEEDS = st.builds(
    Need,
    cpu=st.integers(1, 4).map(float),
    memory=st.integers(1, 8).map(lambda n: 256 * n),
    disk=st.just(0),
    project=st.sampled_from(["red", "blue", "green"]),
    zone=st.sampled_from([None, "x"]),
    apart=st.frozensets(st.integers(1, 12), max_size=3),
    policy=st.sampled_from(["", "anti-affinity", "soft-anti-affinity", "affinity"]),
    companions=st.dictionaries(st.integers(1, 12), st.integers(1, 2), max_size=3),
)
SETTINGS = st.builds(
    structs.replace,
    st.just(EXACT),
    spread=st.booleans(),
    spread_zones=st.booleans(),
    tenant_isolation=st.sampled_from([(), ("all",), ("red",)]),
)


@given(hosts=HOSTS, need=NEEDS, settings=SETTINGS)
def test_a_host_is_chosen_if_and_only_if_nothing_speaks_against_it(
    hosts: list[dict[str, Any]], need: Need, settings: Settings
) -> None:
    choice = judged(need, settings, **{f"h{n}": host for n, host in enumerate(hosts, 1)})
    names = choice.names()
    assert len(set(names)) == len(names)
    assert set(names) | choice.refused().keys() == {f"h{n}" for n in range(1, len(hosts) + 1)}
    for number, host in enumerate(hosts, 1):
        assert (f"h{number}" in names) == allowed(number, host, need, settings)
    if settings.spread and not settings.spread_zones and not settings.tenant_isolation and not need.policy:
        loads = [loaded(hosts[int(name[1:]) - 1], need) for name in names]
        assert loads == sorted(loads)


def loaded(host: dict[str, Any], need: Need) -> float:
    return float(max((host["cpu_used"] + need.cpu) / 8, (host["memory_used"] + need.memory) / 8192))


def allowed(number: int, host: dict[str, Any], need: Need, settings: Settings) -> bool:
    """One host, one rule after the other."""
    alone = {"all": True, "red": need.project == "red"}.get("".join(settings.tenant_isolation), False)
    foreign = host["containers"] > 0 and host["tenant"] != need.project
    with_red = bool(settings.tenant_isolation) and host["containers"] > 0 and host["tenant"] == "red"
    return not (
        host["disabled"]
        or host["draining"]
        or (need.zone and host["zone"] != need.zone)
        or number in need.apart
        or (need.policy == "anti-affinity" and number in need.companions)
        or (need.policy == "affinity" and need.companions and number not in need.companions)
        or (alone and foreign)
        or (with_red and need.project != "red")
        or loaded(host, need) > 1
    )
