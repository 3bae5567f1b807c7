"""What this machine is: the host's report."""

import ipaddress
import os
import platform
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg
from yarl import URL

from higgins import __version__
from higgins.cli.cores import cores
from higgins.control.link import HostReport
from higgins.model.errors import EngineError
from higgins.model.resources import HostInfo
from higgins.runtimes.base import EngineInfo


def memory_total() -> int:
    """MiB of memory."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    raise RuntimeError("/proc/meminfo has no MemTotal")


def system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def host_name(conf: cfg.ConfigOpts) -> str:
    return str(conf.host or socket.gethostname())


def reached_from(url: URL) -> str:
    """The address of this machine that the control plane at ``url`` sees. Raises OSError. Nothing is sent."""
    family, _, _, _, address = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def tunnel_address(conf: cfg.ConfigOpts, url: URL | None = None) -> str:
    """Where tunnels of other hosts reach this one, as set or else as the control plane at ``url`` sees it.

    Empty where networks do not span hosts, or this one takes no part. Raises EngineError.
    """
    if not conf.network.overlay:
        return ""
    address = conf.network.tunnel_address or (reached_from(url) if url is not None else "")
    if not address:
        return ""
    try:
        return str(ipaddress.IPv4Address(address))
    except ValueError as error:
        raise EngineError(f"[network] tunnel_address: tunnels take an IPv4 address, and {address} is none.") from error


def report(
    conf: cfg.ConfigOpts, engine: EngineInfo, classes: Iterable[str], connector: Mapping[str, Any], tunnel_address: str
) -> HostReport:
    """The machine, its engine and its runtime classes, as the scheduler and the hosts API want to know them.

    ``connector`` is what Cinder has to know of it; other hosts' tunnels reach it at ``tunnel_address``, if at all.

    Raises NoSuchCores.
    """
    own, shared = cores(conf.dedicated_cpus)
    return HostReport(
        name=host_name(conf),
        zone=conf.zone,
        cpus=float(os.cpu_count() or 1),
        memory=max(memory_total() - conf.reserved_memory, 0),
        disk=shutil.disk_usage(conf.data).total // 2**30,
        info=HostInfo(
            architecture=platform.machine(),
            os_type=platform.system().lower(),
            os=system_name(),
            kernel_version=platform.release(),
            runtimes=tuple(sorted(classes)),
            disk_quota=engine.disk_quota,
            engine=engine.engine,
            engine_version=engine.version,
            cpu_pinning=bool(own),
            cores=own,
            shared_cores=shared,
            version=__version__,
            tunnel_address=tunnel_address,
            connector=dict(connector),
        ),
    )
