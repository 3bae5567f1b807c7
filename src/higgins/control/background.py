"""Work that goes on beside a process' main one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from higgins.model.errors import HigginsError

LOG = logging.getLogger(__name__)

#: Seconds before work that failed begins again.
_RETRY = 5.0


@asynccontextmanager
async def background(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """``work`` goes on inside the block, and ends with it. Should it fail, the log tells, and it begins again."""
    task = asyncio.create_task(_for_ever(work))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _for_ever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            await work()
        except HigginsError as error:
            LOG.warning("%s It is tried again in %.0f s.", error, _RETRY)
        except Exception:
            LOG.exception("A part of this process failed; it begins again in %.0f s", _RETRY)
        await asyncio.sleep(_RETRY)
