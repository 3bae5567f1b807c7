"""What was observed of one workload on this host at one moment, and the plan that follows from it."""

from datetime import datetime

from msgspec import Struct, field

from higgins.agent.steps import Step
from higgins.control.link import Known
from higgins.runtimes.base import Observed, Sandbox


class Seen(Struct, frozen=True, kw_only=True):
    """``ports`` are plugged, ``volumes`` (of its own) attached, those ``shared`` needed by other workloads here too."""

    sandbox: Sandbox | None = None
    containers: tuple[Observed, ...] = ()
    ports: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    files: bool = False

    @property
    def nothing(self) -> bool:
        """Nothing of the workload is left on the host."""
        return not (self.sandbox or self.containers or self.ports or self.volumes - self.shared or self.files)


class Plan(Struct, frozen=True, kw_only=True):
    """What to do now: stages one after the other, the steps of a stage side by side.

    ``known`` is what is known of each container before the steps are done. ``settled``: nothing is left to do for this
    generation. ``wake_at``: when to look again, whatever happens. ``probes``: containers to be asked for their health.
    """

    stages: tuple[tuple[Step, ...], ...] = ()
    known: dict[str, Known] = field(default_factory=dict)
    settled: bool = False
    gone: bool = False
    error: str = ""
    wake_at: datetime | None = None
    probes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return tuple(step for stage in self.stages for step in stage)
