"""Two projects on one cloud: neither sees, reaches or touches what the other has."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp
from tests.system.conftest import Naming
from tests.system.rest import Rest

IDLE = ("sh", "-c", "trap exit TERM; while sleep 0.1; do :; done")
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def stranger(cloud: HigginsUp) -> Iterator[OpenStack]:
    """A member of another project, put into the users file as an operator does it."""
    command = [sys.executable, "-m", "higgins.cli.main", "user", "eve", "elsewhere", "member"]
    line = subprocess.run(command, input=f"{PASSWORD}\n", check=True, capture_output=True, text=True).stdout
    with (cloud.data / "users").open("a") as users:
        users.write(line)
    client = OpenStack(cloud.openrc() | {"OS_USERNAME": "eve", "OS_PASSWORD": PASSWORD})
    client.wait_until(lambda: client.call("list").code == 0)
    yield client
    client.delete([row["name"] for row in client.json("list")], "--stop")
    client.close()


def test_another_project_finds_nothing_by_list_name_or_uuid(
    openstack: OpenStack, stranger: OpenStack, named: Naming
) -> None:
    name = named("mine")
    openstack("run", "--name", name, "busybox", *IDLE)
    uuid = openstack.wait(name, "Running")["uuid"]
    assert name not in [row["name"] for row in stranger.json("list")]
    for ident in (name, uuid):
        assert stranger.status(ident) is None
        assert "could not be found" in stranger.call("exec", ident, "id").err
        for verb in ("stop", "kill", "pause", "rebuild"):
            assert " failed: " in stranger.call(verb, ident).out
        assert " failed: " in stranger.call("delete", "--stop", ident).out
    assert openstack.status(name) == "Running"


def test_what_is_for_administrators_is_refused_to_others(stranger: OpenStack) -> None:
    for words in (("host", "list"), ("service", "list"), ("list", "--all-projects")):
        refused = stranger.call(*words)
        assert refused.code != 0 and "403" in refused.err, refused


def test_another_projects_network_does_not_reach_in(openstack: OpenStack, stranger: OpenStack, named: Naming) -> None:
    name = named("private")
    openstack("run", "--name", name, "busybox", "sh", "-c", "exec httpd -f -p 80 -h /etc")
    address = openstack.wait(name, "Running")["addresses"]
    stranger("run", "--name", "prober", "busybox", *IDLE)
    stranger.wait("prober", "Running")
    fetch = ("timeout", "3", "wget", "-q", "-O", "-", f"http://{address}/passwd")
    openstack.wait_until(lambda: "root:" in openstack.call("exec", name, *fetch).out)
    assert "root:" not in stranger.call("exec", "prober", *fetch).out


@pytest.fixture(scope="module")
def veteran(cloud: HigginsUp) -> Iterator[OpenStack]:
    """The administrator's client in the newest of Zun's versions that has its commands for security groups."""
    client = OpenStack(cloud.openrc() | {"OS_CONTAINER_API_VERSION": "1.14"})
    yield client
    client.close()


def test_a_security_groups_rules_let_another_project_in_while_they_are_there(
    cloud: HigginsUp, openstack: OpenStack, stranger: OpenStack, veteran: OpenStack, named: Naming
) -> None:
    name, rest = named("served"), Rest(cloud, "1.49")
    group = rest.call("POST", "/security_groups", {"name": f"group-of-{name}"})
    openstack("run", "--name", name, "--security-group", group["name"], "busybox", "sh", "-c", "exec httpd -f -h /etc")
    shown = openstack.wait(name, "Running")
    assert shown["security_groups"] == [group["uuid"]]
    address = shown["addresses"]
    stranger("run", "--name", "visitor", "busybox", *IDLE)
    stranger.wait("visitor", "Running")
    fetch = ("timeout", "2", "wget", "-q", "-O", "-", f"http://{address}/passwd")

    def let_in() -> bool:
        return "root:" in stranger.call("exec", "visitor", *fetch).out

    def kept_out() -> bool:
        return not let_in()

    openstack.wait_until(lambda: "root:" in openstack.call("exec", name, *fetch).out)
    assert kept_out()
    http = {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
    rule = rest.call("POST", f"/security_groups/{group['name']}/rules", http)
    openstack.wait_until(let_in)
    rest.call("DELETE", f"/security_groups/{group['name']}/rules/{rule['id']}")
    openstack.wait_until(kept_out)

    other = rest.call("POST", "/security_groups", {"name": f"other-of-{name}", "rules": [http]})
    veteran("add", "security", "group", name, other["name"])
    openstack.wait_until(let_in)
    veteran("remove", "security", "group", name, other["name"])
    openstack.wait_until(kept_out)
    assert "Not Acceptable" in openstack.call("add", "security", "group", name, other["name"]).out, "since Zun's 1.15"
    refused = rest.ask("DELETE", f"/security_groups/{group['uuid']}")
    assert refused is not None and refused.status == 409
    openstack.delete([name])
    for gone in (group, other):
        rest.call("DELETE", f"/security_groups/{gone['uuid']}")
