"""From the request to Running, beside ``docker run -d`` on the same engine in the same run."""

import asyncio
import re
import time

from tests.system.cloud import HigginsUp

from benchmarks.cloud import BridgedEngine, running_cloud, running_engine
from benchmarks.table import Table, milliseconds, p50, p95
from benchmarks.wire import Connection, Target

PROGRAM = ["sleep", "1000"]
_STEP = re.compile(r'^higgins_step_seconds_(sum|count)\{[^}]*step="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)


async def measure(count: int) -> list[Table]:
    """Make ``count`` containers each way, taking turns, so that a busy moment hits all of them."""
    with running_engine() as engine, running_cloud(engine) as cloud:
        target = Target(cloud)
        connection = await target.connect()
        await _through_api(target, connection, "warm")
        before = _steps(cloud)
        ours, bridge, none = [], [], []
        for number in range(count):
            ours.append(await _through_api(target, connection, f"bench-{number}"))
            bridge.append(await asyncio.to_thread(_docker_run, engine, "bridge"))
            none.append(await asyncio.to_thread(_docker_run, engine, "none"))
        steps = _difference(_steps(cloud), before)
        connection.close()
    base = p50(bridge)
    rows = [
        (what, milliseconds(p50(times)), milliseconds(p95(times)), f"{p50(times) / base:.2f}")
        for what, times in (
            ("`docker run -d`, its bridge", bridge),
            ("`docker run -d --network none`", none),
            ("create to Running through the API", ours),
        )
    ]
    made = Table(f"Create, {count} each, image local", ("what", "p50", "p95", "of `docker run -d`"), rows)
    return [made, Table("Where the time goes", ("step of the agent", "mean", "times"), steps)] if steps else [made]


async def _through_api(target: Target, connection: Connection, name: str) -> float:
    """Make a container, see it Running, remove it; the seconds until it ran."""
    body = {"name": name, "image": "busybox", "command": PROGRAM, "cpu": 0.1, "memory": "64"}
    create = target.request("POST", "/v1/containers?run=true", body)
    start = time.perf_counter()
    answer = await connection.send(create)
    if answer.status != 202:
        raise RuntimeError(f"{answer.status}: {answer.body!r}")
    uuid = answer.json()["uuid"]
    show = target.request("GET", f"/v1/containers/{uuid}")
    while (status := (shown := (await connection.send(show)).json())["status"]) != "Running":
        if status == "Error":
            raise RuntimeError(str(shown["status_reason"]))
        await asyncio.sleep(0.002)
    took = time.perf_counter() - start
    await connection.send(target.request("DELETE", f"/v1/containers/{uuid}?force=true"))
    while (await connection.send(show)).status != 404:  # noqa: ASYNC110 - polled over HTTP
        await asyncio.sleep(0.02)
    return took


def _docker_run(engine: BridgedEngine, network: str) -> float:
    start = time.perf_counter()
    container = engine.command("run", "--detach", "--network", network, "--memory", "64m", "busybox", *PROGRAM).strip()
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


def _difference(
    after: dict[str, tuple[float, float]], before: dict[str, tuple[float, float]]
) -> list[tuple[str, str, str]]:
    rows = []
    for step, (seconds, count) in after.items():
        had_seconds, had_count = before.get(step, (0.0, 0.0))
        if count > had_count:
            rows.append((seconds - had_seconds, count - had_count, step))
    rows.sort(reverse=True)
    return [(step, milliseconds(seconds / count), f"{count:.0f}") for seconds, count, step in rows]
