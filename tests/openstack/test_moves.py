"""Workloads that leave their host: what they have of Neutron and Cinder goes with them, and never is in two places.

There are two hosts, each a chassis of OVN. They share one kernel, which lets both see a volume's device at any time: so
where a volume is, Cinder's attachments tell, and what each host has mounted.
"""

import contextlib
import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import session

from tests.engines import need
from tests.hosts.processes import ControlPlane, bridge
from tests.openstack import cloud, needs
from tests.openstack.cloud import cinder
from tests.openstack.conftest import Login, logins, register
from tests.openstack.hosts import Chassis, chassis
from tests.openstack.neutron import Inside, Network, Tenant, chassis_of, wired
from tests.openstack.volumes import becomes, name, volume, wait_until

pytestmark = [needs("keystone", "neutron", "cinder"), pytest.mark.timeout(900), pytest.mark.usefixtures("volume_types")]

_REGION = "Moving"
_LISTEN = "127.0.0.1:9517"
_DRIVERS = "[DEFAULT]\nvolume = cinder\n[network]\ndriver = neutron\n"
#: A silent host is down after 15 seconds, and lost after 25.
_LEASE = "[containers]\nhost_lease = 15\nfence_time = 8\n"
#: Writes to its volume as long as it runs, and shows what is there to who asks.
_BUSY = "trap exit TERM; httpd -p 80 -h /data; while sleep 0.1; do echo >> /data/beats; done"
_IDLE = "trap exit TERM; while sleep 0.1; do :; done"


class Scene:
    """The control plane and its two hosts, a tenant and the operator."""

    def __init__(self, control: ControlPlane, hosts: dict[str, Chassis], login: Login) -> None:
        self.control = control
        self.hosts = hosts
        self.client = login("demo")
        self._operator = login("admin")

    def states(self) -> dict[str, str]:
        return {row["Host"]: row["State"] for row in self._operator.json("service", "list")}

    def becomes(self, host: Chassis, state: str) -> None:
        wait_until(lambda: self.states()[host.name] == state, f"{host.name} is not {state}")

    def force_down(self, host: Chassis, *options: str) -> None:
        self._operator("service", "forcedown", *options, host.name, "zun-compute")

    @contextlib.contextmanager
    def drained(self, host: Chassis) -> Iterator[None]:
        self.control.drain(host.name)
        try:
            yield
        finally:
            self.control.drain(host.name, "undrain")

    @contextlib.contextmanager
    def disabled(self, host: Chassis) -> Iterator[None]:
        """Nothing new is placed there."""
        self._operator("service", "disable", host.name, "zun-compute")
        try:
            yield
        finally:
            self._operator("service", "enable", host.name, "zun-compute")

    def show(self, container: str) -> dict[str, Any]:
        """As the operator has it, who is told its host."""
        return self._operator.show(self.client.show(container)["uuid"])

    def where(self, container: str) -> Chassis:
        return self.hosts[self.show(container)["host"]]

    def run(self, network: Network, script: str, *options: str) -> str:
        """A container that runs; its name."""
        made = name("container")
        words = ("--name", made, "--net", f"network={network.name}", *options)
        self.client("run", *words, "busybox", "sh", "-c", script)
        self.client.wait(made, "Running")
        return made

    def runs_on(self, container: str, host: Chassis) -> bool:
        found = self.show(container)
        assert found["status"] != "Error", found
        return (found["status"], found["host"]) == ("Running", host.name)

    def end(self) -> None:
        self.client.delete([one["name"] for one in self.client.json("list")], "--stop")
        for one in self.hosts.values():
            wait_until(lambda one=one: not one.remains(), f"{one.name} has something left")  # type: ignore[misc]


@pytest.fixture(scope="module")
def built(own_namespaces: None, busybox_archive: Path) -> Iterator[Scene]:
    need("dockerd", "docker", "runc", "catatonit", "ip", "nsenter")
    services = {"identity": cloud.AUTH_URL.removesuffix("/v3"), "network": "http://127.0.0.1:9696"}
    cloud.region(_REGION, services | {"block-storage": "http://127.0.0.1:8776/v3"})
    with contextlib.ExitStack() as stack:
        stack.enter_context(bridge())
        data = Path(tempfile.mkdtemp(prefix="higgins-api"))
        stack.callback(shutil.rmtree, data)
        password = data / "password"
        password.write_text(cloud.PASSWORD)
        user = ("--user", "higgins-moving", "--password-file", str(password))
        settings = register(f"http://{_LISTEN}/v1", "--region", _REGION, *user).stdout
        control = ControlPlane(data, f"{settings}token_cache_time = 2\n{_DRIVERS}{_LEASE}", _LISTEN)
        control.start()
        stack.callback(lambda: control.process and control.process.stop())
        hosts = {}
        for number, host in enumerate(("one", "two"), 11):
            made = stack.enter_context(chassis(host, number, busybox_archive, _DRIVERS))
            made.start("--join", control.url, "--token", control.token())
            hosts[host] = made
        scene = Scene(control, hosts, stack.enter_context(logins(_REGION)))
        known = Tenant("admin", "admin")
        wait_until(lambda: {one["host"] for one in known.ask("GET", "agents")["agents"]} >= set(hosts), "no chassis")
        yield scene


