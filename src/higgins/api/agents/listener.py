"""The listener for agents, from its start to its end."""

from contextlib import AsyncExitStack

from aiohttp import web

from higgins.api.agents.app import make_agents_app
from higgins.api.agents.connections import Connections
from higgins.control.background import background
from higgins.control.cloud import Cloud
from higgins.control.remote import RemoteHosts
from higgins.model.addresses import split_address


async def open_listener(stack: AsyncExitStack, cloud: Cloud, remote: RemoteHosts, address: str) -> tuple[str, int]:
    """Serve agents at ``address`` (host:port; port 0 takes any) until the stack is closed; where it is served.

    Raises BadAddress, OSError where it cannot be had.
    """
    host, port = split_address(address)
    connections = Connections(cloud)
    runner = web.AppRunner(make_agents_app(cloud, remote, connections), access_log=None, handler_cancellation=True)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, port, ssl_context=remote.ends.server).start()
    await stack.enter_async_context(background(connections.run))
    found = runner.addresses[0]
    return str(found[0]), int(found[1])
