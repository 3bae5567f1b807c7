"""Workloads that are placed one after the other go where each would go alone, once those before it are there."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs

from higgins.control.placement.choosing import choose
from higgins.control.placement.filters import Question
from higgins.control.placement.fleet import Fleet
from higgins.control.placement.needs import POLICIES, Need
from higgins.control.placement.series import Series
from higgins.control.settings import Settings
from tests.control.test_placement import EXACT, NOW, fleet

_HOST = st.fixed_dictionaries(
    {
        "zone": st.sampled_from(["north", "south"]),
        "cpus": st.sampled_from([2.0, 4.0, 8.0]),
        "memory": st.sampled_from([1024, 2048, 4096]),
        "disk": st.sampled_from([0, 20]),
        "disabled": st.sampled_from([False, False, False, True]),
        "containers": st.sampled_from([0, 0, 1]),
        "tenant": st.sampled_from(["red", "blue", ""]),
    }
)
_NEED = st.builds(
    Need,
    cpu=st.sampled_from([0.5, 1.0, 2.0]),
    memory=st.sampled_from([256, 1024]),
    disk=st.sampled_from([0, 5]),
    project=st.sampled_from(["red", "blue", "green"]),
    zone=st.sampled_from([None, None, "north"]),
    group=st.sampled_from(["web", "jobs"]),
    policy=st.sampled_from(["", *POLICIES]),
    image_hosts=st.sampled_from([frozenset(), frozenset({1, 3})]),
)
_SETTINGS = st.builds(
    structs.replace,
    st.just(EXACT),
    spread=st.booleans(),
    spread_zones=st.booleans(),
    tenant_isolation=st.sampled_from([(), ("all",), ("red",)]),
)


def with_it(before: Fleet, place: int, need: Need) -> Fleet:
    """The fleet once ``need`` is at ``place``, found without ``Series``."""
    series = Series(before, EXACT, NOW)
    series.take(place, need)
    return series.fleet


@hypothesis_settings(deadline=None, max_examples=150)
@given(hosts=st.lists(_HOST, min_size=1, max_size=6), needs=st.lists(_NEED, max_size=12), settings=_SETTINGS)
def test_each_goes_where_it_would_go_alone(hosts: list[dict[str, Any]], needs: list[Need], settings: Settings) -> None:
    known = fleet(**{f"host{n}": one for n, one in enumerate(hosts)})
    series, alone = Series(known, settings, NOW), known
    members: dict[tuple[str, str | None], dict[int, int]] = {}
    for need in needs:
        companions = members.setdefault((need.project, need.group), {})
        asked = structs.replace(need, companions=dict(companions))
        fit = choose(Question(fleet=alone, need=asked, settings=settings, now=NOW)).fit
        place = series.best(need)  # which knows whom it placed
        assert place == (int(fit[0]) if len(fit) else None)
        if place is not None:
            series.take(place, need)
            alone = with_it(alone, place, need)
            number = int(known.facts.ids[place])
            companions[number] = companions.get(number, 0) + 1


def test_a_host_that_could_not_be_had_gets_nothing_and_its_group_is_not_there() -> None:
    known = fleet(one={}, two={"memory_used": 1024})
    series = Series(known, EXACT, NOW)
    need = Need(cpu=1, memory=256, disk=0, project="red", group="web", policy="affinity")
    first = series.best(need)
    assert first == 0
    series.take(first, need)
    assert series.best(need) == 0
    series.refuse(first)
    assert series.best(need) == 1


def test_what_was_known_before_is_not_changed_by_a_series() -> None:
    known = fleet(one={}, two={})
    before = replace(known, cpu_used=known.cpu_used.copy(), containers=known.containers.copy())
    series = Series(known, EXACT, NOW)
    series.take(0, Need(cpu=1, memory=256, disk=0, project="red"))
    assert np.array_equal(known.cpu_used, before.cpu_used)
    assert np.array_equal(known.containers, before.containers)
