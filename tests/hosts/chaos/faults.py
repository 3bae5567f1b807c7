"""Who is killed and cut off, when and for how long: drawn by a seed."""

import random
import time
from collections.abc import Callable

from msgspec import Struct

from tests.hosts.chaos.cloud import SPARE, ChaosCloud, Replica
from tests.hosts.processes import Machine, ip


class Target(Struct, frozen=True):
    """Something that can be broken and mended. What others need to be mended has a lower ``rank``."""

    name: str
    rank: int
    break_it: Callable[[], None]
    mend: Callable[[], None]


def targets(cloud: ChaosCloud) -> list[Target]:
    """Every process of the cloud, and the cable of every host."""
    found = [Target("the database", 0, cloud.database.kill, cloud.database.start)]
    found += [_replica(one) for one in cloud.replicas]
    for one in cloud.machines:
        found += [_engine(one), _cable(one), _agent(one)]
    return found


def _replica(one: Replica) -> Target:
    return Target(one.name, 3, one.kill, one.start)


def _engine(one: Machine) -> Target:
    return Target(f"the engine of {one.name}", 1, one.engine.kill, one.engine.start)


def _cable(one: Machine) -> Target:
    return Target(
        f"the cable of {one.name}",
        2,
        lambda: ip("link", "set", one.link, "down"),
        lambda: ip("link", "set", one.link, "up"),
    )


def _agent(one: Machine) -> Target:
    def kill() -> None:
        assert one.agent is not None
        one.agent.kill()

    def start() -> None:
        one.start(*SPARE)

    return Target(f"the agent of {one.name}", 4, kill, start)


class Killer:
    """Breaks one or two things at a time and mends them after a while. All is broken in turn, in random order."""

    def __init__(self, cloud: ChaosCloud, seed: int, tell: Callable[[str], None]) -> None:
        self._targets = targets(cloud)
        self._random = random.Random(f"faults {seed}")
        self._tell = tell
        self._bag: list[Target] = []
        self.broken: list[str] = []

    def run(self, seconds: float) -> None:
        """For so long, or a bit longer: in the end all is mended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._round()
            time.sleep(self._random.uniform(0.2, 1))

    def _round(self) -> None:
        victims = [self._draw() for _ in range(self._random.choice((1, 1, 2)))]
        self._tell(f"down: {', '.join(one.name for one in victims)}")
        for one in victims:
            one.break_it()
            self.broken.append(one.name)
        time.sleep(self._random.uniform(0.5, 3))
        for one in sorted(victims, key=lambda target: target.rank):
            one.mend()
        self._tell(f"up:   {', '.join(one.name for one in victims)}")

    def _draw(self) -> Target:
        if not self._bag:
            self._bag = list(self._targets)
            self._random.shuffle(self._bag)
        return self._bag.pop()
