"""The page of differences between engines is what the contract suite saw, and that suite is this one."""

from tests.engines.containerd import ContainerdEngine, PlainCriEngine, UsersEngine
from tests.engines.differences import PAGE, needs, page, sights
from tests.engines.docker import DockerEngine, StoreEngine
from tests.engines.podman import PodmanEngine
from tests.engines.seen import TITLES, Sight, plain, title

ENGINES = (ContainerdEngine, DockerEngine, PlainCriEngine, PodmanEngine, StoreEngine, UsersEngine)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run make differences"


def test_every_engine_that_is_shown_was_seen() -> None:
    assert set(sights()) == set(TITLES), "run make differences"


def test_every_part_that_an_engine_lacks_is_needed_by_a_claim() -> None:
    assert {part for engine in ENGINES for part in engine.cannot} <= set().union(*needs().values())


def test_what_was_left_out_is_still_left_out_for_that() -> None:
    wanted = needs()
    stale = [one for sight in sights().values() for one in sight.left_out if one.part not in wanted.get(one.claim, ())]
    assert not stale, "run make differences"


def test_an_engine_is_named_with_its_version() -> None:
    assert title("docker-store", Sight(version="28.5.2+dfsg4")) == "Docker 28.5, containerd's store"
    assert title("plain-cri", Sight(version="2.1.9")) == "CRI alone"


def test_a_message_is_the_same_in_each_run() -> None:
    said = plain("Container 5ba2ed00-0000-4000-8000-000000000000 of 127.0.0.1:39001 is 0123456789abcdef, not 12.")
    assert said == "Container … of … is …, not 12."
