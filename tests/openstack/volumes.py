"""Cinder as a test has it: volumes of tenants, and what becomes of them."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from tests.openstack.cloud import cinder


def wait_until(claim: Callable[[], bool], what: str) -> None:
    """Until it is so; back-off alone may take a minute after an outage. Raises TimeoutError with ``what``."""
    end = time.monotonic() + 180
    while not claim():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)


def name(kind: str = "volume") -> str:
    """One that no other test uses."""
    return f"{kind}-{uuid.uuid4()}"


def volume(**more: Any) -> str:
    """A new volume of demo's, of 1 GiB and available; its id."""
    project = more.pop("project", "demo")
    body = {"size": 1, "name": name()} | more
    made = cinder("POST", "volumes", project, {"volume": body})["volume"]["id"]
    wait_until(lambda: shown(made, project)["status"] == "available", "the volume is not made")
    return str(made)


def shown(ident: str, project: str = "demo") -> dict[str, Any]:
    found: dict[str, Any] = cinder("GET", f"volumes/{ident}", project)["volume"]
    return found


def becomes(ident: str, status: str) -> None:
    wait_until(lambda: shown(ident)["status"] == status, f"the volume is not {status}")
