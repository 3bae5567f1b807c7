"""Asks a container whether it is well: its owner's command, run inside it."""

import asyncio

from higgins.model.container import Healthcheck
from higgins.model.errors import EngineUnavailable, HigginsError
from higgins.runtimes.base import Runtime


async def probe(runtime: Runtime, uuid: str, check: Healthcheck) -> bool:
    """Whether the command ended with 0 within its timeout. Raises ``EngineUnavailable``: that says nothing of it."""
    try:
        async with asyncio.timeout(check.timeout):
            terminal = await runtime.exec(uuid, ("sh", "-c", check.test))
            try:
                while await terminal.read() is not None:
                    pass
                return await terminal.exit_code() == 0
            finally:
                await terminal.close()
    except TimeoutError:
        return False
    except EngineUnavailable:
        raise
    except HigginsError:
        return False  # no shell, or the container ended just now
