"""Wait until what works behind the APIs is there too: ``ready.py SERVICE…``."""

import sys
import time

from keystoneauth1.exceptions import ClientException
from openstack.connection import Connection
from openstack.exceptions import SDKException

import openstack

PATIENCE = 120


def neutron(cloud: Connection) -> bool:
    return any(agent.is_alive for agent in cloud.network.agents())


def cinder(cloud: Connection) -> bool:
    services = cloud.block_storage.get("/os-services").json()["services"]
    volumes = [one for one in services if one["binary"] == "cinder-volume"]
    return len(volumes) >= 2 and all(one["state"] == "up" for one in volumes)


def nova(cloud: Connection) -> bool:
    return any(one.state == "up" for one in cloud.compute.hypervisors(details=True))


READY = {"neutron": neutron, "cinder": cinder, "nova": nova}


def wait(cloud: Connection, name: str) -> None:
    """Until the service is usable; raises the last error, or TimeoutError."""
    end = time.monotonic() + PATIENCE
    while True:
        error: Exception = TimeoutError(f"{name} has no worker that is up")
        try:
            if READY[name](cloud):
                return
        except (SDKException, ClientException, KeyError) as failed:  # it is starting still
            error = failed
        if time.monotonic() > end:
            raise error
        time.sleep(0.5)


if __name__ == "__main__":
    connection = openstack.connect()
    for service in sys.argv[1:]:
        if service in READY:
            wait(connection, service)
