"""The connections that hosts have open here, so that those of a revoked host end at once."""

import asyncio
import logging

from higgins.control import joining
from higgins.control.cloud import Cloud

LOG = logging.getLogger(__name__)

#: Seconds between two looks at which certificates still count.
_RECHECK = 1.0


class Connections:
    """By connection, the serial number of the certificate that was shown on it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._serials: dict[asyncio.BaseTransport, str] = {}

    def seen(self, transport: asyncio.BaseTransport, serial: str) -> None:
        self._serials[transport] = serial

    async def run(self) -> None:
        """Until cancelled: end the connections whose certificate does not count any more."""
        while True:
            await asyncio.sleep(_RECHECK)
            self._serials = {one: serial for one, serial in self._serials.items() if not one.is_closing()}
            refused = await joining.refused_now(self._cloud, set(self._serials.values()))
            for transport, serial in self._serials.items():
                if serial in refused and isinstance(transport, asyncio.Transport):
                    LOG.warning("A connection ends: its certificate %s does not count any more.", serial)
                    transport.abort()
