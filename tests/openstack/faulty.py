"""The way to a real service, on which a test may put obstacles: statuses, delays, answers that break off."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web
from msgspec import Struct

_HOPS = frozenset({"transfer-encoding", "connection", "keep-alive", "host", "content-length"})


class Fault(Struct, frozen=True, kw_only=True):
    """What happens to requests whose path ends in ``path``, of this method (and with this token, if one is named).

    ``status`` is answered instead of the service's answer; or that breaks off after ``cut`` bytes; or it comes only
    when the fault is over (``hang``).
    """

    path: str
    method: str = "GET"
    status: int = 0
    cut: int = -1
    hang: bool = False
    token: str = ""

    def meets(self, request: web.Request) -> bool:
        return (
            request.path.endswith(self.path)
            and request.method == self.method
            and self.token in ("", request.headers.get("X-Auth-Token"))
        )


class Way:
    """A server on a port of its own, in a thread of its own, before the service at ``target``."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._faults: list[tuple[Fault, threading.Event]] = []
        #: What was asked: method and path.
        self.asked: list[tuple[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self.url = ""
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def obstacle(self, fault: Fault) -> Iterator[None]:
        """Inside the block requests meet the fault."""
        entry = (fault, threading.Event())
        self._faults.append(entry)
        try:
            yield
        finally:
            self._faults.remove(entry)
            entry[1].set()

    def count(self, end: str, method: str = "GET") -> int:
        """How many requests there were whose path has this end."""
        return sum(one == method and path.endswith(end) for one, path in list(self.asked))

    async def _serve(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False) as session:
            self._session = session
            app = web.Application(client_max_size=2**40)
            app.router.add_route("*", "/{path:.*}", self._pass)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._ready.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        met = [one for one in self._faults if one[0].meets(request)]
        fault, over = met[0] if met else (Fault(path=""), threading.Event())
        if fault.hang:
            while not over.is_set() and not self._ended.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # the end is told by another thread
        if fault.status:
            return web.Response(status=fault.status, text="an obstacle")
        kept = {name: value for name, value in request.headers.items() if name.lower() not in _HOPS}
        body = request.content if request.can_read_body else None
        async with self._session.request(
            request.method, f"{self._target}{request.path_qs}", headers=kept, data=body, allow_redirects=False
        ) as answer:
            told = {name: value for name, value in answer.headers.items() if name.lower() not in _HOPS}
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=told)
            await response.prepare(request)
            left = fault.cut
            async for piece in answer.content.iter_any():
                if fault.cut >= 0 and len(piece) > left:
                    await response.write(piece[:left])
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                left -= len(piece)
                await response.write(piece)
            return response
