"""``higgins up``: the whole cloud in one process. API, scheduler and agent, SQLite, one engine."""

import asyncio
import contextlib
import logging
import sys
from pathlib import Path

from oslo_config import cfg

from higgins.agent import classes
from higgins.agent.agent import Agent
from higgins.agent.streams import LocalStreams
from higgins.cli import credentials, machine
from higgins.cli.api import open_cloud, serve_agents, serve_tenants
from higgins.cli.authentication import NoKeystone
from higgins.cli.engine import NoEngine, introduce, open_engine
from higgins.cli.host_drivers import open_network, open_volumes
from higgins.cli.processes import log_to_stderr, settled, told_to_end
from higgins.cli.services import keep_ports, keep_shares, keep_volumes
from higgins.control import housekeeping
from higgins.control.background import background
from higgins.control.cloud import WrongSecret
from higgins.control.hosts import LocalLink
from higgins.model.addresses import BadAddress
from higgins.model.errors import EngineError
from higgins.store.migrate import TooOld

LOG = logging.getLogger(__name__)

#: Seconds that the API waits at most for the host to join.
_JOINING = 5.0


def run(conf: cfg.ConfigOpts) -> int:
    """Serve until told to end; the exit code."""
    log_to_stderr()
    try:
        asyncio.run(_up(conf))
    except (NoEngine, NoKeystone, EngineError, WrongSecret, TooOld, BadAddress, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    return 0


async def _up(conf: cfg.ConfigOpts) -> None:
    data = Path(conf.data).resolve()
    data.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        cloud = await open_cloud(stack, conf)
        runtime, place, sentence = await open_engine(conf)
        stack.push_async_callback(runtime.close)
        engine = await introduce(runtime, place)
        LOG.info(sentence)
        offered = await classes.working(runtime, conf.runtimes.classes)
        tunnels = machine.tunnel_address(conf)
        network = open_network(conf, data, tunnels)
        held = open_volumes(conf, data)
        agent = Agent(
            LocalLink(cloud),
            runtime,
            network,
            held.volumes,
            data=data,
            report=machine.report(conf, engine, offered, held.connector, tunnels),
            classes=offered,
            spares=conf.spare_sandboxes,
            shelf=cloud.depot.shelf if cloud.depot is not None else None,
            image_cache=conf.image_cache * 2**30,
        )
        streams = LocalStreams(runtime)
        streams.deliveries = agent.deliveries
        cloud.connect(machine.host_name(conf), streams)
        if conf.agent_listen:
            await serve_agents(stack, conf, cloud)
        await stack.enter_async_context(keep_volumes(conf, cloud))
        await stack.enter_async_context(keep_ports(conf, cloud))
        await stack.enter_async_context(keep_shares(conf, cloud))
        work = asyncio.create_task(agent.run())
        # A create that comes first of all is to find the host. One that cannot join now does not hold up the API.
        joined = asyncio.create_task(agent.joined.wait())
        await asyncio.wait({joined, work}, timeout=_JOINING, return_when=asyncio.FIRST_COMPLETED)
        joined.cancel()
        endpoint = await serve_tenants(stack, conf, cloud, (agent.figures.registry,))
        credentials.tell_endpoint(data, endpoint)
        stop = told_to_end()
        # One that failed for once, say on a full disk, begins again: containers and the API are not ended for it.
        await stack.enter_async_context(background(lambda: housekeeping.run(cloud)))
        settled()
        print(f"Higgins serves {endpoint}", flush=True)
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, work}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()  # an agent that ended by itself ends the process, with its reason
        LOG.info("Ending; containers run on.")
        await agent.stop()
        ended.cancel()
        await asyncio.gather(work, ended, return_exceptions=True)
