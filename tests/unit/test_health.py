"""When a container is asked for its health, and what the answers make of it."""

from datetime import timedelta

from higgins.agent import health
from higgins.agent.health import HEALTHY, STARTING, UNHEALTHY
from higgins.agent.probes import probe
from higgins.model.container import Healthcheck
from tests.unit.fakes import WORKLOAD, Clock, FakeRuntime

CHECK = Healthcheck(test="true", interval=5, timeout=1, retries=3)
NOW = Clock()()


def test_the_first_probe_comes_one_interval_after_the_start() -> None:
    state = health.of_run(None, CHECK, NOW, NOW)
    assert (state.state, state.next_at) == (STARTING, NOW + timedelta(seconds=5))


def test_as_many_failures_in_a_row_as_are_allowed_make_it_unhealthy() -> None:
    state = health.of_run(None, CHECK, NOW, NOW)
    states = []
    for ok in (False, False, True, False, False, False, True):
        state = health.answered(health.asked(state), CHECK, ok, NOW)
        states.append(state.state)
    assert states == [STARTING, STARTING, HEALTHY, HEALTHY, HEALTHY, UNHEALTHY, HEALTHY]
    assert not state.probing


def test_another_run_begins_anew() -> None:
    state = health.answered(health.of_run(None, CHECK, NOW, NOW), CHECK, True, NOW)
    later = NOW + timedelta(seconds=60)
    assert health.of_run(state, CHECK, NOW, later) is state
    assert health.of_run(state, CHECK, later, later).state == STARTING


async def test_a_probe_is_what_the_command_says() -> None:
    runtime = FakeRuntime()
    assert await probe(runtime, WORKLOAD, CHECK)  # type: ignore[arg-type]
    runtime.unwell.add(WORKLOAD)
    assert not await probe(runtime, WORKLOAD, CHECK)  # type: ignore[arg-type]


async def test_a_probe_that_takes_too_long_has_failed() -> None:
    runtime = FakeRuntime()
    runtime.hangs.add(WORKLOAD)
    check = Healthcheck(test="sleep 9", timeout=0.01)
    assert not await probe(runtime, WORKLOAD, check)  # type: ignore[arg-type]
