"""Runtime classes as an operator sets them up and a tenant asks for them, on each engine."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp
from tests.system.launcher import Launcher
from tests.system.stage import in_place_of

CONFIG = """\
[runtimes]
classes = gvisor:runsc,plain:runc,broken:nothing-of-that-name
hypervisor = gvisor
hypervisor_only_projects = closed
"""
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module", params=["docker_engine", "containerd_engine"])
def up(
    request: pytest.FixtureRequest, cloud: HigginsUp, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HigginsUp]:
    need("runsc")
    engine = request.getfixturevalue(request.param)
    file: Path = tmp_path_factory.mktemp("classes") / "higgins.conf"
    file.write_text(CONFIG)
    with in_place_of(cloud, [*engine.options, "--config-file", str(file)], launcher) as made:
        yield made


@pytest.fixture(scope="module")
def admin(up: HigginsUp) -> Iterator[OpenStack]:
    client = OpenStack(up.openrc())
    yield client
    client.close()


def user(up: HigginsUp, name: str, role: str) -> OpenStack:
    """A new user of the project that runs only inside hypervisors."""
    command = [sys.executable, "-m", "higgins.cli.main", "user", name, "closed", role]
    line = subprocess.run(command, input=f"{PASSWORD}\n", check=True, capture_output=True, text=True).stdout
    with (up.data / "users").open("a") as users:
        users.write(line)
    client = OpenStack(up.openrc() | {"OS_USERNAME": name, "OS_PASSWORD": PASSWORD})
    client.wait_until(lambda: client.call("list").code == 0)
    return client


@pytest.fixture(scope="module")
def member(up: HigginsUp) -> Iterator[OpenStack]:
    client = user(up, "eve", "member")
    yield client
    client.close()


def test_a_host_offers_the_classes_that_work_and_tells_why_others_do_not(up: HigginsUp, admin: OpenStack) -> None:
    host = admin.json("host", "list")[0]["uuid"]
    assert sorted(admin.json("host", "show", host)["runtimes"]) == ["gvisor", "plain"]
    assert "Runtime class broken (nothing-of-that-name) is not offered:" in up.log()


def test_a_container_runs_in_the_class_that_was_asked_for(admin: OpenStack) -> None:
    script = "trap exit TERM; while sleep 0.1; do :; done"
    admin("run", "--name", "inside", "--runtime", "gvisor", "busybox", "sh", "-c", script)
    admin("run", "--name", "beside", "--runtime", "plain", "busybox", "sh", "-c", script)
    address = admin.wait("inside", "Running")["addresses"]
    admin.wait("beside", "Running")
    assert admin.show("inside")["runtime"] == "gvisor"
    assert "gVisor" in admin("exec", "inside", "dmesg")
    assert "gVisor" not in admin.call("exec", "beside", "dmesg").out
    assert address in admin("exec", "inside", "ip", "address")
    for server, visitor in (("inside", "beside"), ("beside", "inside")):
        admin("exec", server, "sh", "-c", "echo reached > /tmp/word; httpd -p 80 -h /tmp")
        fetch = ("exec", visitor, "timeout", "5", "wget", "-q", "-O", "-", f"http://{server}/word")
        admin.wait_until(lambda fetch=fetch: "reached" in admin.call(*fetch).out)  # type: ignore[misc]
    admin("restart", "inside")
    admin.wait_until(lambda: "gVisor" in admin.call("exec", "inside", "dmesg").out)
    admin("stop", "--time", "0", "inside")
    admin.wait("inside", "Stopped")
    admin.delete(["inside", "beside"])


def test_a_class_that_no_host_has_finds_no_host(admin: OpenStack) -> None:
    admin("run", "--name", "nowhere", "--runtime", "broken", "busybox", "true")
    shown = admin.show("nowhere")
    assert shown["status"] == "Error"
    assert "it has no runtime broken" in shown["status_reason"]
    admin.delete(["nowhere"])


def test_a_project_that_may_only_run_inside_a_hypervisor_does(up: HigginsUp, member: OpenStack) -> None:
    member("run", "--name", "bound", "busybox", "dmesg")
    member.wait("bound", "Stopped")
    member.wait_for_log("bound", "gVisor")
    chief = user(up, "ada", "admin")
    try:
        refused = chief.call("run", "--name", "free", "--runtime", "plain", "busybox", "true")
        assert "run only in a hypervisor's runtime class (gvisor)" in refused.out + refused.err
    finally:
        chief.close()


def test_who_may_not_choose_a_class_is_refused(member: OpenStack) -> None:
    refused = member.call("run", "--name", "chosen", "--runtime", "gvisor", "busybox", "true")
    assert "container:create:runtime" in refused.out + refused.err
