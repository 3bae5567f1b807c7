"""What a host wires containers with and where its volumes are, as the configuration says.

Nothing here knows the database: hosts have no part in it.
"""

from pathlib import Path
from typing import Any

from msgspec import Struct
from oslo_config import cfg

from higgins.cli.machine import host_name
from higgins.networks.base import Network
from higgins.networks.local import open_local_network
from higgins.networks.neutron import open_neutron
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


def open_network(conf: cfg.ConfigOpts, data: Path, tunnels: str = "") -> Network:
    """What wires the containers of this host; ``tunnels`` as ``machine.tunnel_address`` has it."""
    if conf.network.driver == "neutron":
        return open_neutron(
            bridge=conf.neutron.integration_bridge, database=conf.neutron.ovsdb, ready=conf.neutron.ready_timeout
        )
    return open_local_network(
        data / "network", table=conf.network.table, tunnel_address=tunnels, tunnel_port=conf.network.tunnel_port
    )
