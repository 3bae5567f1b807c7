"""A service between Higgins and a real one, which does to requests what a test says."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct

from tests.openstack.cloud import keystone


class Fault(Struct, kw_only=True):
    """What becomes of the next ``times`` requests of a method to a path that ends like ``path`` (uuids aside).

    ``status``: the answer, and the service hears nothing. ``delay`` in seconds. ``done``: the service does it and the
    caller hears nothing; ``then`` is called before the connection is closed.
    """

    method: str
    path: str
    times: int = 1
    status: int = 0
    delay: float = 0
    done: bool = False
    then: Callable[[], Any] | None = None


class Proxy:
    """Passes requests on to ``target``. ``seen`` are those that came: method and path."""

    def __init__(self, target: str) -> None:
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                proxy.serve(self, target)

            do_GET = do_POST = do_PUT = do_DELETE = do

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and fault.path in path:
                fault.times -= 1
                return fault
        return None

    @property
    def quiet(self) -> bool:
        """Whether all faults have happened."""
        return not any(fault.times for fault in self.faults)

    def serve(self, handler: BaseHTTPRequestHandler, target: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path = handler.path.partition("?")[0]
        self.seen.append((handler.command, path))
        fault = self._fault(handler.command, path) or Fault(method="", path="")
        time.sleep(fault.delay)
        if fault.status:
            self._answer(handler, fault.status, b'{"fault": {"message": "The test says no"}}', {})
            return
        status, data, headers = _forward(handler, target, body)
        if fault.then is not None:
            fault.then()
        if fault.done:
            handler.close_connection = True
            handler.connection.close()
            return
        self._answer(handler, status, data, headers)

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def _forward(handler: BaseHTTPRequestHandler, target: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: value for name, value in handler.headers.items() if name.lower() not in ("host", "connection")}
    request = urllib.request.Request(f"{target}{handler.path}", body or None, headers, method=handler.command)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        told = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
        return answer.status, answer.read(), told


@contextmanager
def internal_endpoint(kind: str, target: str, path: str) -> Iterator[Proxy]:
    """The catalogue leads services to the ``kind`` service by a proxy; others ask it themselves."""
    (service,) = keystone("GET", f"/services?type={kind}")["services"]
    (endpoint,) = keystone("GET", f"/endpoints?service_id={service['id']}&interface=internal")["endpoints"]
    proxy = Proxy(target)
    _point(endpoint["id"], f"{proxy.url}{path}")
    try:
        yield proxy
    finally:
        _point(endpoint["id"], f"{target}{path}")
        proxy.close()


def _point(endpoint: str, url: str) -> None:
    keystone("PATCH", f"/endpoints/{endpoint}", {"endpoint": {"url": url}})
