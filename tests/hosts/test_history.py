"""The checker of ``make chaos`` believes a history that is right, and refuses each that is wrong."""

import pytest
from msgspec.structs import replace

from tests.hosts.chaos.history import Answer, Found, Held, Operation, Shown, State, faults, possible

YES, NO, SILENCE, DOWN = Answer(202), Answer(409), Answer(None), Answer(503)
NOBODY = Answer(None, sent=False)

WEB = Shown(uuid="u1", name="web", status="Running", host="one", ports=("p1",))
DB = Shown(uuid="u2", name="db", status="Stopped", host="two", beside=True, ports=("p2", "p3"))
FOUND = Found(
    shown=(WEB, DB),
    hosts={
        "one": Held(running=("u1",), ports=frozenset({"p1"})),
        "two": Held(others=("u2",), ports=frozenset({"p2", "p3"})),
    },
)
HISTORY = [
    Operation("web", "create", [SILENCE, DOWN, YES], "u1"),
    Operation("db", "create", [YES], "u2"),
    Operation("db", "attach", [YES]),
    Operation("web", "stop", [NOBODY, NO]),
    Operation("db", "stop", [SILENCE, NO]),
    Operation("gone", "create", [YES], "u3"),
    Operation("gone", "delete", [SILENCE, Answer(404)]),
    Operation("never", "create", [Answer(403)]),
    Operation("perhaps", "create", [SILENCE]),
]


def with_shown(*shown: Shown) -> Found:
    return replace(FOUND, shown=shown)


def with_host(name: str, held: Held) -> Found:
    return replace(FOUND, hosts=FOUND.hosts | {name: held})


def test_a_history_that_is_right_is_believed() -> None:
    assert faults(HISTORY, FOUND) == []


def test_nothing_is_wrong_where_nothing_was_asked() -> None:
    assert faults([], Found()) == []


TWICE = replace(WEB, uuid="u9", host="two")
ONE, TWO = FOUND.hosts["one"], FOUND.hosts["two"]
WRONG: dict[str, tuple[Found, str]] = {
    "a lost create": (with_shown(DB), "web is not there (create accepted, stop refused)"),
    "made twice": (with_shown(WEB, TWICE, DB), "web was made 2 times"),
    "another one": (with_shown(replace(WEB, uuid="u9"), DB), "web is u9, and was told to be u1"),
    "never asked for": (with_shown(WEB, DB, replace(DB, name="x", uuid="u9")), "x is there, and nobody asked for it"),
    "a refused create": (with_shown(WEB, DB, replace(WEB, name="never", uuid="u9")), "never is there, and Running"),
    "a refused stop": (with_shown(replace(WEB, status="Stopped"), DB), "web is Stopped"),
    "a lost attach": (with_shown(WEB, replace(DB, beside=False)), "db is Stopped (create accepted, attach accepted"),
    "on its way": (with_shown(replace(WEB, status="Creating"), DB), "web is Creating"),
    "an error without a reason": (with_shown(replace(WEB, status="Error"), DB), "does not say why"),
    "on two hosts": (with_host("two", replace(TWO, running=("u1",))), "web runs 2 times, on one and two"),
    "twice on a host": (with_host("one", replace(ONE, running=("u1", "u1"))), "host one has web 2 times"),
    "elsewhere": (with_host("two", replace(TWO, others=("u2", "u1"))), "host two has web, which is on one"),
    "nowhere": (with_host("one", replace(ONE, running=())), "web is shown to run, and runs nowhere"),
    "not stopped": (with_host("two", replace(TWO, running=("u2",), others=())), "db is shown as stopped, and runs"),
    "a leaked container": (with_host("one", replace(ONE, others=("u7",))), "host one has container u7, which is nob"),
    "a leaked port": (with_host("one", replace(ONE, ports=frozenset({"p1", "p7"}))), "host one has port p7"),
    "no port": (with_host("one", replace(ONE, ports=frozenset())), "web runs without its ports p1"),
    "a leaked claim": (replace(FOUND, differences=("claim one: 2 are claimed",)), "does not add up: claim one"),
    "no rest": (replace(FOUND, restless=1), "1 workloads have not come to rest"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_whatever_is_wrong_is_told(what: str) -> None:
    found, says = WRONG[what]
    told = faults(HISTORY, found)
    assert [one for one in told if says in one], told


def test_a_delete_that_was_accepted_and_did_not_happen_is_told() -> None:
    history = [*HISTORY, Operation("web", "delete", [Answer(204)])]
    assert [one for one in faults(history, FOUND) if "web is there, and Running" in one]


def test_a_failure_that_nobody_foresaw_is_told() -> None:
    history = [*HISTORY, Operation("web", "start", [Answer(500, "The server failed."), YES])]
    assert faults(history, FOUND) == ["start of web failed: The server failed."]


def test_a_container_in_error_says_why_not() -> None:
    failed = replace(WEB, status="Error", reason="There are not enough hosts available.")
    hosts = FOUND.hosts | {"one": replace(ONE, running=())}
    assert faults(HISTORY, replace(FOUND, shown=(failed, DB), hosts=hosts)) == []


def test_what_was_not_answered_may_have_happened_or_not() -> None:
    made = Operation("x", "create", [YES])
    assert possible([Operation("x", "create", [SILENCE])]) == {None, State()}
    assert possible([made, Operation("x", "stop", [DOWN])]) == {State(), State(runs=False)}
    assert possible([made, Operation("x", "stop", [DOWN, YES])]) == {State(runs=False)}
    assert possible([made, Operation("x", "delete", [SILENCE, NO]), Operation("x", "stop", [YES])]) == {
        None,
        State(runs=False),
    }