@pytest.fixture
def scene(built: Scene) -> Iterator[Scene]:
    """Both hosts are up; afterwards nothing is left on either."""
    for one in built.hosts.values():
        built.becomes(one, "up")
    yield built
    built.end()


@pytest.fixture
def network(scene: Scene, tenant: Tenant) -> Iterator[Network]:
    made = tenant.network("10.80.0.0/24")
    yield made
    scene.end()
    made.delete()


class Attachments:
    """Which hosts Cinder says a volume is attached to, looked at ten times a second as long as the block lasts.

    ``seen`` has them whenever that changed; one without a name is about to be attached.
    """

    def __init__(self, ident: str) -> None:
        self.seen: list[list[str]] = []
        self._ident = ident
        self._admin = session.Session(auth=cloud.password("admin", "admin"))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Attachments":
        self.seen.append(self.now())
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def now(self) -> list[str]:
        there = self._ask(f"attachments?volume_id={self._ident}&all_tenants=1")["attachments"]
        attached = self._ask(f"volumes/{self._ident}")["volume"]["attachments"]
        hosts = {one["attachment_id"]: one["host_name"] for one in attached}
        return [hosts.get(one["id"], "") for one in there]

    @property
    def way(self) -> list[str]:
        """The hosts that had it, one after the other: never two at once, nor one before the other had let go of it."""
        assert all(len(hosts) <= 1 for hosts in self.seen), self.seen
        named = [hosts for hosts in self.seen if hosts != [""]]
        assert all([] in pair for pair in itertools.pairwise(named)), self.seen
        return [host for hosts in named for host in hosts]

    def _ask(self, path: str) -> Any:
        newest = {"OpenStack-API-Version": "volume 3.54"}
        return self._admin.get(f"http://127.0.0.1:8776/v3/{path}", headers=newest).json()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            found = self.now()
            if self.seen[-1] != found:
                self.seen.append(found)


class Mover:
    """A container with a volume and a port, to be healed, and a neighbour on the other host that is to stay there."""

    def __init__(self, scene: Scene, network: Network, volume: str) -> None:
        self._scene = scene
        self.volume = volume
        self.name = scene.run(network, _BUSY, "--auto-heal", "--mount", f"source={volume},destination=/data")
        self.here = scene.where(self.name)
        neighbour = scene.run(network, _IDLE)
        self.there = scene.where(neighbour)
        assert self.here is not self.there
        port, beside = (self._port(network, container) for container in (self.name, neighbour))
        self.port, self._address = str(port["id"]), port["fixed_ips"][0]["ip_address"]
        self._tap = f"tap{self.port[:11]}"
        self._beside = Inside(beside["id"], self.there.switch)
        scene.client("exec", self.name, "sh", "-c", "echo kept > /data/kept")

    def _port(self, network: Network, container: str) -> dict[str, Any]:
        uuid = self._scene.client.show(container)["uuid"]
        return next(one for one in network.ports() if one["device_id"] == uuid)

    def is_on(self, host: Chassis) -> None:
        """It runs there, and is reached there and has its data."""
        wait_until(lambda: self._scene.runs_on(self.name, host), f"{self.name} does not run on {host.name}")
        bound = Tenant("admin", "admin").show_port(self.port)
        assert bound is not None and (bound["binding:host_id"], bound["status"]) == (host.name, "ACTIVE")
        assert chassis_of(self.port) == host.name
        ask = ("curl", "-s", "-m", "2", f"http://{self._address}/kept")
        wait_until(lambda: self._beside.do(*ask).stdout == "kept\n", "it is not reached, or has not its data")
        (mount,) = host.mounted()
        assert (mount / "kept").read_text() == "kept\n"
        assert self._tap in wired(host.switch)

    def has_left(self, host: Chassis) -> None:
        assert self._tap not in wired(host.switch) and not host.mounted()


@pytest.fixture
def mover(scene: Scene, network: Network) -> Iterator[Mover]:
    made = Mover(scene, network, volume())
    made.is_on(made.here)
    yield made
    scene.end()
    becomes(made.volume, "available")
    cinder("DELETE", f"volumes/{made.volume}")


def test_what_a_drained_host_had_goes_to_the_other_and_back(scene: Scene, mover: Mover) -> None:
    with Attachments(mover.volume) as attachments:
        with scene.drained(mover.here):
            mover.is_on(mover.there)
            wait_until(lambda: not mover.here.remains(), f"{mover.here.name} has something left")
        with scene.drained(mover.there):
            mover.is_on(mover.here)
            mover.has_left(mover.there)
    assert attachments.way == [mover.here.name, mover.there.name, mover.here.name]


@contextlib.contextmanager
def without_agent(host: Chassis) -> Iterator[None]:
    host.kill_agent()
    try:
        yield
    finally:
        host.start()


@contextlib.contextmanager
def cut_off(host: Chassis) -> Iterator[None]:
    """From the control plane; not from the other host, nor from OVN."""
    with host.machine.cut_off():
        yield


