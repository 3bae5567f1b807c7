"""What the configuration asks of the cloud's other services: ports of Neutron, volumes of Cinder, hosts
shared through Placement.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from oslo_config import cfg

from higgins.cli.authentication import NoKeystone
from higgins.control.background import background
from higgins.control.cloud import Cloud
from higgins.control.port_keeping import PortKeeping
from higgins.control.port_pools import PortPools


@asynccontextmanager
async def keep_ports(conf: cfg.ConfigOpts, cloud: Cloud) -> AsyncIterator[None]:
    """Have Neutron make the ports of workloads, inside the block. Raises NoKeystone."""
    if conf.network.driver != "neutron":
        yield
        return
    if conf.auth != "keystone":
        raise NoKeystone("[network] driver = neutron needs [DEFAULT] auth = keystone")
    with _libraries():
        from higgins.openstack.neutron import Neutron
        from higgins.openstack.sessions import open_sessions
    cloud.networking = Neutron(open_sessions(conf), owner=conf.neutron.device_owner)
    check_every = conf.neutron.check_every
    keeping, pools = (
        PortKeeping(cloud, cloud.networking, check_every=check_every),
        PortPools(cloud, check_every=check_every),
    )
    async with AsyncExitStack() as stack:
        # Without ports made ahead too: those of a time when there were some go.
        for keeper in (keeping.keeper(), keeping.keeper(ahead=True), pools.keeper()):
            await stack.enter_async_context(background(keeper.run))
        yield


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
