"""``higgins agent``: run containers on this machine for a control plane that it joined."""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from oslo_config import cfg
from yarl import URL

from higgins.agent import certificates, classes, joining
from higgins.agent.agent import Agent
from higgins.agent.certificates import Certificates, Membership, NoMembership
from higgins.agent.figures import serve_figures
from higgins.agent.remote import RemoteLink
from higgins.agent.serve import open_server
from higgins.agent.streams import LocalStreams
from higgins.cli import machine
from higgins.cli.engine import NoEngine, introduce, open_engine
from higgins.cli.host_drivers import open_network, open_volumes
from higgins.cli.processes import log_to_stderr, settled, told_to_end
from higgins.control.background import background
from higgins.model.addresses import BadAddress, split_address
from higgins.model.errors import EngineError

LOG = logging.getLogger(__name__)


def join(conf: cfg.ConfigOpts) -> int:
    """Join and end; the exit code."""

    async def work() -> None:
        membership = await _join(conf, Path(conf.data).resolve())
        print(f"This machine is host {membership.name} ({membership.uuid}) now; 'higgins agent' runs it.")

    try:
        asyncio.run(work())
    except (joining.CannotJoin, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    return 0


def run(conf: cfg.ConfigOpts) -> int:
    """Keep this host until told to end; the exit code."""
    log_to_stderr()
    try:
        asyncio.run(_agent(conf))
    except (NoEngine, EngineError, NoMembership, joining.CannotJoin, BadAddress, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    return 0


async def _join(conf: cfg.ConfigOpts, data: Path) -> Membership:
    token = sys.stdin.readline() if conf.token == "-" else conf.token  # noqa: S105 - where it is, not what it is
    if not token.strip():
        raise joining.CannotJoin("Joining takes the token that 'higgins host token' printed: --token TOKEN.")
    return await joining.join(conf.join, token, name=machine.host_name(conf), zone=conf.zone, data=data)


async def _membership(conf: cfg.ConfigOpts, data: Path) -> Membership:
    """As stored; joined now where nothing is stored and a URL was given."""
    try:
        found = certificates.read(data)
    except NoMembership:
        if not conf.join:
            raise
        return await _join(conf, data)
    if conf.join and str(joining.control_url(conf.join)) != found.url:
        LOG.warning("This machine has joined %s already; --join is not looked at.", found.url)
    return found


def stream_address(conf: cfg.ConfigOpts, url: URL, served: tuple[str, int]) -> str:
    """What the control plane is told to reach the streams by: host:port."""
    if conf.stream_address:
        split_address(conf.stream_address)
        return str(conf.stream_address)
    host, port = served
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = machine.reached_from(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _agent(conf: cfg.ConfigOpts) -> None:
    data = Path(conf.data).resolve()
    data.mkdir(parents=True, exist_ok=True)
    membership = await _membership(conf, data)
    async with AsyncExitStack() as stack:
        mine = Certificates(data, membership)
        runtime, place, sentence = await open_engine(conf)
        stack.push_async_callback(runtime.close)
        engine = await introduce(runtime, place)
        LOG.info(sentence)
        offered = await classes.working(runtime, conf.runtimes.classes)
        streams = LocalStreams(runtime)
        served = await open_server(stack, streams, mine.ends, conf.stream_listen)
        address = stream_address(conf, URL(membership.url), served)
        link = RemoteLink(mine, address)
        stack.push_async_callback(link.close)
        tunnels = machine.tunnel_address(conf, URL(membership.url))
        held = open_volumes(conf, data)
        agent = Agent(
            link,
            runtime,
            open_network(conf, data, tunnels),
            held.volumes,
            data=data,
            report=machine.report(conf, engine, offered, held.connector, tunnels),
            classes=offered,
            spares=conf.spare_sandboxes,
            image_cache=conf.image_cache * 2**30,
            fences=True,
        )
        streams.deliveries = agent.deliveries
        if conf.metrics_listen:
            host, port = await serve_figures(stack, agent.figures, conf.metrics_listen)
            LOG.info("Figures are told at http://%s:%d/metrics.", f"[{host}]" if ":" in host else host, port)
        await stack.enter_async_context(background(lambda: mine.run(link.renew)))
        ended = asyncio.create_task(told_to_end().wait())
        work = asyncio.create_task(agent.run())
        settled()
        print(f"Higgins keeps host {membership.name} for {membership.url}; streams at {address}", flush=True)
        await asyncio.wait({ended, work}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()  # an agent that ended by itself ends the process, with its reason
        LOG.info("Ending; containers run on.")
        await agent.stop()
        ended.cancel()
        await asyncio.gather(work, ended, return_exceptions=True)
