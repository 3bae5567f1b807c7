"""Which container engine this host uses, and why."""

import logging
import socket
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from oslo_config import cfg

from higgins.model.errors import EngineError
from higgins.runtimes.base import Runtime
from higgins.runtimes.cri import open_cri
from higgins.runtimes.docker import open_docker

LOG = logging.getLogger(__name__)

#: The engines as ``--runtime`` has them, in the order in which they are taken, with their names in a sentence.
ENGINES = {"cri": "containerd", "docker": "Docker", "podman": "Podman"}


class NoEngine(Exception):
    """No engine answers; the sentence is for the operator."""


def answers(url: str) -> bool:
    """Whether something listens at a ``unix://`` or ``tcp://`` URL."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            try:
                client.connect(parts.path)
            except OSError:
                return False
        return True
    try:
        socket.create_connection((parts.hostname or "", parts.port or 2375), timeout=2).close()
    except OSError:
        return False
    return True


def choose(wanted: str, answering: Collection[str]) -> tuple[str, str]:
    """The engine to use and the reason; pure. ``answering`` are those of ``ENGINES`` that do. Raises NoEngine."""
    if wanted != "auto":
        if wanted not in answering:
            raise NoEngine(f"The {ENGINES[wanted]} that was asked for does not answer. Is it running?")
        return wanted, "it was asked for"
    found = [name for name in ENGINES if name in answering]
    if not found:
        raise NoEngine("Neither containerd nor Docker nor Podman answers. Start one, or say where it listens.")
    first, *others = (ENGINES[name] for name in found)
    if not others:
        return found[0], f"{first} answers, and no other engine that is set up for Higgins does"
    return found[0], f"{first} answers, and is taken before {' and '.join(others)}, which would do too"


async def open_engine(conf: cfg.ConfigOpts) -> tuple[Runtime, str]:
    """The host's engine, and a sentence that says which one it is and why. Raises NoEngine."""
    places = {"cri": conf.cri_endpoint, "docker": conf.docker_url, "podman": conf.podman_url}
    answering = {name for name, place in places.items() if answers(place)}
    if conf.runtime == "auto" and "cri" in answering and not await _speaks_cri(conf):
        answering.remove("cri")
    name, reason = choose(conf.runtime, answering)
    runtime = _cri(conf) if name == "cri" else open_docker(places[name])
    return runtime, f"Containers run on {ENGINES[name]} at {places[name]}: {reason}."


def _cri(conf: cfg.ConfigOpts) -> Runtime:
    return open_cri(conf.cri_endpoint, logs=Path(conf.data).resolve() / "logs")


async def _speaks_cri(conf: cfg.ConfigOpts) -> bool:
    """Docker brings a containerd whose CRI service is switched off, or that has no network set up: not one for us."""
    runtime = _cri(conf)
    try:
        await runtime.info()
    except EngineError as error:
        LOG.info("containerd answers but is not used: %s", error)
        return False
    else:
        return True
    finally:
        await runtime.close()
