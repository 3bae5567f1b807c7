"""Whatever happens in whatever order: what holds at every moment (safety), and what holds in the end (liveness)."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from higgins.control.link import Known
from higgins.model.container import Goal, RestartPolicy
from higgins.runtimes.base import EngineContainer, SandboxSpec
from higgins.volumes.base import VolumeWire
from tests.unit.fakes import WORKLOAD, assignment, member, order, port
from tests.unit.rig import Rig

STRANGER = "99999999-9999-9999-9999-999999999999"
GOALS = (Goal.RUNNING, Goal.STOPPED, Goal.PAUSED, Goal.CREATED)
POLICIES = tuple(RestartPolicy(name, 2 if name == "on-failure" else 0) for name in ("no", "always", "on-failure"))

#: What may happen: the owner's wishes, the world's blows, and how far the agent gets before the next of them.
EVENTS = st.one_of(
    st.tuples(st.just("goal"), st.sampled_from(GOALS)),
    st.tuples(st.just("order"), st.sampled_from(["restart", "SIGKILL", "SIGWINCH"])),
    st.tuples(st.just("rebuild"), st.sampled_from(["busybox", "missing", "unreachable", "refused", "ends"])),
    st.tuples(st.just("resize"), st.sampled_from([32, 64, 128])),
    st.tuples(st.just("ports"), st.sampled_from([0, 1, 2])),
    st.tuples(st.just("end"), st.sampled_from([0, 1])),
    st.tuples(st.just("vanish"), st.none()),
    st.tuples(st.just("lose"), st.sampled_from([True, False])),
    st.tuples(st.just("crash"), st.sampled_from([True, False])),
    st.tuples(st.just("wait"), st.sampled_from([0.05, 1, 15, 100])),
    st.tuples(st.just("work"), st.integers(min_value=0, max_value=8)),
    st.tuples(st.just("unheard"), st.integers(min_value=0, max_value=8)),
)


async def _world(data: Path, policy: RestartPolicy, heals: bool, forgets: bool) -> Rig:
    """A workload, and beside it one that is none of its business."""
    rig = Rig(data, assignment(member(restart_policy=policy, auto_heal=heals), volumes={"v": VolumeWire(uuid="v")}))
    rig.runtime.missing.add("missing")
    rig.runtime.unreachable.add("unreachable")
    rig.runtime.refused.add("refused")
    rig.runtime.exits["ends"] = 0
    rig.runtime.forgets_members = forgets
    await rig.runtime.create_sandbox(SandboxSpec(uuid=STRANGER, project_id="other"))
    await rig.runtime.create(EngineContainer(uuid=STRANGER, incarnation=1, sandbox=STRANGER, image="busybox"))
    await rig.runtime.start(STRANGER)
    await rig.network.plug("/ns/1", STRANGER, [port("stranger")])
    for volume in ("v", "stranger"):
        await rig.volumes.attach(VolumeWire(uuid=volume))
    return rig


def _safe(rig: Rig) -> None:
    assert len(rig.runtime.running(WORKLOAD)) <= 1, "two incarnations run at once"
    assert rig.runtime.state(STRANGER) == "running" and STRANGER in rig.runtime.boxes
    assert (STRANGER, "stranger") in rig.network.wired
    assert rig.volumes.data == {"v", "stranger"} and "stranger" in rig.volumes.in_use


async def _work(rig: Rig, steps: int, *, heard: bool) -> None:
    """As many steps as that, each of which must leave the world safe."""
    for _ in range(4):
        todo = await rig.consider(heard=heard)
        _safe(rig)
        wanted = {one.uuid for one in rig.wanted.ports} if rig.wanted else set()
        assert not todo.settled or {port for who, port in rig.network.wired if who == WORKLOAD} <= wanted
        for step in todo.steps:
            if steps == 0:
                return
            steps -= 1
            if not await rig.do(step):
                break
            _safe(rig)


async def _happen(rig: Rig, event: tuple[str, Any]) -> None:
    kind, what = event
    match kind:
        case "goal":
            rig.change_member(goal=what)
        case "order":
            seq = (rig.member.order.seq if rig.member.order else 0) + 1
            verb, sent = ("restart", "") if what == "restart" else ("kill", what)
            rig.change_member(order=order(seq, verb, signal=sent))
        case "rebuild":
            spec = replace(rig.member.spec, image=what)
            rig.change_member(incarnation=rig.member.incarnation + 1, spec=spec)
        case "resize":
            rig.change_member(spec=replace(rig.member.spec, memory=what))
        case "ports":
            rig.change(ports=tuple(port(f"port-{number}", f"10.88.0.{number}") for number in range(what)))
        case "end":
            rig.runtime.end(WORKLOAD, what)
        case "vanish":
            rig.runtime.held = {key: held for key, held in rig.runtime.held.items() if key[0] != WORKLOAD}
        case "lose":
            rig.runtime.lose_sandbox(WORKLOAD, gone=what)
            rig.network.wired = {wire: ns for wire, ns in rig.network.wired.items() if wire[0] != WORKLOAD or what}
        case "crash":
            rig.crash()
        case "wait":
            rig.clock.forward(what)
        case _:
            await _work(rig, what, heard=kind == "work")


def _in(body: Callable[[Path], Awaitable[None]]) -> None:
    with tempfile.TemporaryDirectory() as data:
        asyncio.run(_run(body, Path(data)))


async def _run(body: Callable[[Path], Awaitable[None]], data: Path) -> None:
    await body(data)


EXAMPLES = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
ONCE = (RestartPolicy("no"), False, False)
STORY = st.lists(EVENTS, min_size=1, max_size=14)


@EXAMPLES
@example([("goal", Goal.PAUSED), ("work", 8), ("lose", False), ("work", 8), ("goal", Goal.RUNNING)], *ONCE)
@example([("work", 6), ("order", "SIGWINCH"), ("lose", False)], *ONCE)
@example([("goal", Goal.PAUSED), ("work", 7), ("goal", Goal.CREATED), ("order", "restart")], *ONCE)
@given(STORY, st.sampled_from(POLICIES), st.booleans(), st.booleans())
def test_whatever_happens_the_plan_comes_to_an_end_and_asks_for_nothing_more(
    story: list[tuple[str, Any]], policy: RestartPolicy, heals: bool, forgets: bool
) -> None:
    async def body(data: Path) -> None:
        rig = await _world(data, policy, heals, forgets)
        for event in story:
            await _happen(rig, event)
            _safe(rig)
        rig.runtime.exits.clear()  # else it is started for ever, as its policy says
        rig.runtime.unreachable.clear()
        rig.clock.forward(100)
        todo = await rig.settle()
        _safe(rig)
        known = rig.known()
        order_seq = rig.member.order.seq if rig.member.order else 0
        assert todo.settled and (known.order_done == order_seq or known.state == "error")
        if known.state in ("running", "paused", "created", "exited"):
            assert known.state == rig.runtime.state(WORKLOAD)
        if known.state == "running":
            box = rig.runtime.boxes[WORKLOAD]
            assert rig.runtime.newest(WORKLOAD).netns == box.netns
            assert rig.wanted is not None
            wires = {wire: ns for wire, ns in rig.network.wired.items() if wire[0] == WORKLOAD}
            assert wires == {(WORKLOAD, one.uuid): box.netns for one in rig.wanted.ports}

    _in(body)


@EXAMPLES
@given(STORY, st.sampled_from(POLICIES), st.booleans(), st.booleans(), st.sampled_from([Goal.RUNNING, Goal.PAUSED]))
def test_whatever_happened_a_rebuild_brings_a_container_to_its_goal(
    story: list[tuple[str, Any]], policy: RestartPolicy, heals: bool, forgets: bool, goal: Goal
) -> None:
    async def body(data: Path) -> None:
        rig = await _world(data, policy, heals, forgets)
        for event in story:
            await _happen(rig, event)
        rig.change_member(
            goal=goal,
            incarnation=rig.member.incarnation + 1,
            spec=replace(rig.member.spec, image="busybox", memory=256),
            order=None,
        )
        await rig.settle()
        held = rig.runtime.newest(WORKLOAD)
        assert held.state == goal.value == rig.known().state
        assert [key for key in rig.runtime.held if key[0] == WORKLOAD] == [(WORKLOAD, rig.member.incarnation)]
        assert held.memory == 256 * 2**20
        assert rig.known() == Known(
            incarnation=rig.member.incarnation,
            state=goal.value,
            started_at=held.started_at,
            order_done=rig.known().order_done,
        )

    _in(body)


@EXAMPLES
@given(STORY, st.sampled_from(POLICIES), st.booleans(), st.booleans(), st.booleans())
def test_whatever_happened_a_delete_leaves_nothing_but_the_volumes(
    story: list[tuple[str, Any]], policy: RestartPolicy, heals: bool, forgets: bool, assigned: bool
) -> None:
    async def body(data: Path) -> None:
        rig = await _world(data, policy, heals, forgets)
        for event in story:
            await _happen(rig, event)
        rig.change(deleting=True)
        if not assigned:
            rig.wanted = None
        todo = await rig.settle()
        _safe(rig)
        assert todo.gone
        assert WORKLOAD not in rig.runtime.boxes and not rig.runtime.state(WORKLOAD)
        assert not [wire for wire in rig.network.wired if wire[0] == WORKLOAD]
        assert not rig.files.there(WORKLOAD)
        assert rig.volumes.in_use == ({"stranger"} if assigned else {"stranger", "v"})

    _in(body)
