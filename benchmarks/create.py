"""From the request to Running on each engine, with and without sandboxes made ahead, beside ``docker run -d``.

Both sides ask for the same: an image that is there, half a core, 64 MiB. What is asked for matters, since an engine
makes a container's process ready inside the container's own limit: with a tenth of a core most of a start is waiting.
"""

import asyncio
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct, field
from tests.system.cloud import HigginsUp

from benchmarks.cloud import BridgedEngine, running_cloud, running_containerd, running_engine
from benchmarks.table import Table, milliseconds, p50, p95
from benchmarks.wire import Connection, Target

PROGRAM = ["sleep", "1000"]
CPUS, MEMORY = 0.5, 64
#: Containers asked for at once.
BURST = 50
#: Steps that take a container away.
REMOVING = ("RemoveContainer", "RemoveSandbox", "StopContainer", "Unplug")
#: Seconds within which anything here has to happen.
PATIENCE = 120
_STEP = re.compile(r'^higgins_step_seconds_(sum|count)\{[^}]*step="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
_STAGES = re.compile(r"^higgins_stage_seconds_sum\S* (\S+)$", re.MULTILINE)
_SPARES = re.compile(r"^higgins_spare_sandboxes\S* (\S+)$", re.MULTILINE)


class Way(Struct, frozen=True):
    """An engine and the number of sandboxes made ahead; what is wanted: the ratio, and milliseconds of our own."""

    engine: str
    spares: int
    target: str
    own: str

    @property
    def name(self) -> str:
        return f"Higgins on {self.engine}" + (", sandboxes made ahead" if self.spares else "")


WAYS = (
    Way("Docker", 0, "2.0", "30"),
    Way("Docker", 2, "1.05", "15"),
    Way("containerd", 0, "0.75", "30"),
    Way("containerd", 2, "0.35", "15"),
)


class Sample(Struct, frozen=True):
    """One create, in seconds: until its 202, until Running, and how long any step of the agent was under way."""

    answered: float
    running: float
    stages: float

    @property
    def own(self) -> float:
        """What is left when engine, wiring and files have had their time."""
        return self.running - self.stages


class Taken(Struct):
    """What was measured of one way. ``base``: of ``docker run``; ``steps``: the mean of each."""

    ours: list[Sample] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)


class Figures(Struct, frozen=True):
    """What the agent's metrics say: (seconds, count) of each step so far, seconds of all stages, spare sandboxes."""

    steps: dict[str, tuple[float, float]]
    stages: float
    spares: int


def measure(count: int) -> list[Table]:
    """``count`` containers each way; each takes turns with ``docker run``, so that a busy moment hits both."""
    taken: dict[Way, Taken] = {}
    bursts: list[tuple[str, ...]] = []
    with running_engine() as docker, running_containerd() as containerd:
        for way in WAYS:
            options = containerd if way.engine == "containerd" else docker.options
            with running_cloud(options, spares=way.spares) as cloud:
                taken[way] = asyncio.run(_one_way(way, cloud, docker, count))
                if not way.spares:
                    bursts.append((way.name, *asyncio.run(_burst(cloud, docker))))
    return [_ratios(count, taken), _shares(taken), _steps(taken), _bursts(bursts)]


def _ratios(count: int, taken: Mapping[Way, Taken]) -> Table:
    rows = []
    for way, one in taken.items():
        ours = [sample.running for sample in one.ours]
        figures = (milliseconds(part(side)) for side in (ours, one.base) for part in (p50, p95))
        rows.append((way.name, *figures, f"{p50(ours) / p50(one.base):.2f}", way.target))
    head = ("create to Running", "p50", "p95", "`docker run -d`, p50", "p95", "ratio of p50", "at most")
    return Table(f"Create, {count} each way, image local", head, rows)


def _shares(taken: Mapping[Way, Taken]) -> Table:
    rows = []
    for way, one in taken.items():
        answered = [sample.answered for sample in one.ours]
        after = [sample.own - sample.answered for sample in one.ours]
        own = [sample.own for sample in one.ours]
        parts = (answered, after, own, [sample.stages for sample in one.ours])
        rows.append((way.name, *(milliseconds(p50(part)) for part in parts), milliseconds(p95(own)), f"{way.own} ms"))
    head = ("p50", "until the 202", "after it, own", "own in all", "steps", "own in all, p95", "own, at most")
    return Table("Higgins' own share", head, rows)


def _steps(taken: Mapping[Way, Taken]) -> Table:
    """Steps of removals are measured by the way; they are not what this is about."""
    rows = [
        (way.name, step, milliseconds(mean))
        for way, one in taken.items()
        for step, mean in sorted(one.steps.items(), key=lambda item: -item[1])
        if step not in REMOVING
    ]
    return Table("Where the time goes", ("way", "step of the agent", "mean"), rows)


def _bursts(rows: Sequence[tuple[str, ...]]) -> Table:
    head = (
        "all Running",
        "Higgins",
        "`docker run -d` in parallel",
        "ratio",
        "at most",
        "processor time, Higgins and engine",
        "Higgins alone",
        "`docker run -d`",
    )
    return Table(f"{BURST} at once, and what each costs in processor time (of the whole machine)", head, rows)


async def _one_way(way: Way, cloud: HigginsUp, docker: BridgedEngine, count: int) -> Taken:
    taken = Taken()
    target = Target(cloud, "1.41")
    connection = await target.connect()
    await remove(target, connection, [await _create(target, connection, "warm")])
    before = await figures(target, connection)
    for number in range(count):
        taken.ours.append(await _sample(target, connection, f"bench-{number}", spares=way.spares))
        taken.base.append(await asyncio.to_thread(docker_run, docker))
    taken.steps = means((await figures(target, connection)).steps, before.steps)
    connection.close()
    return taken


