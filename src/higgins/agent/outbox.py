"""What the agent saw, on its way to the control plane: collected, sent together, and sent again until heard."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from higgins.control.link import Observation
from higgins.model.errors import Invalid, TooLarge

LOG = logging.getLogger(__name__)

#: Seconds before an unheard batch is sent again, doubled up to the last.
FIRST_RETRY = 0.2
LAST_RETRY = 10.0


class Outbox:
    """The newest observation of each workload that was not heard yet."""

    def __init__(self, send: Callable[[list[Observation]], Awaitable[None]]) -> None:
        self._send = send
        self._waiting: dict[str, Observation] = {}
        self._sending: dict[str, Observation] = {}
        self._some = asyncio.Event()
        self._retry = FIRST_RETRY

    @property
    def waiting(self) -> int:
        """Of how many workloads, with those that are on their way."""
        return len(self._waiting.keys() | self._sending.keys())

    def put(self, observation: Observation) -> None:
        """Send it soon; an older one of the same workload that still waits is not sent any more."""
        self._waiting[observation.workload] = observation
        self._some.set()

    async def run(self) -> None:
        """Send what comes, for ever: the first at once, and together whatever comes while that is under way."""
        while True:
            await self._some.wait()
            if await self.flush():
                self._retry = FIRST_RETRY
            else:
                await asyncio.sleep(self._retry)
                self._retry = min(self._retry * 2, LAST_RETRY)

    async def flush(self) -> bool:
        """Send what waits now; whether it was heard."""
        batch, self._waiting = self._waiting, {}
        self._sending = batch
        self._some.clear()
        if not batch:
            return True
        try:
            await self._deliver(batch)
        except Exception as error:  # whatever fails on the other side must not lose what was seen here
            LOG.warning("The control plane did not take %d observations: %r", len(batch), error)
        finally:
            self._sending = {}
            if batch:
                self._waiting = batch | self._waiting
                self._some.set()
        return not batch

    async def _deliver(self, batch: dict[str, Observation]) -> None:
        """Send a batch, and take out of it what was heard. One that can never be taken does not hold up the others."""
        try:
            await self._send(list(batch.values()))
        except (Invalid, TooLarge):
            for workload, one in list(batch.items()):
                try:
                    await self._send([one])
                except (Invalid, TooLarge) as error:
                    LOG.error("An observation of workload %s is refused, and dropped: %s", workload, error)
                del batch[workload]
        else:
            batch.clear()
