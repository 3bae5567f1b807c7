"""Serve one OpenStack service with gunicorn: ``serve_wsgi.py NAME PORT MODULE [arguments of the service…]``.

The services read ``sys.argv`` with oslo.config as they are imported, so only their own arguments may be in it.
"""

# mypy: disable-error-code="import-untyped,import-not-found,misc"

import importlib
import sys
from typing import Any

from gunicorn.app.base import BaseApplication


class Service(BaseApplication):
    """One worker with eight threads, on loopback."""

    def __init__(self, name: str, port: str, module: str) -> None:
        self._module = module
        self._settings = {
            "bind": f"127.0.0.1:{port}",
            "workers": 1,
            "threads": 8,
            "worker_class": "gthread",
            "timeout": 300,
            "keepalive": 75,
            "graceful_timeout": 2,
            "proc_name": name,
            "limit_request_field_size": 65535,
            "limit_request_line": 0,
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return importlib.import_module(self._module).application


if __name__ == "__main__":
    name, port, module, *arguments = sys.argv[1:]
    sys.argv = [name, *arguments]
    Service(name, port, module).run()
