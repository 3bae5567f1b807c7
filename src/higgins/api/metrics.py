"""Figures of the service, for Prometheus."""

import asyncio
import time

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud
from higgins.store.schema import container, workload

_KEPT = 5.0  # seconds that the count of workloads is good for


class Metrics:
    """Requests by route, method and status with how long they took; workloads by kind and status."""

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
        self._counted = -_KEPT
        self._counting = asyncio.Lock()

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
        self._requests.labels(route, known, status).inc()
        self._seconds.labels(route).observe(seconds)

    async def text(self) -> bytes:
        async with self._counting:
            if time.monotonic() - self._counted >= _KEPT:
                rows = await self._cloud.store.read(_by_status)
                self._workloads.clear()
                for kind, status, number in rows:
                    self._workloads.labels(kind, status).set(number)
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
