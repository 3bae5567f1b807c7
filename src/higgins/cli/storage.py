"""Where volumes are: what the configuration says of it, for hosts and for the control plane."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from oslo_config import cfg

from higgins.cli.authentication import NoKeystone
from higgins.cli.machine import host_name
from higgins.control.background import background
from higgins.control.cloud import Cloud
from higgins.volumes.base import Volumes
from higgins.volumes.local import open_local


class HostVolumes(Struct, frozen=True):
    """A host's volume drivers, and what Cinder has to know of the host; that is empty where it has no part in it."""

    volumes: Volumes
    connector: dict[str, Any]


def open_volumes(conf: cfg.ConfigOpts, data: Path) -> HostVolumes:
    """As [DEFAULT] volume says. Raises EngineError where something is missing for it."""
    local = open_local(data)
    if conf.volume == "local":
        return HostVolumes(local, {})
    from higgins.volumes.brick import BrickSettings, open_brick  # only who has Cinder has os-brick
    from higgins.volumes.cinder import open_cinder
    from higgins.volumes.drivers import Drivers

    settings = BrickSettings(
        host=host_name(conf),
        address=conf.cinder.my_ip,
        locks=Path(conf.cinder.lock_path or data / "cinder" / "locks"),
        multipath=conf.cinder.multipath,
    )
    brick = open_brick(settings)
    return HostVolumes(Drivers({"local": local, "cinder": open_cinder(data, brick)}), brick.properties())


@asynccontextmanager
async def keep_volumes(conf: cfg.ConfigOpts, cloud: Cloud) -> AsyncIterator[None]:
    """Have Cinder do its part for the volumes of containers, where [DEFAULT] volume says so. Raises NoKeystone."""
    if conf.volume == "local":
        yield
        return
    if conf.auth != "keystone":
        raise NoKeystone("volumes of Cinder need [DEFAULT] auth = keystone")
    try:
        from higgins.control.attaching import keeper
        from higgins.openstack.cinder import Cinder
        from higgins.openstack.sessions import open_sessions
    except ModuleNotFoundError as missing:
        raise NoKeystone(f"the Python package of {missing.name} is missing: install higgins[openstack]") from missing
    cloud.storage = Cinder(open_sessions(conf), volume_type=conf.cinder.volume_type)
    async with background(keeper(cloud, cloud.storage).run):
        yield
