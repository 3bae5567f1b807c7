"""From the request to Running on a network of Neutron's, with ports made ahead and without, beside ``docker run -d``.

A proxy stands between Higgins and Neutron and takes the time of each request. Sandboxes are made ahead, as they are
unless an operator says otherwise: so what is left is mostly the port.
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, field
from tests.openstack import cloud as openstack
from tests.openstack.between import Answer, Between, Request
from tests.openstack.conftest import IDLE, HigginsInCloud, register
from tests.openstack.neutron import Network, Tenant

from benchmarks import create
from benchmarks.cloud import BridgedEngine, running_engine
from benchmarks.create import Sample
from benchmarks.table import Table, milliseconds, p50, p95
from benchmarks.wire import Connection, Target

#: Ports made ahead, where they are; sandboxes made ahead.
POOL, SPARES = 4, 2
_REGION = "Measured"
_NAMED = re.compile(r"/ports/[0-9a-f-]{36}$")


class Way(Struct, frozen=True):
    """How many ports are made ahead."""

    pool: int

    @property
    def name(self) -> str:
        return f"{self.pool} ports made ahead" if self.pool else "no ports made ahead"


class Asked(Struct, frozen=True):
    """A request to Neutron: what for, and when it began and ended, by ``time.perf_counter``."""

    what: str
    began: float
    ended: float


class Taken(Struct):
    """What was measured of one way. ``base``: of ``docker run``; ``steps``: the mean of each.

    ``asked``: the seconds of each request of one create, until it was Running, and how many there were.
    """

    ours: list[Sample] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)
    asked: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    counted: int = 0


class Timed(Between):
    """The proxy before Neutron."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        super().__init__(9696)

    def answer(self, request: Request, headers: dict[str, str]) -> Answer:
        began = time.perf_counter()
        answer = super().answer(request, headers)
        self.asked.append(Asked(_what(request), began, time.perf_counter()))
        return answer


def _what(request: Request) -> str:
    path = request.path.partition("?")[0].removeprefix("/v2.0")
    return f"{request.method} {'/ports/…' if _NAMED.search(path) else path}"


def measure(count: int) -> list[Table]:
    """``count`` containers each way; each takes turns with ``docker run``, so that a busy moment hits both."""
    tenant = Tenant("demo", "demo")
    network = tenant.network("10.77.0.0/24")
    taken: dict[Way, Taken] = {}
    load: list[float] = []
    between = Timed()
    try:
        with running_engine() as docker:
            for pool in (0, POOL):
                with _running(docker, between, pool) as higgins:
                    taken[Way(pool)] = asyncio.run(_one_way(pool, higgins, docker, network, between, count, load))
    finally:
        between.close()
    network.delete()
    return [_ratios(count, taken, load), _parts(taken), _steps(taken)]


@contextmanager
def _running(docker: BridgedEngine, between: Timed, pool: int) -> Iterator[HigginsInCloud]:
    """Higgins with networks of Neutron, in a region of its own, in which Neutron is behind the proxy."""
    openstack.region(_REGION, {"identity": openstack.AUTH_URL.removesuffix("/v3"), "network": between.url})
    with tempfile.TemporaryDirectory(prefix="bench-neutron") as directory:
        up = HigginsInCloud(Path(directory), docker.options, spares=SPARES)
        password = Path(directory) / "password"
        password.write_text(openstack.PASSWORD)
        user = ("--user", "higgins-measured", "--password-file", str(password))
        settings = register(up.url, "--region", _REGION, *user).stdout
        up.configuration.write_text(
            f"[DEFAULT]\nopen_metrics = true\n{settings}\n[network]\ndriver = neutron\n[neutron]\nport_pool = {pool}\n"
        )
        up.start()
        try:
            yield up
        finally:
            up.end()


