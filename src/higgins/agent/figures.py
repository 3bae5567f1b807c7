"""Figures of the agent, for Prometheus: what it holds, whom it hears, its comparisons, and how its steps go."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from higgins.listening import listen

#: What a container is, as the agent last told it; see ``Known``.
STATES = ("created", "running", "paused", "exited", "error", "gone")


class Figures:
    """``registry`` is what a scrape reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.passes = Counter("higgins_reconcile_passes", "Looks at one workload", registry=self.registry)
        self.compare_seconds = Histogram(
            "higgins_compare_seconds",
            "Seconds that a comparison of everything on the host took",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            "higgins_step_seconds", "Seconds that a step took", ["step"], registry=self.registry
        )
        self.stage_seconds = Histogram(
            "higgins_stage_seconds", "Seconds that steps side by side took together", registry=self.registry
        )
        self.spares = Gauge(
            "higgins_spare_sandboxes", "Sandboxes made ahead that nobody has taken", registry=self.registry
        )
        self.step_failures = Counter(
            "higgins_step_failures", "Steps that failed, by what failed", ["step", "error"], registry=self.registry
        )
        self._containers = Gauge(
            "higgins_host_containers", "Containers on the host by state", ["state"], registry=self.registry
        )
        self._silence = Gauge(
            "higgins_control_plane_silence_seconds",
            "Seconds since the last question was sent that the control plane answered, or since the start",
            registry=self.registry,
        )
        self._waiting = Gauge(
            "higgins_reports_waiting",
            "Workloads of which the control plane has not taken the newest report",
            registry=self.registry,
        )

    def follow(
        self, containers: Callable[[str], float], silence: Callable[[], float], waiting: Callable[[], float]
    ) -> None:
        """From now on each scrape asks these: how many containers are in a state, and the other two as they are."""
        for state in STATES:
            self._containers.labels(state).set_function(partial(containers, state))
        self._silence.set_function(silence)
        self._waiting.set_function(waiting)


async def serve_figures(stack: AsyncExitStack, figures: Figures, address: str) -> tuple[str, int]:
    """Tell them to whoever asks at ``address`` (host:port), until the stack is closed; where. Raises BadAddress."""

    async def tell(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(figures.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", tell)
    return await listen(stack, app, address)
