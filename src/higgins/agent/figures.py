"""Figures of the agent, for Prometheus: its comparisons, passes of its workers, and how its steps go."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


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
