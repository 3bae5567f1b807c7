"""``higgins clean``: remove every trace of workloads from the engine, the network and the volumes of this host."""

import asyncio
import sys
from pathlib import Path

from oslo_config import cfg

from higgins.cli.engine import NoEngine, open_engine
from higgins.cli.host_drivers import open_network, open_volumes
from higgins.model.errors import EngineError
from higgins.runtimes.base import Runtime


def run(conf: cfg.ConfigOpts) -> int:
    try:
        asyncio.run(_clean(conf))
    except (NoEngine, EngineError, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    return 0


async def _clean(conf: cfg.ConfigOpts) -> None:
    runtime, _, _ = await open_engine(conf)
    try:
        await _containers(runtime)
    finally:
        await runtime.close()
    data = Path(conf.data).resolve()
    await open_network(conf, data).teardown()
    volumes = open_volumes(conf, data).volumes
    for uuid in sorted({*await volumes.attached(), *await volumes.held()}):
        await volumes.detach(uuid)


async def _containers(runtime: Runtime) -> None:
    held = await runtime.list()
    for container in held.containers:
        await runtime.remove(container.uuid)
    for sandbox in held.sandboxes:
        await runtime.remove_sandbox(sandbox.uuid)
    print(f"Removed {len(held.containers)} containers and {len(held.sandboxes)} sandboxes.")
