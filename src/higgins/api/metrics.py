"""Figures of the service, for Prometheus."""

import asyncio
import time

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud
from higgins.control.status import fleet_figures
from higgins.store.schema import container, workload

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_KEPT = 5.0  # seconds that the count of workloads is good for


class Metrics:
    """Requests by route, method and status with how long they took; workloads by kind and status; hosts and claims."""

    def __init__(self, cloud: Cloud, others: tuple[CollectorRegistry, ...] = ()) -> None:
        """``others`` are figures of what runs in the same process."""
        self._cloud = cloud
        self._others = others
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "higgins_api_requests", "Requests answered", ["route", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "higgins_api_request_seconds", "Seconds until a request was answered", ["route"], registry=self._registry
        )
        self._workloads = Gauge(
            "higgins_workloads", "Workloads by kind and status", ["kind", "status"], registry=self._registry
        )
        self._hosts = Gauge("higgins_hosts", "Hosts by state", ["state"], registry=self._registry)
        self._capacity = Gauge(
            "higgins_capacity", "What may be claimed on hosts that are up and take workloads", ["resource"],
            registry=self._registry,
        )  # fmt: skip
        self._claimed = Gauge(
            "higgins_claimed", "What is claimed on these hosts", ["resource"], registry=self._registry
        )
        self._moving = Gauge("higgins_moving", "Workloads on their way to another host", registry=self._registry)
        #: To look them up by their labels takes longer than to count.
        self._figures: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._counted = -_KEPT
        self._counting = asyncio.Lock()

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        known = method if method in _METHODS else "other"
        figures = self._figures.get((route, known, status))
        if figures is None:
            found = self._requests.labels(route, known, status), self._seconds.labels(route)
            figures = self._figures[route, known, status] = found
        figures[0].inc()
        figures[1].observe(seconds)

    async def text(self) -> bytes:
        async with self._counting:
            if time.monotonic() - self._counted >= _KEPT:
                rows = await self._cloud.store.read(_by_status)
                self._workloads.clear()
                for kind, status, number in rows:
                    self._workloads.labels(kind, status).set(number)
                found = await fleet_figures(self._cloud)
                for state, number in found.states.items():
                    self._hosts.labels(state).set(number)
                for resource in found.capacity:
                    self._capacity.labels(resource).set(found.capacity[resource])
                    self._claimed.labels(resource).set(found.claimed[resource])
                self._moving.set(found.moving)
                self._counted = time.monotonic()
        return b"".join(generate_latest(registry) for registry in (self._registry, *self._others))


def _by_status(conn: Connection) -> list[tuple[str, str, int]]:
    """Containers (a capsule's members are none here) and capsules, by status."""
    found = []
    for kind, table, mine in (
        ("container", container, container.c.role == "plain"),
        ("capsule", workload, workload.c.kind == "capsule"),
    ):
        query = sa.select(table.c.status, sa.func.count()).where(mine).group_by(table.c.status)
        found += [(kind, status, number) for status, number in conn.execute(query)]
    return found
