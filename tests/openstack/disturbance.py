"""Faults of the cloud's services that come and go, each service at its own times, until they are told to stop."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.openstack.between import Answer, Between, Request
from tests.openstack.faulty import Fault, Way

#: Seconds that a fault lasts, and that there is none after it.
_LASTS, _QUIET = (0.5, 4.0), (0.5, 4.0)


def _refusing(status: int, *headers: tuple[str, str], passed: bool = False) -> Answer:
    kind = ("Content-Type", "application/json")
    return Answer(status, b'{"fault": {"message": "The test says no"}}', passed=passed, headers=(kind, *headers))


#: What Neutron or Cinder answers, by name. ``passed``: it did what was asked, and tells otherwise.
_ANSWERS = {
    "stopped": Answer(0),
    "lost": Answer(0, passed=True),
    "500": _refusing(500),
    "500 afterwards": _refusing(500, passed=True),
    "409": _refusing(409),
    "429": _refusing(429, ("Retry-After", "1")),
    "token expired": _refusing(401),
    "slow": None,
}
#: What becomes of a request to Glance.
_OBSTACLES: dict[str, dict[str, Any]] = {
    "slow": {"hang": True},
    "lost": {"cut": 0},
    "broken off": {"cut": 100},
    "500": {"status": 500},
    "409": {"status": 409},
    "429": {"status": 429},
    "token expired": {"status": 401},
}

#: A fault by its name, as long as the block lasts.
_Fault = Callable[[str, random.Random], contextlib.AbstractContextManager[object]]


class Disturbance:
    """``seed`` decides which faults there are and how long they last."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._over = threading.Event()
        #: Requests that met a fault, as "service: fault".
        self.met: list[str] = []

    @contextlib.contextmanager
    def disturbed(self, services: dict[str, Between], glance: Way) -> Iterator[None]:
        """Inside the block faults come and go; after it there is none."""
        work: dict[str, tuple[list[str], _Fault]] = {
            name: (sorted(_ANSWERS), self._of_proxy(name, proxy)) for name, proxy in services.items()
        }
        work["Glance"] = (sorted(_OBSTACLES), self._of_glance(glance))
        threads = [threading.Thread(target=self._disturb, args=(name, *one)) for name, one in work.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _disturb(self, service: str, faults: list[str], fault: _Fault) -> None:
        chance = random.Random(f"{self._seed} {service}")
        while not self._over.wait(chance.uniform(*_QUIET)):
            with fault(chance.choice(faults), chance):
                self._over.wait(chance.uniform(*_LASTS))

    def _of_proxy(self, service: str, proxy: Between) -> _Fault:
        """Every second request meets it."""

        def fault(name: str, chance: random.Random) -> contextlib.AbstractContextManager[object]:
            def meet(request: Request) -> Answer | None:
                if chance.random() < 0.5:
                    return None
                self.met.append(f"{service}: {name}")
                if name == "slow":
                    time.sleep(chance.uniform(0.5, 3))
                return _ANSWERS[name]

            return proxy.failing(meet)

        return fault

    def _of_glance(self, way: Way) -> _Fault:
        def fault(name: str, chance: random.Random) -> contextlib.AbstractContextManager[object]:
            stack = contextlib.ExitStack()
            for method in ("GET", "POST", "PUT", "DELETE"):
                stack.enter_context(way.obstacle(Fault(path="", method=method, **_OBSTACLES[name])))
            return stack

        return fault
