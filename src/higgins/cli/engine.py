"""Which container engine this host uses, and why."""

import asyncio
import logging
import socket
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from oslo_config import cfg

from higgins.model.errors import EngineError, EngineUnavailable
from higgins.runtimes.base import EngineInfo, Runtime

LOG = logging.getLogger(__name__)

#: The engines as ``--runtime`` has them, in the order in which they are taken, with their names in a sentence.
ENGINES = {"cri": "containerd", "docker": "Docker", "podman": "Podman"}


#: Seconds in which an engine introduces itself, even on a busy host.
PATIENCE = 10.0
ASK_AGAIN = 0.2


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


async def open_engine(conf: cfg.ConfigOpts) -> tuple[Runtime, str, str]:
    """The host's engine, where it listens, and a sentence that says which one it is and why. Raises NoEngine."""
    places = {"cri": conf.cri_endpoint, "docker": conf.docker_url, "podman": conf.podman_url}
    answering = {name for name, place in places.items() if answers(place)}
    if conf.runtime == "auto" and "cri" in answering and not await _speaks_cri(conf):
        answering.remove("cri")
    try:
        name, reason = choose(conf.runtime, answering)
    except NoEngine as error:
        looked = ", ".join(f"{ENGINES[name]}: {place}" for name, place in places.items())
        raise NoEngine(f"{error} ({looked})") from None
    runtime = _cri(conf) if name == "cri" else _docker(conf, places[name])
    return runtime, places[name], f"Containers run on {ENGINES[name]} at {places[name]}: {reason}."


async def introduce(runtime: Runtime, where: str) -> EngineInfo:
    """What the engine says of itself. Raises NoEngine where it does not, or not in time; ``where`` it listens."""
    last: EngineError | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await runtime.info()
                except EngineUnavailable as error:
                    last = error  # it listens: perhaps it has only just started
                    await asyncio.sleep(ASK_AGAIN)
    except TimeoutError:
        raise NoEngine(f"What listens at {where} does not answer as a container engine. Does it hang?") from last
    except EngineError as error:
        raise NoEngine(f"What listens at {where} does not answer as a container engine: {error}") from error


def _docker(conf: cfg.ConfigOpts, place: str) -> Runtime:
    from higgins.runtimes.docker import open_docker  # each engine's library takes a while to load

    return open_docker(place, readers=_readers(conf))


def _cri(conf: cfg.ConfigOpts) -> Runtime:
    from higgins.runtimes.cri import open_cri

    logs = Path(conf.data).resolve() / "logs"
    return open_cri(conf.cri_endpoint, logs=logs, user_ids=conf.runtimes.user_ids, readers=_readers(conf))


def _readers(conf: cfg.ConfigOpts) -> Path:
    return Path(conf.data).resolve() / "image-readers.json"


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
