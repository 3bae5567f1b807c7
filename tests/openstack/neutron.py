"""Neutron as a test has it: networks of tenants, what is left in it, and the switch of this host."""

import itertools
import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keystoneauth1 import session
from msgspec import Struct

from tests.openstack.cloud import ask, identifier, password

URL = "http://127.0.0.1:9696/v2.0"
PATIENCE = 60
_numbers = itertools.count(1)


class Tenant:
    """A user of Neutron in a project, with a session of its own."""

    def __init__(self, user: str, project: str) -> None:
        self.session = session.Session(auth=password(user, project))
        self.project = identifier("projects", project)
        self.name = user

    def ask(self, method: str, path: str, json: Any = None) -> Any:
        answer = self.session.request(f"{URL}/{path}", method, json=json)
        return answer.json() if answer.content else None

    def network(self, *cidrs: str, **subnet: Any) -> "Network":
        """A new network with a subnet for each CIDR."""
        name = f"net-{next(_numbers)}-{time.monotonic_ns()}"
        made = self.ask("POST", "networks", {"network": {"name": name}})["network"]["id"]
        subnets = []
        for cidr in cidrs:
            body: dict[str, Any] = {"network_id": made, "cidr": cidr, "ip_version": 6 if ":" in cidr else 4}
            if ":" in cidr:
                body |= {"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
            else:
                body |= subnet
            subnets.append(self.ask("POST", "subnets", {"subnet": body})["subnet"]["id"])
        return Network(made, name, self, tuple(subnets))

    def port(self, network: "Network", **more: Any) -> str:
        return str(self.ask("POST", "ports", {"port": {"network_id": network.id, **more}})["port"]["id"])

    def show_port(self, port: str) -> dict[str, Any] | None:
        found = self.ask("GET", f"ports?id={port}")["ports"]
        return found[0] if found else None

    def group(self, *rules: dict[str, Any]) -> str:
        """A new security group that lets out all, and in what the rules say; its name."""
        name = f"group-{next(_numbers)}-{time.monotonic_ns()}"
        made = self.ask("POST", "security-groups", {"security_group": {"name": name}})["security_group"]["id"]
        for rule in rules:
            body = {"security_group_id": made, "direction": "ingress", "ethertype": "IPv4", **rule}
            self.ask("POST", "security-group-rules", {"security_group_rule": body})
        return name


class Network(Struct, frozen=True):
    id: str
    name: str
    owner: Tenant
    subnets: tuple[str, ...]

    def ports(self) -> list[dict[str, Any]]:
        """Those of containers."""
        found: list[dict[str, Any]] = self.owner.ask("GET", f"ports?network_id={self.id}")["ports"]
        return [one for one in found if not one["device_owner"].startswith("network:")]

    def delete(self) -> None:
        self.owner.ask("DELETE", f"networks/{self.id}")


def switch(*words: str) -> str:
    return subprocess.run(["ovs-vsctl", *words], check=True, capture_output=True, text=True).stdout


def wired(switch: Callable[..., str] = switch) -> set[str]:
    """The interfaces of containers in the switch."""
    listed = json.loads(switch("--format=json", "--columns=name,external_ids", "list", "Interface"))
    return {name for name, (_, ids) in listed["data"] if "higgins-port" in dict(ids)}


def chassis_of(port: str) -> str:
    """The host on which OVN has bound a port."""
    asked = ["ovn-sbctl", "--bare", "--columns=chassis", "find", "Port_Binding", f"logical_port={port}"]
    found = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    name = ["ovn-sbctl", "--bare", "--columns=hostname", "list", "Chassis", found]
    return subprocess.run(name, check=True, capture_output=True, text=True).stdout.strip() if found else ""


def taps() -> set[str]:
    return {name for _, name in socket.if_nameindex() if name.startswith("tap")}


class Port(Struct, frozen=True):
    """A container's port as the API lists it."""

    network: str
    id: str
    addresses: tuple[str, ...]


def ports_of(url: str, container: str, own: str) -> list[Port]:
    """The ports of a container, asked with a token (the client's own command for it fails over every answer)."""
    answer = ask(f"{url}/containers/{container}/network_list", token=own)
    assert answer.status == 200, answer
    return [
        Port(one["net_id"], one["port_id"], tuple(fixed["ip_address"] for fixed in one["fixed_ips"]))
        for one in answer.body["networks"]
    ]


class Inside:
    """The namespace of a container's sandbox, found by a port that it has: what the container may not do is done there
    from the outside."""

    def __init__(self, port: str, switch: Callable[..., str] = switch) -> None:
        inode = switch("get", "Interface", f"tap{port[:11]}", "external_ids:higgins-netns").strip().strip('"')
        self._path = next(
            f"{process}/ns/net"
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and _namespace(process) == inode
        )

    def do(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--net={self._path}", *command], check=False, capture_output=True, text=True, input=""
        )

    def pings(self, address: str, *options: str) -> bool:
        """Whether an echo comes back."""
        done = self.do("busybox", "ping", "-c", "1", "-W", "2", *options, address)
        assert "packet loss" in done.stdout, done.stderr
        return " 0% packet loss" in done.stdout

    def connects(self, address: str, port: int) -> bool:
        """Whether a TCP connection comes about."""
        return self.do("busybox", "nc", "-w", "2", address, str(port)).returncode == 0

    def routes(self) -> str:
        return self.do("ip", "route").stdout


def _namespace(process: Path) -> str:
    try:
        return (process / "ns" / "net").readlink().name.removeprefix("net:[").removesuffix("]")
    except OSError:
        return ""


def eventually(claim: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
