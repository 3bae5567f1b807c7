"""The listener for agents, from its start to its end."""

from contextlib import AsyncExitStack

from higgins.api.agents.app import make_agents_app
from higgins.api.agents.connections import Connections
from higgins.control.background import background
from higgins.control.cloud import Cloud
from higgins.control.remote import RemoteHosts
from higgins.listening import listen


async def open_listener(stack: AsyncExitStack, cloud: Cloud, remote: RemoteHosts, address: str) -> tuple[str, int]:
    """Serve agents at ``address`` (host:port; port 0 takes any) until the stack is closed; where it is served.

    Raises BadAddress, OSError where it cannot be had.
    """
    connections = Connections(cloud)
    app = make_agents_app(cloud, remote, connections)
    place = await listen(stack, app, address, context=remote.ends.server, handler_cancellation=True)
    await stack.enter_async_context(background(connections.run))
    return place
