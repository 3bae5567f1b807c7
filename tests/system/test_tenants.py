"""Two projects on one cloud: neither sees, reaches or touches what the other has."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp
from tests.system.conftest import Naming

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
