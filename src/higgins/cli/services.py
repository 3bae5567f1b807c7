"""What the configuration asks of the cloud's other services: volumes of Cinder, hosts shared through Placement."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
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
    if conf.volume == "local" and not any((data / "cinder").glob("*.json")):  # what was attached before is let go of
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
    volumes = Drivers({"local": local, "cinder": open_cinder(data, brick)})
    return HostVolumes(volumes, brick.properties() if conf.volume == "cinder" else {})


@asynccontextmanager
async def keep_volumes(conf: cfg.ConfigOpts, cloud: Cloud) -> AsyncIterator[None]:
    """Have Cinder do its part for the volumes of containers, where [DEFAULT] volume says so. Raises NoKeystone."""
    if conf.volume == "local":
        yield
        return
    if conf.auth != "keystone":
        raise NoKeystone("volumes of Cinder need [DEFAULT] auth = keystone")
    with _libraries():
        from higgins.control.attaching import keeper
        from higgins.openstack.cinder import Cinder
        from higgins.openstack.sessions import open_sessions
    cloud.storage = Cinder(open_sessions(conf), volume_type=conf.cinder.volume_type)
    async with background(keeper(cloud, cloud.storage).run):
        yield


@asynccontextmanager
async def keep_shares(conf: cfg.ConfigOpts, cloud: Cloud) -> AsyncIterator[None]:
    """Tell Placement what is held of hosts, where [placement] says so. Raises NoKeystone."""
    if not conf.placement.enabled:
        yield
        return
    if conf.auth != "keystone":
        raise NoKeystone("[placement] enabled needs [DEFAULT] auth = keystone")
    with _libraries():
        from higgins.control.sharing import keeper
        from higgins.openstack.placement import Placement
        from higgins.openstack.sessions import open_sessions
    async with background(keeper(cloud, Placement(open_sessions(conf))).run):
        yield


@contextmanager
def _libraries() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as missing:
        raise NoKeystone(f"the Python package of {missing.name} is missing: install higgins[openstack]") from missing
