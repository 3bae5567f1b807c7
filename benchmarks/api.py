"""Requests a second and how they spread, as projects grow: lists, one container, creates, and clients that wait."""

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.cloud import running_cloud, running_engine
from benchmarks.plane import PROJECT, ControlPlane, control_plane, database, name_of, uuid_of
from benchmarks.table import Table, p50
from benchmarks.wire import PATIENCE, Load, Target, each, repeated

SIZES = (10, 100, 1000, 10_000)
KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}
AT_ONCE = (1, 8)
#: Creates in one measurement: the addresses of the default network have to suffice for those of all sizes.
CREATES = 100
#: Clients that wait for events, and the changes that they wait for.
WAITING = 100
CHANGES = 10


def measure(seconds: float, kinds: Sequence[str] = tuple(KINDS), sizes: Sequence[int] = SIZES) -> Iterator[Table]:
    """A table of each kind of database as it is there, one of the clients that wait, and one of ``higgins up``."""
    waits = []
    for kind in kinds:
        with database(kind) as url, control_plane(url) as plane:
            yield _sizes(KINDS[kind], plane, seconds, sizes)
            waits.append((KINDS[kind], *_waiting(plane, seconds)))
    head = (
        f"{WAITING} clients wait for events", "change to all of them, p50", "longest", "show meanwhile, 8 at once",
        "show without them", "create accepted, 8 at once", "without them",
    )  # fmt: skip
    yield Table("Clients that wait", head, waits)
    yield Table("The whole in one process", ("`higgins up`, SQLite, Docker asleep", "1 at once", "8 at once"), _whole())


def _sizes(kind: str, plane: ControlPlane, seconds: float, sizes: Sequence[int]) -> Table:
    target = Target(plane)
    rows: dict[str, list[str]] = {}
    have = 0
    for size in sizes:
        plane.fill(have, size)
        have = size
        for what, request in requests(target, size).items():
            for at_once in AT_ONCE:
                load = repeated(target, request, at_once=at_once, seconds=seconds)
                rows.setdefault(f"{what}, {at_once} at once", []).append(measured(load))
        for at_once in AT_ONCE:
            load = creates(plane, target, at_once=at_once)
            rows.setdefault(f"create accepted, {at_once} at once", []).append(measured(load))
    head = (f"{kind}: requests a second (p50, p99 in ms)", *(f"of {size}" for size in sizes))
    return Table(f"API on {kind}", head, [(what, *cells) for what, cells in rows.items()])


def measured(load: Load) -> str:
    """The rate, and in milliseconds what half and all but one of a hundred requests took at most."""
    return f"{load.rate:.0f} ({load.p50 * 1000:.1f}, {load.p99 * 1000:.1f})"


def requests(target: Target, size: int) -> dict[str, bytes]:
    """What is asked where there are so many containers."""
    middle = size // 2
    lists = {
        "page of 100": "?limit=100",
        "page of 100 by name": "?limit=100&sort_key=name",
        "page of 100, Stopped only": "?limit=100&status=Stopped",
        "list (at most 1000)": "",
    }
    found = {what: target.request("GET", f"/v1/containers{query}") for what, query in lists.items()}
    found["show by uuid"] = target.request("GET", f"/v1/containers/{uuid_of(middle)}")
    found["show by name"] = target.request("GET", f"/v1/containers/{name_of(middle)}")
    return found


def creates(plane: ControlPlane, target: Target, *, at_once: int) -> Load:
    """Creates that are placed, wired and written down; they are taken away again."""
    few = [_create(target, number) for number in range(CREATES, CREATES + 2 * at_once)]
    with plane.undone():
        each(target, few, at_once=at_once)  # they pay for caches that all later ones find
        return each(target, [_create(target, number) for number in range(CREATES)], at_once=at_once)


def _create(target: Target, number: int) -> bytes:
    body = {"name": f"new-{number}", "image": "busybox", "command": ["sleep", "1000"], "cpu": 0.1, "memory": "8"}
    return target.request("POST", "/v1/containers", body)


def _waiting(plane: ControlPlane, seconds: float) -> tuple[str, ...]:
    """How long a change takes to all who wait, and what they cost the others."""
    target = Target(plane)
    show = target.request("GET", f"/v1/containers/{uuid_of(5)}")
    alone = repeated(target, show, at_once=8, seconds=seconds).rate
    accepted = creates(plane, target, at_once=8).rate
    with listeners(plane) as waiting, plane.undone():
        times = [waiting.change(target, _create(target, CREATES + number)) for number in range(CHANGES)]
        meanwhile = repeated(target, show, at_once=8, seconds=seconds).rate
        among = creates(plane, target, at_once=8).rate
    return (
        f"{p50(times) * 1000:.0f} ms", f"{max(times) * 1000:.0f} ms", f"{meanwhile:.0f}", f"{alone:.0f}",
        f"{among:.0f}", f"{accepted:.0f}",
    )  # fmt: skip


def _whole() -> list[tuple[str, ...]]:
    """Creates where the agent is in the same process, and looks at each, while its engine does not answer."""
    with running_engine() as engine, running_cloud(engine.options) as cloud:
        target = Target(cloud)
        lifted = dict.fromkeys(("containers", "cpu", "memory", "disk"), -1)
        each(target, [target.request("PUT", f"/v1/quotas/{PROJECT}", lifted), _create(target, 0)], at_once=1)
        dockerd = int(engine.pidfile.read_text())
        os.kill(dockerd, signal.SIGSTOP)
        try:
            loads = [
                each(
                    target, [_create(target, at_once * CREATES + number) for number in range(CREATES)], at_once=at_once
                )
                for at_once in AT_ONCE
            ]
            for row in cloud.get("/containers")["containers"]:
                each(target, [target.request("DELETE", f"/v1/containers/{row['uuid']}?force=true")], at_once=1)
        finally:
            os.kill(dockerd, signal.SIGCONT)
    return [("create accepted", *(measured(load) for load in loads))]


class Listeners:
    """Clients that follow the events of all projects."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets

    def change(self, target: Target, create: bytes) -> float:
        """Make a container; seconds until the last of them has heard of it."""
        start = time.perf_counter()
        each(target, [create], at_once=1)
        self._await(b"event: container.status")
        return time.perf_counter() - start

    def opened(self) -> None:
        """Wait until all of them follow."""
        self._await(b": events follow")

    def _await(self, words: bytes) -> None:
        heard = dict.fromkeys(self._sockets, b"")
        with selectors.DefaultSelector() as selector:
            for follower in self._sockets:
                selector.register(follower, selectors.EVENT_READ)
            while heard:
                ready = selector.select(PATIENCE)
                if not ready:
                    raise TimeoutError(f"{len(heard)} of {len(self._sockets)} have not heard {words!r}")
                for key, _ in ready:
                    one: Any = key.fileobj
                    heard[one] += one.recv(2**16)
                    # The last chunk is whole once its end is there.
                    if words in heard[one] and heard[one].endswith(b"\n\n\r\n"):
                        del heard[one]
                        selector.unregister(one)


@contextlib.contextmanager
def listeners(plane: ControlPlane) -> Iterator[Listeners]:
    """Clients that wait: of two projects, since one may not have so many streams open."""
    targets = [Target(plane, "latest"), Target(plane.another("other"), "latest")]
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        for number in range(WAITING):
            target = targets[number % len(targets)]
            sockets.append(stack.enter_context(socket.create_connection(target.address)))
            sockets[-1].sendall(target.request("GET", "/v1/events?all_projects=true"))
        waiting = Listeners(sockets)
        waiting.opened()
        yield waiting
