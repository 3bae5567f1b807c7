"""How large a pool of ports is to be, and who may take from it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from higgins.control.port_pools import key_of, size
from higgins.control.requests import PortAsk

names = some.sampled_from(["a", "b", "c"])
sets = some.lists(names, max_size=3).map(tuple)
asks = some.builds(PortAsk, network=names, network_name=names, groups=sets, subnets=sets)


_YES = {"idle": 10.0, "keep": 600.0, "used": True, "fit": True, "resting": False}


@pytest.mark.parametrize(
    ("differs", "wanted"),
    [
        ({}, 4),
        ({"idle": 600.0}, 0),
        ({"used": False}, 0),
        ({"fit": False}, 0),
        ({"resting": True}, 0),
    ],
)
def test_a_pool_is_empty_where_nobody_will_take_from_it(differs: dict[str, Any], wanted: int) -> None:
    assert size(4, **_YES | differs) == wanted
    assert size(0, **_YES | differs) == 0


@given(one=some.tuples(names, asks), other=some.tuples(names, asks))
def test_ports_are_alike_where_project_network_groups_and_subnets_are(
    one: tuple[str, PortAsk], other: tuple[str, PortAsk]
) -> None:
    def alike(project: str, ask: PortAsk) -> tuple[object, ...]:
        return project, ask.network, frozenset(ask.groups), frozenset(ask.subnets)

    assert (key_of(*one) == key_of(*other)) is (alike(*one) == alike(*other))
