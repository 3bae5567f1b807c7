"""A bridge network on this host, and an outside."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from higgins.networks.base import Network, PortFilter, PortWire, Rule
from higgins.networks.local import open_local_network
from tests.networks.namespaces import Host, Namespace


class Site:
    """The driver with what a control plane would know: sandboxes, ports and their filters."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.host = Host()
        self.filters: dict[str, PortFilter] = {}
        self.opened: list[Namespace] = []

    def sandbox(self) -> Namespace:
        self.opened.append(Namespace())
        return self.opened[-1]

    async def container(
        self,
        wire: PortWire,
        *,
        rules: tuple[Rule, ...] = (),
        project_open: bool = True,
        workload: str | None = None,
    ) -> Namespace:
        """A sandbox that is plugged and let through."""
        place = self.sandbox()
        await self.network.plug(place.path, workload or str(uuid4()), [wire])
        await self.let(wire, rules=rules, project_open=project_open)
        return place

    async def let(self, wire: PortWire, *, rules: tuple[Rule, ...] = (), project_open: bool = True) -> None:
        self.filters[wire.uuid] = PortFilter(
            uuid=wire.uuid,
            address=wire.address,
            mac=wire.mac,
            network=wire.network,
            project_id=wire.project_id,
            project_open=project_open,
            rules=rules,
        )
        await self.network.apply(list(self.filters.values()), [])


def wire(network: str, host: int, *, subnet: str = "10.88.1", project: str = "blue", name: str = "eth0") -> PortWire:
    """A port at the given last octet."""
    return PortWire(
        uuid=str(uuid4()),
        network=network,
        project_id=project,
        name=name,
        mac=f"02:00:0a:{subnet.rpartition('.')[2].zfill(2)[-2:]}:00:{host:02x}",
        address=f"{subnet}.{host}",
        cidr=f"{subnet}.0/24",
        gateway=f"{subnet}.1",
    )


@pytest.fixture
async def site(own_namespaces: None, tmp_path: Path) -> AsyncIterator[Site]:
    # Off for bridges that do not ask, as a host has it where nobody else needs it.
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("0")
    network = open_local_network(tmp_path / "network")
    await network.setup()
    site = Site(network)
    yield site
    for place in site.opened:
        place.close()
    await network.teardown()


@pytest.fixture
def outside(own_namespaces: None) -> Iterator[Namespace]:
    """Another machine, 198.51.100.2, that this host sees at 198.51.100.1; it has a route to the containers."""
    host, place = Host(), Namespace()
    host.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "eth0", "netns", str(place.pid))
    host.run("ip", "address", "add", "198.51.100.1/24", "dev", "out0")
    host.run("ip", "link", "set", "out0", "up")
    place.run("ip", "address", "add", "198.51.100.2/24", "dev", "eth0")
    place.run("ip", "link", "set", "eth0", "up")
    place.run("ip", "route", "add", "10.88.0.0/16", "via", "198.51.100.1")
    yield place
    host.run("ip", "link", "delete", "out0")
    place.close()


@pytest.fixture
def link_names() -> Callable[[], set[str]]:
    return lambda: {name for _, name in socket.if_nameindex()}
