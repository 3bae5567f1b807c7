"""What a service that is slow holds up, and what not."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from keystoneauth1 import exceptions as failures

from higgins.openstack.cinder import Cinder
from higgins.openstack.errors import ServiceUnavailable

PATIENCE = 30


class Slow:
    """Sessions with which nothing is answered until ``over``."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def trusting(self, service_type: str, trust: str) -> Any:
        return self

    def get_token(self) -> str:
        self.over.wait(PATIENCE)
        raise failures.ConnectFailure("It was too slow.")


async def test_volumes_that_cinder_is_slow_with_hold_up_nobody_who_calls() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    sessions = Slow()
    cinder = Cinder(sessions)  # type: ignore[arg-type]
    leaving = [asyncio.create_task(cinder.detach(f"trust-{n}", f"volume-{n}", use=f"use-{n}")) for n in range(2)]
    try:
        await asyncio.sleep(0)  # by then both have asked for a thread
        async with asyncio.timeout(PATIENCE / 2):
            assert await asyncio.to_thread(lambda: not sessions.over.is_set())
    finally:
        sessions.over.set()
    for found in await asyncio.gather(*leaving, return_exceptions=True):
        assert isinstance(found, ServiceUnavailable)
