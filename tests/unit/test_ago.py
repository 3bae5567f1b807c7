"""How long ago something was, and until when that is how it reads."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from higgins.control.rows import _reads_until, ago

NOW = datetime(2026, 6, 1, 12)
MICROSECOND = timedelta(microseconds=1)


def test_it_is_told_in_the_words_of_zuns_clients() -> None:
    told = {
        0: "0 seconds",
        1: "a second",
        59: "59 seconds",
        60: "a minute",
        3599: "59 mins",
        7200: "2 hours",
        86400: "a day",
    }
    assert {seconds: ago(NOW - timedelta(seconds=seconds), NOW) for seconds in told} == told


@given(passed=st.timedeltas(timedelta(seconds=-5), timedelta(days=400)))
def test_it_reads_the_same_until_a_moment_and_otherwise_from_then_on(passed: timedelta) -> None:
    then = NOW - passed
    until = _reads_until(then, NOW)
    assert until > NOW
    assert ago(then, until - MICROSECOND) == ago(then, NOW) != ago(then, until)