@pytest.mark.parametrize("silent", [without_agent, cut_off])
def test_a_silent_host_keeps_its_volume_as_long_as_it_may_write_and_goes_on_with_it_when_it_is_back(
    scene: Scene, network: Network, mover: Mover, silent: Callable[[Chassis], AbstractContextManager[None]]
) -> None:
    """What has no volume is placed elsewhere meanwhile, so the time for that has come."""
    here = mover.here
    (mount,) = here.mounted()
    began = ("exec", mover.name, "cut", "-d", " ", "-f", "22", "/proc/1/stat")
    before = scene.client(*began)
    with scene.disabled(mover.there):
        light = scene.run(network, _IDLE, "--auto-heal")
    assert scene.where(light) is here
    with Attachments(mover.volume) as attachments:
        with silent(here):
            wait_until(lambda: scene.where(light) is mover.there, f"{light} does not leave the lost host")
            scene.client.wait(light, "Running")
            told = "stays there until the operator says that it is off"
            scene.client.wait_until(lambda: told in (scene.client.show(mover.name)["status_reason"] or ""))
            assert scene.where(mover.name) is here
            written = (mount / "beats").stat().st_size
            wait_until(lambda: (mount / "beats").stat().st_size > written, "it does not write any more")
        mover.is_on(here)
        wait_until(lambda: len(wired(here.switch)) == 1, f"{here.name} has a wire of what left it")
    assert scene.client(*began) == before, "it was started anew"
    assert attachments.way == [here.name]


def test_what_a_host_had_that_was_off_for_a_while_goes_on_there(scene: Scene, mover: Mover) -> None:
    with Attachments(mover.volume) as attachments:
        with mover.here.off():
            scene.becomes(mover.here, "down")
        mover.is_on(mover.here)
    assert attachments.way == [mover.here.name]


def test_what_a_host_had_that_is_off_goes_when_it_is_forced_down_and_is_let_go_of_when_it_is_back(
    scene: Scene, mover: Mover
) -> None:
    here = mover.here
    with Attachments(mover.volume) as attachments:
        with here.off():
            scene.becomes(here, "down")
            assert attachments.now() == [here.name]
            scene.force_down(here)
            mover.is_on(mover.there)
        wait_until(lambda: not here.remains(), f"{here.name} has something left")
        mover.is_on(mover.there)
        scene.force_down(here, "--unset")
        scene.becomes(here, "up")
        with scene.drained(mover.there):
            mover.is_on(here)
            mover.has_left(mover.there)
    assert attachments.way == [here.name, mover.there.name, here.name]


def test_the_volume_of_what_is_deleted_is_free_when_its_host_is_forced_down_and_not_before(
    scene: Scene, network: Network, mover: Mover
) -> None:
    here, mount = mover.here, ("--mount", f"source={mover.volume},destination=/data")
    with Attachments(mover.volume) as attachments:
        with here.off():
            scene.becomes(here, "down")
            scene.client("delete", "--stop", mover.name)
            assert "is in use by" in scene.client.call("run", *mount, "busybox", "true").err
            assert attachments.now() == [here.name]
            scene.force_down(here)
            scene.client.wait(mover.name, None)
            scene.client.wait_for_log(scene.run(network, f"cat /data/kept; {_IDLE}", *mount), "kept")
        wait_until(lambda: not here.remains(), f"{here.name} has something left")
        scene.force_down(here, "--unset")
    assert attachments.way == [here.name, mover.there.name]


def test_two_that_share_a_volume_take_it_along_together(scene: Scene, network: Network) -> None:
    """Cinder would attach it to both hosts at once."""
    made = volume(volume_type="shared")
    mount = ("--auto-heal", "--mount", f"source={made},destination=/data")
    both = [scene.run(network, _BUSY, *mount) for _ in range(2)]
    here = scene.where(both[0])
    (there,) = (host for host in scene.hosts.values() if host is not here)
    scene.client("exec", both[0], "sh", "-c", "echo kept > /data/kept")
    with Attachments(made) as attachments:
        with scene.drained(here):
            for each in both:
                wait_until(lambda each=each: scene.runs_on(each, there), f"{each} does not run on {there.name}")  # type: ignore[misc]
                assert scene.client("exec", each, "cat", "/data/kept").strip() == "kept"
        wait_until(lambda: not here.remains(), f"{here.name} has something left")
    assert attachments.way == [here.name, there.name]
    scene.client.delete(both, "--stop")
    becomes(made, "available")
    cinder("DELETE", f"volumes/{made}")


def test_what_still_runs_on_a_host_that_was_forced_down_ends_when_its_agent_is_back(scene: Scene, mover: Mover) -> None:
    """Only its agent was dead, and the operator wrong. Its wire and its mount are in nobody's way all the same."""
    here = mover.here
    with Attachments(mover.volume) as attachments:
        with without_agent(here):
            scene.force_down(here)
            mover.is_on(mover.there)
            assert here.machine.containers()
        wait_until(lambda: not here.remains(), f"{here.name} has something left")
        mover.is_on(mover.there)
        scene.force_down(here, "--unset")
    assert attachments.way == [here.name, mover.there.name]
