"""A control plane and two hosts as processes of their own, on real engines, with a network between them."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engines import need
from tests.engines.images import busybox_archive
from tests.hosts.processes import ControlPlane, Machine, bridge, machine, wait_for
from tests.system.client import OpenStack, Outcome

__all__ = ["busybox_archive"]

IDLE = ("sh", "-c", "trap exit TERM; echo born; while sleep 0.1; do :; done")

_numbers = itertools.count(1)


class SmallCloud:
    """A control plane, hosts one and two, and a client."""

    def __init__(self, control: ControlPlane, one: Machine, two: Machine, openstack: OpenStack) -> None:
        self.control, self.one, self.two, self.openstack = control, one, two, openstack
        self.heard = Outcome(0, "", "")

    def states(self) -> dict[str, str]:
        rows = self.openstack.json("service", "list")
        return {row["Host"]: row["State"] for row in rows}

    def reaches(self, name: str, other: str) -> bool:
        """Whether one container gets a word from the other, which is called by its name."""
        self.heard = self.openstack.call("exec", name, "wget", "-q", "-O", "-", f"http://{other}/word")
        return f"I am {other}" in self.heard.out

    def run_on(self, host: Machine) -> str:
        """A running container on this host; its name."""
        name = f"on-{host.name}-{next(_numbers)}"
        self.openstack("run", "--name", name, "--host", host.name, "busybox", *IDLE)
        assert self.openstack.wait(name, "Running")["host"] == host.name
        return name


@pytest.fixture(scope="module")
def small_cloud(own_namespaces: None, busybox_archive: Path) -> Iterator[SmallCloud]:
    """Host one joins first and is started then; host two does both at once."""
    need("dockerd", "docker", "runc", "catatonit", "ip", "nsenter")
    with ExitStack() as stack:
        stack.enter_context(bridge())
        data = Path(tempfile.mkdtemp(prefix="higgins-api"))
        stack.callback(shutil.rmtree, data)
        control = ControlPlane(data)
        control.start()
        one = stack.enter_context(machine("one", 11, busybox_archive))
        two = stack.enter_context(machine("two", 12, busybox_archive))
        joined = one.join(control.url, control.token())
        assert joined.returncode == 0 and "host one" in joined.stdout, joined.stderr
        one.start()
        two.start("--join", control.url, "--token", control.token())
        openstack = OpenStack(control.openrc())
        stack.callback(lambda: control.process and control.process.stop())
        stack.callback(openstack.close)
        cloud = SmallCloud(control, one, two, openstack)
        wait_for(lambda: cloud.states() == {"one": "up", "two": "up"}, lambda: f"{cloud.states()}")
        yield cloud
        rows = openstack.json("list")
        openstack.delete([row["name"] for row in rows])


def test_containers_run_on_the_host_that_was_asked_for_and_are_reached_there(small_cloud: SmallCloud) -> None:
    openstack = small_cloud.openstack
    before = {host.name: host.containers() for host in (small_cloud.one, small_cloud.two)}
    names = {host.name: small_cloud.run_on(host) for host in (small_cloud.one, small_cloud.two)}
    for host in (small_cloud.one, small_cloud.two):
        name = names[host.name]
        assert len(host.containers() - before[host.name]) == 1
        openstack.wait_for_log(name, "born")
        assert openstack("exec", name, "echo", "hello").strip() == "hello"
        assert "CPU" in openstack("stats", name)


def test_files_travel_to_and_from_a_container_on_another_machine(small_cloud: SmallCloud, tmp_path: Path) -> None:
    name = small_cloud.run_on(small_cloud.two)
    (tmp_path / "letter").write_bytes(b"\x00dear\xff" * 1000)
    small_cloud.openstack("cp", str(tmp_path / "letter"), f"{name}:/tmp")
    (tmp_path / "back").mkdir()
    small_cloud.openstack("cp", f"{name}:/tmp/letter", str(tmp_path / "back"))
    assert (tmp_path / "back" / "letter").read_bytes() == (tmp_path / "letter").read_bytes()


def test_containers_on_two_hosts_reach_each_other_by_name(small_cloud: SmallCloud) -> None:
    here, there = small_cloud.run_on(small_cloud.one), small_cloud.run_on(small_cloud.two)
    for name in (here, there):
        small_cloud.openstack("exec", name, "sh", "-c", f"echo I am {name} > /tmp/word; httpd -p 80 -h /tmp")
    # Each host learns of the other's container a moment after it was made.
    wait_for(lambda: small_cloud.reaches(here, there), lambda: f"{small_cloud.heard}")
    wait_for(lambda: small_cloud.reaches(there, here), lambda: f"{small_cloud.heard}")


def test_hosts_go_on_without_their_control_plane_and_find_it_again(small_cloud: SmallCloud) -> None:
    name = small_cloud.run_on(small_cloud.one)
    held = small_cloud.one.containers()
    for crash in (False, True):
        small_cloud.control.restart(crash=crash)
        assert small_cloud.openstack.wait(name, "Running")["host"] == "one"
        another = small_cloud.run_on(small_cloud.one)
        assert small_cloud.openstack("exec", another, "echo", "hello").strip() == "hello"
        assert held <= small_cloud.one.containers()


def test_an_agent_comes_back_as_the_host_that_it_was(small_cloud: SmallCloud) -> None:
    for crash in (False, True):
        name = small_cloud.run_on(small_cloud.two)
        held = small_cloud.two.containers()
        agent = small_cloud.two.agent
        assert agent is not None
        if crash:
            agent.kill()
        else:
            assert agent.stop() == 0
        assert small_cloud.two.containers() == held
        assert "does not answer" in small_cloud.openstack.call("exec", name, "true").err
        small_cloud.openstack("stop", "--time", "0", name)  # asked for while it is away
        small_cloud.two.start()
        small_cloud.openstack.wait(name, "Stopped")


def test_what_was_asked_for_while_the_network_was_cut_is_done_when_it_is_back(small_cloud: SmallCloud) -> None:
    name = small_cloud.run_on(small_cloud.one)
    with small_cloud.one.cut_off():
        small_cloud.openstack("stop", "--time", "0", name)
        assert small_cloud.openstack.status(name) == "Running"
    small_cloud.openstack.wait(name, "Stopped")
    assert small_cloud.states() == {"one": "up", "two": "up"}


def test_a_revoked_host_is_refused_until_it_joins_again_and_keeps_its_containers(small_cloud: SmallCloud) -> None:
    name = small_cloud.run_on(small_cloud.two)
    held = small_cloud.two.containers()
    small_cloud.control.revoke("two")
    agent = small_cloud.two.agent
    assert agent is not None
    agent.says("refuses this host")
    assert small_cloud.states() == {"one": "up", "two": "down"}
    assert "does not answer" in small_cloud.openstack.call("exec", name, "true").err
    assert small_cloud.two.containers() == held
    agent.stop()
    assert small_cloud.two.join(small_cloud.control.url, small_cloud.control.token()).returncode == 0
    small_cloud.two.start()
    wait_for(lambda: small_cloud.states() == {"one": "up", "two": "up"}, lambda: f"{small_cloud.states()}")
    small_cloud.openstack.wait(name, "Running")
    assert small_cloud.openstack("exec", name, "echo", "hello").strip() == "hello"
    assert held <= small_cloud.two.containers()


@contextmanager
def drained(control: ControlPlane, name: str) -> Iterator[str]:
    """A host is drained in the block; what the command says of it."""
    yield control.drain(name)
    control.drain(name, "undrain")


def test_containers_leave_a_drained_host_for_another_and_keep_their_addresses(small_cloud: SmallCloud) -> None:
    openstack, control, one = small_cloud.openstack, small_cloud.control, small_cloud.one
    stays = small_cloud.run_on(one)
    with drained(control, "two"):
        openstack("run", "--name", "mover", "--restart", "always", "busybox", *IDLE)
        before = openstack.wait("mover", "Running")
    assert before["host"] == "one"
    held = one.containers()
    with drained(control, "one") as said:
        assert "1 workloads leave it" in said and f"{stays}: its owner asked for this host" in said
        there = moved(openstack, "mover", "two")
    assert there["addresses"] == before["addresses"]
    assert openstack("exec", "mover", "hostname", "-i").split()[-1] in str(before["addresses"])
    assert len(held - one.containers()) == 1
    assert control.status()["differences"] == []


def moved(openstack: OpenStack, name: str, host: str) -> Any:
    """The container, once it runs on that host."""
    wait_for(lambda: openstack.json("show", name)["host"] == host, lambda: f"{openstack.json('show', name)}")
    return openstack.wait(name, "Running")


def test_a_container_of_a_lost_host_runs_elsewhere_and_the_host_removes_it_when_it_comes_back(
    small_cloud: SmallCloud,
) -> None:
    openstack, control, two = small_cloud.openstack, small_cloud.control, small_cloud.two
    before = two.containers()
    with drained(control, "one"):
        openstack("run", "--name", "survivor", "--auto-heal", "busybox", *IDLE)
        assert openstack.wait("survivor", "Running")["host"] == "two"
    mine = two.containers() - before
    assert two.agent is not None
    two.agent.kill()
    openstack("service", "forcedown", "two", "zun-compute")
    moved(openstack, "survivor", "one")
    assert mine <= two.containers()
    two.start()
    wait_for(lambda: not mine & two.containers(), lambda: f"{mine} are still there")
    openstack("service", "forcedown", "two", "zun-compute", "--unset")
    wait_for(lambda: small_cloud.states() == {"one": "up", "two": "up"}, lambda: f"{small_cloud.states()}")
    assert openstack("exec", "survivor", "echo", "hello").strip() == "hello"
    assert control.status()["differences"] == []