async def _one_way(
    pool: int,
    higgins: HigginsInCloud,
    docker: BridgedEngine,
    network: Network,
    between: Timed,
    count: int,
    load: list[float],
) -> Taken:
    taken = Taken()
    target = Target(higgins, "1.41", token=openstack.token(openstack.password("demo", "demo")))
    connection = await target.connect()
    # One stays: where a project has none on a network, no ports are made ahead there.
    stays = await _create(target, connection, network, "stays")
    await _at_rest(higgins, network, pool)
    warm = await _create(target, connection, network, "warm")
    await create.remove(target, connection, [warm], "stop")
    before = await create.figures(target, connection)
    for number in range(count):
        await _at_rest(higgins, network, pool)
        await create.full(target, connection, SPARES)
        began = time.perf_counter()
        sample, uuid = await create.sampled(target, connection, _body(f"bench-{number}", network))
        taken.ours.append(sample)
        taken.counted += 1
        for one in list(between.asked):
            if began <= one.began < began + sample.running:
                taken.asked[one.what].append(one.ended - one.began)
        await create.remove(target, connection, [uuid], "stop")
        taken.base.append(await asyncio.to_thread(create.docker_run, docker))
        load.append(os.getloadavg()[0])
        print(
            f"{Way(pool).name}, {number + 1} of {count}: {milliseconds(sample.running)},"
            f" docker run {milliseconds(taken.base[-1])}",
            file=sys.stderr,
        )
    taken.steps = create.means((await create.figures(target, connection)).steps, before.steps)
    await create.remove(target, connection, [stays], "stop")
    connection.close()
    return taken


async def _at_rest(higgins: HigginsInCloud, network: Network, pool: int) -> None:
    """Until the ports of the one that stays and those made ahead are there, and no others."""
    async with asyncio.timeout(create.PATIENCE):
        while len(higgins.spare_ports()) != pool or len(await asyncio.to_thread(network.ports)) != 1 + pool:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def _create(target: Target, connection: Connection, network: Network, name: str) -> str:
    return (await create.sampled(target, connection, _body(name, network)))[1]


def _body(name: str, network: Network) -> dict[str, object]:
    return {**create.body(name), "command": list(IDLE), "nets": [{"network": network.id}]}


def _ratios(count: int, taken: Mapping[Way, Taken], load: list[float]) -> Table:
    rows = []
    for way, one in taken.items():
        ours = [sample.running for sample in one.ours]
        figures = (milliseconds(part(side)) for side in (ours, one.base) for part in (p50, p95))
        rows.append((way.name, *figures, f"{p50(ours) / p50(one.base):.2f}"))
    head = ("create to Running", "p50", "p95", "`docker run -d`, p50", "p95", "ratio of p50")
    busy = f"load of the machine {min(load):.0f} to {max(load):.0f}"
    return Table(f"Create on a network of Neutron's, {count} each way, {busy}", head, rows)


def _parts(taken: Mapping[Way, Taken]) -> Table:
    rows = []
    for way, one in taken.items():
        parts = (
            [sample.answered for sample in one.ours],
            [sample.own - sample.answered for sample in one.ours],
            [sample.stages for sample in one.ours],
        )
        rows.append((way.name, *(milliseconds(p50(part)) for part in parts)))
    head = ("p50", "until the 202", "after it, with no step under way", "steps of the agent")
    return Table("Where the time goes", head, rows)


def _steps(taken: Mapping[Way, Taken]) -> Table:
    """Steps of the agent, and requests to Neutron that were answered when the container ran."""
    rows = []
    for way, one in taken.items():
        steps = sorted(one.steps.items(), key=lambda item: -item[1])
        rows += [(way.name, step, "1", milliseconds(mean)) for step, mean in steps if step not in create.REMOVING]
        for what, seconds in sorted(one.asked.items(), key=lambda item: -sum(item[1])):
            mean = sum(seconds) / len(seconds)
            rows.append((way.name, f"Neutron: {what}", f"{len(seconds) / one.counted:.1f}", milliseconds(mean)))
    return Table("Steps and requests", ("way", "step, or request to Neutron", "for each create", "mean"), rows)
