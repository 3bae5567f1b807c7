"""Which of the host's users a sandbox gets."""

import pytest

from higgins.model.errors import EngineError
from higgins.runtimes.cri.users import EACH, Ids, annotation, of, parse, ping_group_range


def test_nothing_set_means_the_hosts_own_users() -> None:
    assert parse("") is None
    assert of({}) is None
    assert annotation(None) == {}


def test_a_sandbox_gets_the_lowest_ids_that_no_other_has() -> None:
    ids = parse("1000000:196608")
    assert ids == Ids(1000000, 3 * EACH)
    assert ids.free(()) == 1000000
    assert ids.free({1000000, 1000000 + 2 * EACH}) == 1000000 + EACH
    with pytest.raises(EngineError, match="too short"):
        ids.free({1000000 + number * EACH for number in range(3)})


@pytest.mark.parametrize("text", ["1000000", "a:b", "0:65536", "1000:65536", "1000000:65535", "4294900000:131072"])
def test_a_range_that_serves_nobody_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="user_ids"):
        parse(text)


def test_a_container_remembers_its_ids() -> None:
    assert of(annotation(1000000)) == 1000000


def test_all_groups_that_there_are_may_ping() -> None:
    assert ping_group_range(None) == "0 2147483647"
    assert ping_group_range(1000000) == "0 65535"
