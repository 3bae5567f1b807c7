"""The packet filters of the host and the ways to its neighbours: applied at once, seldom more often than needed."""

import asyncio
import logging
from collections.abc import Iterable

from higgins.control.link import Assignment
from higgins.model.errors import HigginsError
from higgins.networks.base import Neighbour, Network, PortFilter

LOG = logging.getLogger(__name__)

#: Seconds to wait for more changes before the filters are applied, and before a failure is tried again.
DEBOUNCE = 0.05
RETRY = 5.0


Wanted = tuple[tuple[PortFilter, ...], tuple[Neighbour, ...]]


class Filters:
    """What the filters of all workloads and the neighbours on other hosts are, and whether the host has them."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._wanted: Wanted = ((), ())
        self._applied: Wanted | None = None
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    def want(self, assignments: Iterable[Assignment], neighbours: tuple[Neighbour, ...] = ()) -> None:
        """From now on these are the filters of the host and its neighbours."""
        self._wanted = (tuple(one for assignment in assignments for one in assignment.filters), neighbours)
        if self._wanted != self._applied:
            self._changed.set()

    async def hold(self) -> None:
        """Return when what is wanted at the call is in force. Callers that wait together share one application."""
        wanted = self._wanted
        async with self._lock:
            if self._applied in (wanted, self._wanted):
                return
            now = self._wanted
            filters, neighbours = now
            await self._network.apply(list(filters), list(neighbours))
            self._applied = now

    async def run(self) -> None:
        """Apply what is wanted soon after it changed, for ever."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(DEBOUNCE)
            self._changed.clear()
            try:
                await self.hold()
            except HigginsError as error:
                LOG.warning("The packet filters could not be applied: %s", error)
                await asyncio.sleep(RETRY)
                self._changed.set()
