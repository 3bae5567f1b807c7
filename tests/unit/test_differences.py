"""The page of differences between engines is what they declare."""

from tests.engines.differences import ENGINES, PAGE, claims, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run make differences"


def test_every_part_that_an_engine_lacks_is_needed_by_a_claim() -> None:
    assert {need for engine in ENGINES for need in engine.cannot} <= set(claims())


def test_what_one_engine_does_its_own_way_is_told_of_all() -> None:
    assert len({frozenset(engine.differs) for engine in ENGINES}) == 1
