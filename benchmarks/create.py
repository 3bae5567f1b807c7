"""From the request to Running on each engine, with and without sandboxes made ahead, beside ``docker run -d``."""

import asyncio
import re
import time

from msgspec import Struct
from tests.system.cloud import HigginsUp

from benchmarks.cloud import BridgedEngine, running_cloud, running_containerd, running_engine
from benchmarks.table import Table, milliseconds, p50, p95
from benchmarks.wire import Connection, Target

PROGRAM = ["sleep", "1000"]
#: Containers asked for at once.
BURST = 50
_STEP = re.compile(r'^higgins_step_seconds_(sum|count)\{[^}]*step="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
#: What the agent does side by side; the slowest of each group is waited for.
_SIDE_BY_SIDE = (("PullImage", "MakeSandbox"), ("CreateContainer", "Plug"), ("StartContainer",))


class Way(Struct, frozen=True):
    """An engine and the number of sandboxes made ahead."""

    engine: str
    spares: int
    target: str

    @property
    def name(self) -> str:
        return f"Higgins on {self.engine}" + (", sandboxes made ahead" if self.spares else "")


WAYS = (
    Way("Docker", 0, "2.0"),
    Way("Docker", 2, "1.05"),
    Way("containerd", 0, "0.75"),
    Way("containerd", 2, "0.35"),
)


def measure(count: int) -> list[Table]:
    """``count`` containers each way; each takes turns with ``docker run``, so that a busy moment hits both."""
    rows, steps, bursts = [], [], []
    with running_engine() as docker, running_containerd() as containerd:
        for way in WAYS:
            options = containerd if way.engine == "containerd" else docker.options
            with running_cloud(options, spares=way.spares) as cloud:
                ours, base, means, burst = asyncio.run(_one_way(way, cloud, docker, count))
            engine = sum(max((means.get(step, 0.0) for step in group), default=0.0) for group in _SIDE_BY_SIDE)
            ratio, own = f"{p50(ours) / p50(base):.2f}", milliseconds(p50(ours) - engine)
            figures = milliseconds(p50(ours)), milliseconds(p95(ours)), milliseconds(p50(base))
            rows.append((way.name, *figures, ratio, way.target, own))
            steps += [(way.name, step, milliseconds(mean)) for step, mean in sorted(means.items(), key=_slowest)]
            bursts += burst
    columns = (
        "create to Running",
        "p50",
        "p95",
        "`docker run -d`, p50",
        "ratio",
        "target",
        "not in the engine's steps",
    )
    return [
        Table(f"Create, {count} each way, image local", columns, rows),
        Table("Where the time goes", ("way", "step of the agent", "mean"), steps),
        Table(f"{BURST} at once", ("all Running", "Higgins", "`docker run -d` in parallel", "ratio"), bursts),
    ]


async def _one_way(
    way: Way, cloud: HigginsUp, docker: BridgedEngine, count: int
) -> tuple[list[float], list[float], dict[str, float], list[tuple[str, str, str, str]]]:
    """Seconds of ours and of ``docker run``, the mean of each step, and the burst where the way has no pool."""
    target = Target(cloud)
    connection = await target.connect()
    await _through_api(target, connection, "warm")
    before = _steps(cloud)
    ours, base = [], []
    for number in range(count):
        if way.spares:
            await asyncio.sleep(1.5)  # until the pool is full again
        ours.append(await _through_api(target, connection, f"bench-{number}"))
        base.append(await asyncio.to_thread(_docker_run, docker, "bridge"))
    means = _means(_steps(cloud), before)
    burst = [] if way.spares else [await _burst(way, target, docker)]
    connection.close()
    return ours, base, means, burst


def _slowest(one: tuple[str, float]) -> float:
    return -one[1]


def _body(name: str) -> dict[str, object]:
    return {"name": name, "image": "busybox", "command": PROGRAM, "cpu": 0.1, "memory": "64"}


async def _through_api(target: Target, connection: Connection, name: str) -> float:
    """Make a container, see it Running, remove it; the seconds until it ran."""
    create = target.request("POST", "/v1/containers?run=true", _body(name))
    start = time.perf_counter()
    answer = await connection.send(create)
    if answer.status != 202:
        raise RuntimeError(f"{answer.status}: {answer.body!r}")
    uuid = answer.json()["uuid"]
    await _running(target, connection, uuid)
    took = time.perf_counter() - start
    await _remove(target, connection, uuid)
    return took


async def _running(target: Target, connection: Connection, uuid: str) -> None:
    show = target.request("GET", f"/v1/containers/{uuid}")
    while (status := (shown := (await connection.send(show)).json())["status"]) != "Running":
        if status == "Error":
            raise RuntimeError(str(shown["status_reason"]))
        await asyncio.sleep(0.002)


async def _remove(target: Target, connection: Connection, uuid: str) -> None:
    show = target.request("GET", f"/v1/containers/{uuid}")
    await connection.send(target.request("DELETE", f"/v1/containers/{uuid}?force=true"))
    while (await connection.send(show)).status != 404:  # noqa: ASYNC110 - polled over HTTP
        await asyncio.sleep(0.05)


async def _burst(way: Way, target: Target, docker: BridgedEngine) -> tuple[str, str, str, str]:
    """All asked for at once; the seconds until the last one runs."""
    limits = target.request("PUT", "/v1/quotas/demo", {"containers": 4 * BURST, "cpu": -1, "memory": -1})
    connection = await target.connect()
    await connection.send(limits)
    start = time.perf_counter()
    creates = [target.request("POST", "/v1/containers?run=true", _body(f"burst-{n}")) for n in range(BURST)]
    uuids = [(await connection.send(create)).json()["uuid"] for create in creates]
    for uuid in uuids:
        await _running(target, connection, uuid)
    ours = time.perf_counter() - start
    for uuid in uuids:
        await _remove(target, connection, uuid)
    connection.close()
    start = time.perf_counter()
    containers = await asyncio.gather(*(asyncio.to_thread(_start, docker, "bridge") for _ in range(BURST)))
    base = time.perf_counter() - start
    await asyncio.to_thread(docker.command, "rm", "--force", *containers)
    return way.name, f"{ours:.1f} s", f"{base:.1f} s", f"{ours / base:.2f}"


def _start(engine: BridgedEngine, network: str) -> str:
    return engine.command("run", "--detach", "--network", network, "--memory", "64m", "busybox", *PROGRAM).strip()


def _docker_run(engine: BridgedEngine, network: str) -> float:
    start = time.perf_counter()
    container = _start(engine, network)
    took = time.perf_counter() - start
    engine.command("rm", "--force", container)
    return took


def _steps(cloud: HigginsUp) -> dict[str, tuple[float, float]]:
    """Seconds and count of each kind of step so far, from the metrics."""
    found: dict[str, dict[str, float]] = {}
    for kind, step, value in _STEP.findall(cloud.metrics()):
        figures = found.setdefault(step, {"sum": 0.0, "count": 0.0})
        figures[kind] += float(value)
    return {step: (figures["sum"], figures["count"]) for step, figures in found.items()}


def _means(after: dict[str, tuple[float, float]], before: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Mean seconds of each kind of step between the two."""
    means = {}
    for step, (seconds, count) in after.items():
        had_seconds, had_count = before.get(step, (0.0, 0.0))
        if count > had_count:
            means[step] = (seconds - had_seconds) / (count - had_count)
    return means
