"""Where a process listens for HTTP."""

import ssl
from contextlib import AsyncExitStack

from aiohttp import web

from higgins.model.addresses import split_address


async def listen(
    stack: AsyncExitStack,
    app: web.Application,
    address: str,
    *,
    context: ssl.SSLContext | None = None,
    handler_cancellation: bool = False,
    shutdown_timeout: float = 60.0,
) -> tuple[str, int]:
    """Serve ``app`` at ``address`` (host:port; port 0 takes any) until the stack is closed; where it is served.

    With ``handler_cancellation`` a handler is cancelled when its caller leaves. When the stack is closed, open requests
    have ``shutdown_timeout`` seconds to end. Raises BadAddress, OSError where the address cannot be had.
    """
    host, port = split_address(address)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=handler_cancellation, shutdown_timeout=shutdown_timeout
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, port, ssl_context=context).start()
    found = runner.addresses[0]
    return str(found[0]), int(found[1])
