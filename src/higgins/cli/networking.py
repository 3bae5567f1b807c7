"""Which networks containers are on, as ``[network] driver`` says: on the control plane, and on a host."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from oslo_config import cfg

from higgins.cli import machine
from higgins.cli.authentication import NoKeystone, missing
from higgins.control.background import background
from higgins.control.cloud import Cloud
from higgins.control.port_keeping import PortKeeping
from higgins.networks.base import Network
from higgins.networks.neutron import open_neutron


@contextlib.asynccontextmanager
async def keep_ports(conf: cfg.ConfigOpts, cloud: Cloud) -> AsyncIterator[None]:
    """Have Neutron make the ports of workloads, inside the block. Raises NoKeystone."""
    if conf.network.driver != "neutron":
        yield
        return
    if conf.auth != "keystone":
        raise NoKeystone("[network] driver = neutron needs [DEFAULT] auth = keystone")
    try:
        from higgins.openstack.neutron import Neutron  # only who has Neutron has its libraries
        from higgins.openstack.sessions import open_sessions
    except ModuleNotFoundError as error:
        raise missing(error) from error
    cloud.networking = Neutron(open_sessions(conf), owner=conf.neutron.device_owner)
    keeping = PortKeeping(cloud, cloud.networking, check_every=conf.neutron.check_every)
    async with background(keeping.keeper().run):
        yield


def open_network(conf: cfg.ConfigOpts, data: Path, tunnels: str = "") -> Network:
    """What wires the containers of this host; ``tunnels`` as ``machine.tunnel_address`` has it."""
    if conf.network.driver == "neutron":
        return open_neutron(
            bridge=conf.neutron.integration_bridge, database=conf.neutron.ovsdb, ready=conf.neutron.ready_timeout
        )
    return machine.local_network(conf, data, tunnels)
