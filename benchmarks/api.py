"""Requests a second: lists of a thousand, a hundred and one, one container, and creates that are accepted."""

import asyncio
import os
import signal

from benchmarks.cloud import BridgedEngine, running_cloud, running_engine
from benchmarks.table import Table
from benchmarks.wire import Connection, Target, burst, rate

#: Creates in one measurement: the addresses of the default network have to suffice for two of them.
CREATES = 100


async def measure(seconds: float, containers: int) -> Table:
    """All rates at concurrency 1 and 8."""
    rows: list[tuple[str, str, str]] = []
    with running_engine() as engine, running_cloud(engine.options) as cloud:
        target = Target(cloud)
        connection = await target.connect()
        first = await connection.send(_create(target, "first"))
        await _lift_quota(target, connection, first.json()["project_id"])
        rows.append(await _both(target, "show one container", target.request("GET", "/v1/containers/first"), seconds))
        lists = target.request("GET", "/v1/containers")
        rows.append(await _both(target, "list of 1", lists, seconds))
        rows.append(await _creates(target, engine))
        while len(await _list(target, connection)) > 1:  # noqa: ASYNC110 - until what that row made is gone
            await asyncio.sleep(0.1)
        await _disable(target, connection)
        await burst(target, [_create(target, f"filling-{n}") for n in range(1, containers)], at_once=8)
        hundred = target.request("GET", "/v1/containers?limit=100")
        rows.append(await _both(target, f"page of 100, of {containers}", hundred, seconds))
        rows.append(await _both(target, f"list of {containers}", lists, seconds))
        connection.close()
    return Table("API", ("requests a second", "1 at once", "8 at once"), rows)


async def _both(target: Target, what: str, request: bytes, seconds: float) -> tuple[str, str, str]:
    one = await rate(target, request, at_once=1, seconds=seconds)
    eight = await rate(target, request, at_once=8, seconds=seconds)
    return what, f"{one:.0f}", f"{eight:.0f}"


async def _creates(target: Target, engine: BridgedEngine) -> tuple[str, str, str]:
    """Creates that are placed, wired and written down, while the engine sleeps: its work is not what is measured."""
    dockerd = int(engine.pidfile.read_text())
    os.kill(dockerd, signal.SIGSTOP)
    try:
        one = await burst(target, [_create(target, f"one-{n}") for n in range(CREATES)], at_once=1)
        eight = await burst(target, [_create(target, f"eight-{n}") for n in range(CREATES)], at_once=8)
        connection = await target.connect()
        for uuid in [row["uuid"] for row in (await _list(target, connection)) if row["name"] != "first"]:
            await connection.send(target.request("DELETE", f"/v1/containers/{uuid}?force=true"))
        connection.close()
    finally:
        os.kill(dockerd, signal.SIGCONT)
    return "create accepted (202)", f"{one:.0f}", f"{eight:.0f}"


async def _list(target: Target, connection: Connection) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = (await connection.send(target.request("GET", "/v1/containers"))).json()["containers"]
    return listed


async def _lift_quota(target: Target, connection: Connection, project: str) -> None:
    limits = dict.fromkeys(("containers", "cpu", "memory", "disk"), -1)
    answer = await connection.send(target.request("PUT", f"/v1/quotas/{project}", limits))
    if answer.status >= 400:
        raise RuntimeError(f"{answer.status}: {answer.body!r}")


async def _disable(target: Target, connection: Connection) -> None:
    """Take no more work on the one host: what is made from here on is only written down."""
    [service] = (await connection.send(target.request("GET", "/v1/services"))).json()["services"]
    host, binary = service["host"], service["binary"]
    path = f"/v1/services/disable?host={host}&binary={binary}&disabled_reason=benchmark"
    answer = await connection.send(target.request("PUT", path))
    if answer.status >= 400:
        raise RuntimeError(f"{answer.status}: {answer.body!r}")


def _create(target: Target, name: str) -> bytes:
    body = {"name": name, "image": "busybox", "command": ["sleep", "1000"], "cpu": 0.1, "memory": "8"}
    return target.request("POST", "/v1/containers", body)
