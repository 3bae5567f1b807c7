"""``higgins api``: the control plane alone. Any number of them may share a database; hosts join over the network."""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web
from oslo_config import cfg
from prometheus_client import CollectorRegistry

from higgins.api.app import make_app
from higgins.api.call import ApiSettings
from higgins.cli import credentials
from higgins.cli.authentication import NoKeystone, keep_images, keep_limits, open_auth
from higgins.cli.options import database_url, settings_of
from higgins.cli.processes import log_to_stderr, settled, told_to_end
from higgins.cli.services import keep_ports, keep_shares, keep_volumes
from higgins.control import housekeeping
from higgins.control.background import background
from higgins.control.cloud import Cloud, WrongSecret
from higgins.model.addresses import BadAddress
from higgins.store.database import open_store
from higgins.store.migrate import TooOld, migrate

LOG = logging.getLogger(__name__)

#: Where agents are served if nothing else is said.
_AGENT_LISTEN = "127.0.0.1:9518"


def run(conf: cfg.ConfigOpts) -> int:
    """Serve until told to end; the exit code."""
    log_to_stderr()
    try:
        asyncio.run(_api(conf))
    except (NoKeystone, WrongSecret, TooOld, BadAddress, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    return 0


async def _api(conf: cfg.ConfigOpts) -> None:
    data = Path(conf.data).resolve()
    data.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        cloud = await open_cloud(stack, conf)
        await serve_agents(stack, conf, cloud)
        await stack.enter_async_context(keep_volumes(conf, cloud))
        await stack.enter_async_context(keep_ports(conf, cloud))
        await stack.enter_async_context(keep_shares(conf, cloud))
        endpoint = await serve_tenants(stack, conf, cloud)
        credentials.tell_endpoint(data, endpoint)
        await stack.enter_async_context(background(lambda: housekeeping.run(cloud)))
        ended = told_to_end()
        settled()
        print(f"Higgins serves {endpoint}", flush=True)
        await ended.wait()
        LOG.info("Ending; containers run on.")


async def open_cloud(stack: AsyncExitStack, conf: cfg.ConfigOpts) -> Cloud:
    """The control plane on its database, whose tables are brought to this version."""
    store = open_store(database_url(conf))
    stack.push_async_callback(store.close)
    await asyncio.to_thread(migrate, store.engine)
    cloud = Cloud(store, credentials.secret_key(Path(conf.data).resolve()), settings_of(conf))
    await cloud.keep_time()
    stack.enter_context(keep_limits(conf, cloud))
    await stack.enter_async_context(keep_images(conf, cloud, Path(conf.data).resolve()))
    return cloud


async def serve_tenants(
    stack: AsyncExitStack,
    conf: cfg.ConfigOpts,
    cloud: Cloud,
    figures: tuple[CollectorRegistry, ...] = (),
) -> str:
    """The API, until the stack is closed; its endpoint. ``figures`` are what else of this process /metrics tells."""
    app = make_app(
        cloud,
        auth=stack.enter_context(open_auth(conf, Path(conf.data).resolve())),
        policy_file=Path(conf.policy.file) if conf.policy.file else None,
        allowed_origins=tuple(conf.allowed_origins),
        figures=figures,
        settings=ApiSettings(public_url=conf.public_url or None, open_metrics=conf.open_metrics),
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, _, port = conf.listen.rpartition(":")
    site = web.TCPSite(runner, host.strip("[]"), int(port))
    await site.start()
    return f"http://{host}:{runner.addresses[0][1]}/v1"


async def serve_agents(stack: AsyncExitStack, conf: cfg.ConfigOpts, cloud: Cloud) -> None:
    """The listener for hosts that join, and the way to them, until the stack is closed. Raises WrongSecret."""
    # Who has one machine needs none of this.
    from higgins.api.agents.listener import open_listener
    from higgins.control.authority import open_authorities
    from higgins.control.remote import RemoteHosts

    remote = RemoteHosts(cloud, await open_authorities(cloud))
    stack.push_async_callback(remote.close)
    cloud.dial = remote.dial
    await stack.enter_async_context(background(remote.run))
    host, port = await open_listener(stack, cloud, remote, conf.agent_listen or _AGENT_LISTEN)
    LOG.info("Agents are served at https://%s:%d.", f"[{host}]" if ":" in host else host, port)
