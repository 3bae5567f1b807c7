"""``higgins host drain`` and ``undrain``: have workloads leave a host. Works on the database, beside what serves."""

import asyncio
import sys

from oslo_config import cfg

from higgins.cli.status import opened
from higgins.control import evacuation
from higgins.control.evacuation import Round
from higgins.model.errors import HigginsError


def drain(conf: cfg.ConfigOpts, name: str) -> int:
    """Place nothing there any more and have move what may; tell what stays. The exit code."""

    async def work() -> Round:
        async with opened(conf) as cloud:
            return await evacuation.drain(cloud, name)

    try:
        done = asyncio.run(work())
    except (HigginsError, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    print(told(name, done))
    return 0


def undrain(conf: cfg.ConfigOpts, name: str) -> int:
    """The host takes workloads again; the exit code."""

    async def work() -> None:
        async with opened(conf) as cloud:
            await evacuation.undrain(cloud, name)

    try:
        asyncio.run(work())
    except (HigginsError, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    print(f"Host {name} takes workloads again.")
    return 0


def told(name: str, done: Round) -> str:
    """Pure: what a round did, in words."""
    lines = [f"Host {name} is drained: {len(done.moving)} workloads leave it, {len(done.staying)} stay."]
    lines += [f"  stays  {one.uuid}  {one.name}: {one.reason}" for one in done.staying]
    return "\n".join(lines)
