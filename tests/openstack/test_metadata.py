"""Containers on Neutron's networks reach the metadata service by OVN's own agent, which says who they are."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.engines import need
from tests.openstack import cloud, needs
from tests.openstack.conftest import IDLE, Ports
from tests.openstack.metadata import nova_metadata
from tests.openstack.neutron import Inside, Network, Tenant, eventually
from tests.system.client import OpenStack

pytestmark = [needs("keystone", "neutron"), pytest.mark.timeout(600)]

Run = Callable[..., str]
_PATH = "/openstack/latest/meta_data.json"
_REQUEST = f"GET {_PATH} HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\nConnection: close\\r\\n\\r\\n"
#: Asks until it is told, says what, and sleeps.
READER = (
    "sh",
    "-c",
    f"until printf '{_REQUEST}' | nc -w 5 169.254.169.254 80 | grep {_PATH}; do sleep 1; done; {IDLE[-1]}",
)


@pytest.fixture
def agent(network: Network) -> Iterator[None]:
    """OVN's metadata agent; it makes a namespace for each network that has a port here, and takes it away again."""
    need("haproxy")
    with nova_metadata():
        cloud.service("start", "metadata")
        yield
        eventually(lambda: not _served(network), "a network that nobody is on has no metadata")
        cloud.service("stop", "metadata")


def _served(network: Network) -> bool:
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    return network.id in listed


def test_a_container_reads_who_it_is(
    tenant: Tenant, admin: Tenant, client: OpenStack, network: Network, agent: None, run: Run, ports: Ports
) -> None:
    names = [run(command=READER) for _ in range(2)]
    for name in names:
        (port,) = ports(name)
        assert f"169.254.169.254 via {_metadata_address(admin, network)} dev eth0" in Inside(port.id).routes()
        told = client.wait_for_log(name, _PATH)
        assert f"{_PATH} {client.show(name)['uuid']} {tenant.project} {port.addresses[0]}" in told
    client.delete(names, "--stop")


def _metadata_address(admin: Tenant, network: Network) -> str:
    owner = "device_owner=network:distributed"
    (port,) = admin.ask("GET", f"ports?network_id={network.id}&{owner}")["ports"]
    return str(port["fixed_ips"][0]["ip_address"])
