"""``higgins up``: the whole cloud in one process. API, scheduler and agent, SQLite, one engine."""

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from aiohttp import web
from oslo_config import cfg

from higgins.agent import classes
from higgins.agent.agent import Agent
from higgins.agent.streams import LocalStreams
from higgins.api.app import make_app
from higgins.api.auth import HttpBasic
from higgins.cli import credentials, machine
from higgins.cli.engine import NoEngine, open_engine
from higgins.cli.options import database_url, settings_of
from higgins.control import housekeeping
from higgins.control.cloud import Cloud
from higgins.control.hosts import LocalLink
from higgins.model.errors import EngineError
from higgins.networks.cni import open_cni
from higgins.store.database import open_store
from higgins.store.migrate import migrate
from higgins.volumes.local import open_local

LOG = logging.getLogger(__name__)


def run(conf: cfg.ConfigOpts) -> int:
    """Serve until told to end; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        asyncio.run(_up(conf))
    except (NoEngine, EngineError, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    return 0


async def _up(conf: cfg.ConfigOpts) -> None:
    data = Path(conf.data).resolve()
    data.mkdir(parents=True, exist_ok=True)
    users = credentials.first_user(data)
    async with contextlib.AsyncExitStack() as stack:
        store = open_store(database_url(conf))
        stack.push_async_callback(store.close)
        await asyncio.to_thread(migrate, store.engine)
        cloud = Cloud(store, credentials.secret_key(data), settings_of(conf))
        runtime, sentence = await open_engine(conf)
        stack.push_async_callback(runtime.close)
        LOG.info(sentence)
        offered = await classes.working(runtime, conf.runtimes.classes)
        network = open_cni(data / "network", plugins=Path(conf.network.cni_plugins), table=conf.network.table)
        agent = Agent(
            LocalLink(cloud),
            runtime,
            network,
            open_local(data),
            data=data,
            report=machine.report(conf, await runtime.info(), offered),
            classes=offered,
        )
        cloud.connect(machine.host_name(conf), LocalStreams(runtime))
        app = make_app(
            cloud,
            auth=HttpBasic(users),
            policy_file=Path(conf.policy.file) if conf.policy.file else None,
            allowed_origins=tuple(conf.allowed_origins),
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        host, _, port = conf.listen.rpartition(":")
        site = web.TCPSite(runner, host.strip("[]"), int(port))
        await site.start()
        endpoint = f"http://{host}:{runner.addresses[0][1]}/v1"
        credentials.tell_endpoint(data, endpoint)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        work = asyncio.create_task(agent.run())
        keeping = asyncio.create_task(housekeeping.run(cloud))
        print(f"Higgins serves {endpoint}", flush=True)
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, work, keeping}, return_when=asyncio.FIRST_COMPLETED)
        services: list[asyncio.Task[None]] = [work, keeping]
        for task in services:
            if task.done():
                task.result()  # an agent or a housekeeper that ended by itself ends the process, with its reason
        LOG.info("Ending; containers run on.")
        await agent.stop()
        keeping.cancel()
        ended.cancel()
        await asyncio.gather(work, keeping, ended, return_exceptions=True)
