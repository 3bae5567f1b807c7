"""What this machine is: the host's report."""

import os
import platform
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from higgins import __version__
from higgins.cli.cores import cores
from higgins.control.link import HostReport
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


def report(
    conf: cfg.ConfigOpts, engine: EngineInfo, classes: Iterable[str], connector: Mapping[str, Any]
) -> HostReport:
    """The machine, its engine and its runtime classes, as the scheduler and the hosts API want to know them.

    ``connector`` is what Cinder has to know of it.

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
            connector=dict(connector),
        ),
    )
