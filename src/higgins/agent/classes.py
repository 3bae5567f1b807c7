"""Runtime classes: names that an operator gives, each with what the engine of this host calls it.

What is configured is not believed: each class is tried once at the start by running a container with it, and only those
that work are offered to the scheduler. Without configuration the engine's own runtimes are the classes, by their own
names.
"""

import asyncio
import logging
from collections.abc import Mapping

from higgins.model.errors import EngineError, EngineUnavailable, HigginsError
from higgins.runtimes.base import Runtime

LOG = logging.getLogger(__name__)

#: Seconds within which a container of a class has to start. Some that cannot work here hang instead of failing.
PATIENCE = 90.0


async def working(runtime: Runtime, configured: Mapping[str, str]) -> dict[str, str]:
    """The classes of this host, with the engine's name of each.

    Raises ``EngineUnavailable`` where the engine goes away meanwhile: nothing is known of its classes then.
    """
    if not configured:
        return {name: name for name in (await runtime.info()).classes}
    tried = await asyncio.gather(*(_reason(runtime, engines) for engines in configured.values()))
    reasons = dict(zip(configured, tried, strict=True))
    for name, reason in reasons.items():
        if reason is not None:
            LOG.warning("Runtime class %s (%s) is not offered: %s", name, configured[name], reason)
    return {name: engines for name, engines in configured.items() if reasons[name] is None}


async def _reason(runtime: Runtime, name: str) -> str | None:
    """Why it does not work, None where it does."""
    try:
        async with asyncio.timeout(PATIENCE):
            await runtime.probe(name)
    except EngineUnavailable:
        raise
    except HigginsError as error:
        return str(error)
    except TimeoutError:
        return "a container did not start and go away in time."
    return None


def engine_name(classes: Mapping[str, str], name: str | None) -> str | None:
    """What the engine calls a class; None is the engine's default.

    Raises ``EngineError``: the scheduler asks no host for a class that it has not, but a host may lose one.
    """
    if name is None:
        return None
    if name not in classes:
        raise EngineError(f"The host has no runtime class {name} that works.")
    return classes[name]
