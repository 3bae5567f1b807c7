"""A proxy in front of a real service that lets a test have it fail: refuse, hang, or answer and have that be lost."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct

from tests.openstack.cloud import keystone

#: What becomes of a request: None lets it pass.
Fault = Callable[["Request"], "Answer | None"]


class Request(Struct, frozen=True):
    method: str
    path: str
    body: bytes


class Answer(Struct, frozen=True):
    """``status`` 0: the connection is closed without an answer. ``passed``: the service did its part all the same;
    ``then`` is called after that.
    """

    status: int
    body: bytes = b""
    passed: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    then: Callable[[], Any] | None = None


class Next(Struct, kw_only=True):
    """A fault of the next ``times`` requests of a method whose path has ``path`` in it.

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

    def __call__(self, request: Request) -> Answer | None:
        met = self.times and request.method == self.method and self.path in request.path.partition("?")[0]
        if not met:
            return None
        self.times -= 1
        time.sleep(self.delay)
        if self.status:
            return Answer(self.status, b'{"fault": {"message": "The test says no"}}')
        return Answer(0, passed=True, then=self.then) if self.done else None


def neutron_error(status: int, kind: str, message: str) -> Answer:
    body = json.dumps({"NeutronError": {"type": kind, "message": message, "detail": ""}}).encode()
    return Answer(status, body, headers=(("Content-Type", "application/json"),))


class Between:
    """The proxy. ``seen`` are the requests that changed something, in their order."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[Request] = []
        self._faults: list[Fault] = []
        self._slow = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[list[Request]]:
        """Inside the block requests meet the fault; those that did."""
        met: list[Request] = []

        def noting(request: Request) -> Answer | None:
            answer = fault(request)
            if answer is not None:
                met.append(request)
            return answer

        self._faults.append(noting)
        try:
            yield met
        finally:
            self._faults.remove(noting)

    @contextlib.contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Inside the block each answer takes so long."""
        self._slow = seconds
        try:
            yield
        finally:
            self._slow = 0.0

    def answer(self, request: Request, headers: dict[str, str]) -> Answer:
        time.sleep(self._slow)
        if request.method != "GET":
            self.seen.append(request)
        for fault in list(self._faults):
            found = fault(request)
            if found is not None:
                if found.passed:
                    self._pass(request, headers)
                if found.then is not None:
                    found.then()
                return found
        return self._pass(request, headers)

    def _pass(self, request: Request, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(request.method, request.path, request.body or None, headers)
            answer = connection.getresponse()
            kept = tuple((name, value) for name, value in answer.getheaders() if name.lower() in _KEPT)
            return Answer(answer.status, answer.read(), headers=kept)
        except OSError:
            return Answer(0)
        finally:
            connection.close()

    def _handler(between) -> Any:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = Request(self.command, self.path, self.rfile.read(length) if length else b"")
                passed = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
                answer = between.answer(request, passed)
                if answer.status == 0:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = do_DELETE = handle_one

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the services keep their own logs."""

        return Handler


_KEPT = frozenset({"content-type", "retry-after", "x-openstack-request-id"})
_OWN = frozenset({"host", "connection", "content-length", "accept-encoding"})


@contextlib.contextmanager
def internal_endpoint(kind: str, port: int, path: str) -> Iterator[Between]:
    """The catalogue leads services to the ``kind`` service at ``port`` by a proxy; others ask it themselves."""
    (service,) = keystone("GET", f"/services?type={kind}")["services"]
    (endpoint,) = keystone("GET", f"/endpoints?service_id={service['id']}&interface=internal&region_id=RegionOne")[
        "endpoints"
    ]
    between = Between(port)
    _point(endpoint["id"], f"{between.url}{path}")
    try:
        yield between
    finally:
        _point(endpoint["id"], f"http://127.0.0.1:{port}{path}")
        between.close()


def _point(endpoint: str, url: str) -> None:
    keystone("PATCH", f"/endpoints/{endpoint}", {"endpoint": {"url": url}})
