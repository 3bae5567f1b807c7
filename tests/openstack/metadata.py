"""A stand-in for Nova's metadata API, behind the real agent of OVN: it tells who was said to have asked, and checks the
signature of that as Nova does."""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PORT, _SECRET = 8775, b"secret"


class _Metadata(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        instance, project = self.headers.get("X-Instance-ID", ""), self.headers.get("X-Tenant-ID", "")
        signed = hmac.new(_SECRET, instance.encode(), hashlib.sha256).hexdigest()
        good = hmac.compare_digest(signed, self.headers.get("X-Instance-ID-Signature", ""))
        body = f"{self.path} {instance} {project} {self.headers.get('X-Forwarded-For')}\n".encode()
        self.send_response(200 if good else 403)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what it says is what the tests look at."""


@contextmanager
def nova_metadata() -> Iterator[None]:
    """It serves inside the block, where the agent expects Nova's."""
    server = ThreadingHTTPServer(("127.0.0.1", _PORT), _Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
