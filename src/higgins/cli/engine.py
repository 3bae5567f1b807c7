"""Which container engine this host uses, and why."""

import asyncio
import logging
import socket
from pathlib import Path
from urllib.parse import urlsplit

from oslo_config import cfg

from higgins.model.errors import EngineError
from higgins.runtimes.base import EngineInfo, Runtime
from higgins.runtimes.cri import open_cri
from higgins.runtimes.docker import open_docker

LOG = logging.getLogger(__name__)


#: Seconds in which an engine introduces itself, even on a busy host.
PATIENCE = 10.0


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


def choose(wanted: str, docker: bool, cri: bool) -> tuple[str, str]:
    """The engine to use and the reason; pure. ``docker`` and ``cri`` say which of them answers. Raises NoEngine."""
    if wanted != "auto":
        if not {"docker": docker, "cri": cri}[wanted]:
            raise NoEngine(f"The {wanted} engine that was asked for does not answer. Is it running?")
        return wanted, "it was asked for"
    if cri:
        return "cri", "containerd answers" + (", and so does Docker; containerd starts faster" if docker else "")
    if docker:
        return "docker", "Docker answers, and no containerd that is set up for CRI does"
    raise NoEngine("Neither containerd nor Docker answers. Start one of them, or say where it listens.")


async def open_engine(conf: cfg.ConfigOpts) -> tuple[Runtime, str]:
    """The host's engine, and a sentence that says which one it is and why. Raises NoEngine."""
    cri = answers(conf.cri_endpoint) and (conf.runtime == "cri" or await _speaks_cri(conf))
    try:
        name, reason = choose(conf.runtime, answers(conf.docker_url), cri)
    except NoEngine as error:
        raise NoEngine(f"{error} (Docker: {conf.docker_url}, containerd: {conf.cri_endpoint})") from None
    if name == "cri":
        return _cri(conf), f"Containers run on containerd at {conf.cri_endpoint}: {reason}."
    return open_docker(conf.docker_url), f"Containers run on Docker at {conf.docker_url}: {reason}."


async def introduce(runtime: Runtime, where: str) -> EngineInfo:
    """What the engine says of itself. Raises NoEngine where it does not, or not in time; ``where`` it listens."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await runtime.info()
    except TimeoutError:
        raise NoEngine(f"What listens at {where} does not answer as a container engine. Does it hang?") from None
    except EngineError as error:
        raise NoEngine(f"What listens at {where} does not answer as a container engine: {error}") from error


def _cri(conf: cfg.ConfigOpts) -> Runtime:
    return open_cri(conf.cri_endpoint, logs=Path(conf.data).resolve() / "logs")


async def _speaks_cri(conf: cfg.ConfigOpts) -> bool:
    """Docker brings a containerd whose CRI service is switched off, or that has no network set up: not one for us."""
    runtime = _cri(conf)
    try:
        await introduce(runtime, conf.cri_endpoint)
    except NoEngine as error:
        LOG.info("containerd answers but is not used: %s", error)
        return False
    else:
        return True
    finally:
        await runtime.close()