async def _sample(target: Target, connection: Connection, name: str, *, spares: int) -> Sample:
    """Make a container once the pool is full, see it Running, remove it."""
    await full(target, connection, spares)
    sample, uuid = await sampled(target, connection, body(name))
    await remove(target, connection, [uuid])
    return sample


async def full(target: Target, connection: Connection, spares: int) -> None:
    """Until so many sandboxes are made ahead."""
    async with asyncio.timeout(PATIENCE):
        while (await figures(target, connection)).spares < spares:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.1)


async def sampled(target: Target, connection: Connection, asked: Mapping[str, object]) -> tuple[Sample, str]:
    """Make a container and see it Running; its uuid."""
    before = await figures(target, connection)
    request = target.request("POST", "/v1/containers?run=true", asked)
    start = time.perf_counter()
    uuid = str((await _answer(connection, request))["uuid"])
    answered = time.perf_counter() - start
    await _running(target, connection, uuid)
    running = time.perf_counter() - start
    return Sample(answered, running, (await figures(target, connection)).stages - before.stages), uuid


def body(name: str) -> dict[str, object]:
    return {"name": name, "image": "busybox", "command": PROGRAM, "cpu": CPUS, "memory": str(MEMORY)}


async def _create(target: Target, connection: Connection, name: str) -> str:
    create = target.request("POST", "/v1/containers?run=true", body(name))
    uuid = str((await _answer(connection, create))["uuid"])
    await _running(target, connection, uuid)
    return uuid


async def _answer(connection: Connection, request: bytes) -> dict[str, object]:
    """What is answered. Raises RuntimeError for a refusal."""
    answer = await connection.send(request)
    if answer.status >= 400:
        raise RuntimeError(f"{answer.status}: {answer.body!r}")
    return dict(answer.json())


async def _running(target: Target, connection: Connection, uuid: str) -> None:
    """Wait for it as a client does that does not want to ask again and again."""
    path = f"/v1/containers/{uuid}?wait=Running&timeout={PATIENCE}"
    shown = await _answer(connection, target.request("GET", path))
    if shown["status"] != "Running":
        raise RuntimeError(f"{shown['status']}: {shown['status_reason']}")


async def remove(target: Target, connection: Connection, uuids: Sequence[str], how: str = "force") -> None:
    """``how``: force, or stop, which every user may."""
    for uuid in uuids:
        await connection.send(target.request("DELETE", f"/v1/containers/{uuid}?{how}=true"))
    async with asyncio.timeout(PATIENCE):
        for uuid in uuids:
            while (await connection.send(target.request("GET", f"/v1/containers/{uuid}"))).status != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _burst(cloud: HigginsUp, docker: BridgedEngine) -> tuple[str, ...]:
    """All asked for at once; the seconds until the last one runs, on both sides, their ratio, and what bounds them."""
    target = Target(cloud, "1.41")
    connection = await target.connect()
    await connection.send(target.request("PUT", "/v1/quotas/demo", {"containers": 4 * BURST, "cpu": -1, "memory": -1}))
    start, before = time.perf_counter(), (_busy(), _used(cloud))
    creates = [target.request("POST", "/v1/containers?run=true", body(f"burst-{n}")) for n in range(BURST)]
    uuids = [str((await _answer(connection, create))["uuid"]) for create in creates]
    for uuid in uuids:
        await _running(target, connection, uuid)
    ours, busy, used = time.perf_counter() - start, _busy() - before[0], _used(cloud) - before[1]
    await remove(target, connection, uuids)
    connection.close()
    start, idle = time.perf_counter(), _busy()
    with ThreadPoolExecutor(BURST) as threads:
        containers = list(threads.map(_start, [docker] * BURST))
    base, theirs = time.perf_counter() - start, _busy() - idle
    docker.command("rm", "--force", *containers)
    each = (milliseconds(seconds / BURST) for seconds in (busy, used, theirs))
    return f"{ours:.1f} s", f"{base:.1f} s", f"{ours / base:.2f}", "0.6", *each


def _busy() -> float:
    """Seconds that this machine's processors have worked since its start (proc(5): all but idle, iowait, steal)."""
    user, nice, system, _, _, interrupts, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _used(cloud: HigginsUp) -> float:
    """The same of Higgins' own process and the programs that it ran."""
    assert cloud.process is not None
    after_name = Path(f"/proc/{cloud.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:15])) / os.sysconf("SC_CLK_TCK")


def _start(engine: BridgedEngine) -> str:
    limits = ("--cpus", str(CPUS), "--memory", f"{MEMORY}m")
    return engine.command("run", "--detach", "--network", "bridge", *limits, "busybox", *PROGRAM).strip()


def docker_run(engine: BridgedEngine) -> float:
    start = time.perf_counter()
    container = _start(engine)
    took = time.perf_counter() - start
    engine.command("rm", "--force", container)
    return took


async def figures(target: Target, connection: Connection) -> Figures:
    text = (await connection.send(target.request("GET", "/metrics"))).body.decode()
    found: dict[str, dict[str, float]] = {}
    for kind, step, value in _STEP.findall(text):
        found.setdefault(step, {"sum": 0.0, "count": 0.0})[kind] += float(value)
    return Figures(
        steps={step: (figures["sum"], figures["count"]) for step, figures in found.items()},
        stages=sum(map(float, _STAGES.findall(text))),
        spares=round(sum(map(float, _SPARES.findall(text)))),
    )


def means(after: Mapping[str, tuple[float, float]], before: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Mean seconds of each kind of step between the two."""
    found = {}
    for step, (seconds, count) in after.items():
        had_seconds, had_count = before.get(step, (0.0, 0.0))
        if count > had_count:
            found[step] = (seconds - had_seconds) / (count - had_count)
    return found
