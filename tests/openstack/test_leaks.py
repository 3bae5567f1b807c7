"""Two hundred random operations while services fail: when all is deleted, everything is as it was before."""

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.docker import DockerEngine
from tests.openstack import needs
from tests.openstack.between import Between
from tests.openstack.cloud import Reply, ask, cinder, glance, keystone, password, token, upload
from tests.openstack.conftest import HigginsInCloud
from tests.openstack.disturbance import Disturbance
from tests.openstack.faulty import Way
from tests.openstack.neutron import Tenant, wired
from tests.system.behind import BehindDocker
from tests.system.traces import unfiltered

pytestmark = [needs("keystone", "glance", "neutron", "cinder"), pytest.mark.timeout(1800)]

#: The same faults and the same choices can be had again by naming the number that a failure told.
SEED = int(os.environ.get("HIGGINS_SEED") or random.randrange(2**32))
OPERATIONS = 200
#: Containers that there are at once, at most.
MOST = 8
#: Seconds that services and Higgins have for what is left to do: what failed often is tried again once a minute.
PATIENCE = 300
IDLE = ["sh", "-c", "trap exit TERM; while sleep 0.1; do :; done"]


class Things:
    """What containers are made with: two networks, and ports, volumes and an image that the tenant has already."""

    def __init__(self, tenant: Tenant, own: str, busybox: Path) -> None:
        self.networks = [tenant.network("10.90.0.0/24"), tenant.network("10.91.0.0/24", "fd91::/64")]
        self.ports = [tenant.port(network) for network in self.networks]
        self.volumes = [self._volume() for _ in range(2)]
        self.image = upload(own, f"image-{time.monotonic_ns()}", busybox.read_bytes())
        self._tenant, self._token = tenant, own

    def _volume(self) -> str:
        made = cinder("POST", "volumes", json={"volume": {"size": 1, "name": f"random-{time.monotonic_ns()}"}})
        ident = str(made["volume"]["id"])
        until("a volume is made", lambda: cinder("GET", f"volumes/{ident}")["volume"]["status"] == "available")
        return ident

    def clean(self) -> None:
        """A network that has ports of containers cannot be deleted."""
        for port in self.ports:
            self._tenant.ask("DELETE", f"ports/{port}")
        for network in self.networks:
            network.delete()
        for volume in self.volumes:
            cinder("DELETE", f"volumes/{volume}")
        glance("DELETE", f"images/{self.image}", self._token)


def until(what: str, claim: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s; HIGGINS_SEED={SEED}"
        time.sleep(0.2)


class User:
    """Who asks for this and that, at random."""

    def __init__(self, url: str, own: str, things: Things, admin: Tenant) -> None:
        self._url, self._token, self._things, self._admin = url, own, things, admin
        self._admins = token(password("admin", "admin"))
        self._chance = random.Random(SEED)
        self._made = 0
        #: What was asked, with what was answered; and the statuses that containers were seen in.
        self.asked: list[str] = []
        self.seen: Counter[str] = Counter()

    def containers(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = ask(f"{self._url}/containers", token=self._token).body["containers"]
        self.seen.update(one["status"] for one in listed)
        return listed

    def operate(self) -> None:
        """Ask for something, whether it can be had just now or not."""
        there = self.containers()
        verbs = {self.create: 9, self.behind: 1} if not there else {}
        if there:
            verbs = {self.create: 9, self.delete: 5, self.wire: 6, self.act: 7, self.commit: 3, self.behind: 1}
        if len(there) >= MOST:
            del verbs[self.create]
        (verb,) = self._chance.choices(list(verbs), list(verbs.values()))
        verb(self._chance.choice(there) if there else {})

    def create(self, _: Any) -> None:
        chance, things = self._chance, self._things
        self._made += 1
        image = chance.choice([{"image": "busybox"}, {"image": things.image, "image_driver": "glance"}])
        one, other = ({"network": network.id} for network in things.networks)
        given = {"port": chance.choice(things.ports)}
        nets = chance.choice([[], [one], [other], [one, other], [given]])
        new, mine = (
            {"size": 1, "destination": "/new"},
            {"source": chance.choice(things.volumes), "destination": "/mine"},
        )
        mounts = chance.choice([[], [], [new], [mine], [new, mine]])
        body = {
            "name": f"random-{self._made}",
            "command": IDLE,
            "nets": nets,
            "mounts": mounts,
            "memory": 64,
            "cpu": 0.25,
        }
        body |= {"auto_remove": True, "command": ["true"]} if chance.random() < 0.1 else {}
        self._ask("POST", f"containers?run={chance.choice(['true', 'true', 'true', 'false'])}", body | image)

    def delete(self, one: dict[str, Any]) -> None:
        if self._chance.random() < 0.3:
            self._ask("DELETE", f"containers/{one['uuid']}?force=true&all_projects=true", token=self._admins)
        else:
            self._ask("DELETE", f"containers/{one['uuid']}?stop=true")

    def wire(self, one: dict[str, Any]) -> None:
        verb, network = self._chance.choice(["attach", "detach"]), self._chance.choice(self._things.networks)
        self._ask("POST", f"containers/{one['uuid']}/network_{verb}?network={network.id}")

    def act(self, one: dict[str, Any]) -> None:
        verbs = ["start", "stop?timeout=1", "reboot?timeout=1", "kill", "rebuild", "pause", "unpause", "stop?timeout=1"]
        self._ask("POST", f"containers/{one['uuid']}/{self._chance.choice(verbs)}")

    def commit(self, one: dict[str, Any]) -> None:
        self._ask("POST", f"containers/{one['uuid']}/commit?repository=random-commit-{self._made}")

    def behind(self, one: dict[str, Any]) -> None:
        """An administrator deletes a port of a container in Neutron."""
        found = [own["id"] for network in self._things.networks for own in network.ports()]
        mine = sorted(set(found) - set(self._things.ports))
        if mine:
            self._admin.session.delete(f"http://127.0.0.1:9696/v2.0/ports/{self._chance.choice(mine)}", raise_exc=False)
            self.asked.append("a port was deleted")

    def delete_all(self) -> None:
        """And wait until there is none."""
        for one in self.containers():
            self._ask("DELETE", f"containers/{one['uuid']}?stop=true")
        until("all containers are gone", lambda: not self.containers())

    def _ask(self, method: str, path: str, json: Any = None, **more: str) -> Reply:
        reply = ask(f"{self._url}/{path}", method, json=json, **{"token": self._token} | more)
        self.asked.append(f"{method} {path}: {reply.status}")
        assert reply.status != 500, (SEED, self.asked[-1], reply.body)
        return reply


class Census:
    """What there is, by kind, in the cloud and on the host."""

    def __init__(self, higgins: HigginsInCloud, engine: DockerEngine, admin: Tenant) -> None:
        self._higgins, self._engine, self._admin = higgins, engine, admin
        self._token = token(password("admin", "admin"))

    def take(self) -> dict[str, set[str]]:
        ports = self._admin.ask("GET", "ports")["ports"]
        images = glance("GET", "images?limit=1000", self._token)["images"]
        return unfiltered(self._higgins, BehindDocker(self._engine)) | {
            "ports": {_words(one, "id", "name", "device_id", "device_owner", "binding:host_id") for one in ports},
            "volumes": {_words(one, "id", "status") for one in _of_cinder("volumes", "volumes/detail")},
            "attachments": {_words(one, "id", "volume_id") for one in _of_cinder("attachments", "attachments")},
            "images": {_words(one, "id", "name", "status") for one in images},
            "images of the engine": set(self._engine.command("images", "--format", "{{.Repository}}:{{.Tag}}").split()),
            "trusts": {one["id"] for one in keystone("GET", "/OS-TRUST/trusts")["trusts"]},
            "namespaces": _namespaces(),
            "interfaces of the switch": wired(),
            "volumes that are attached": _attached(),
        }


def _words(one: dict[str, Any], *keys: str) -> str:
    return " ".join(str(one[key]) for key in keys)


def _of_cinder(kind: str, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cinder("GET", f"{path}?all_tenants=1", "admin")[kind]
    return found


def _namespaces() -> set[str]:
    listed = subprocess.run(["lsns", "--noheadings", "--type", "net", "--output", "NS"], capture_output=True, text=True)
    return set(listed.stdout.split())


def _attached() -> set[str]:
    """The loop devices of volumes: of this cloud's, since those of all namespaces are seen."""
    listed = subprocess.run(["losetup", "--noheadings", "--output", "BACK-FILE"], capture_output=True, text=True)
    return {line for line in listed.stdout.splitlines() if line.startswith(os.environ["TMPDIR"])}


def differences(before: dict[str, set[str]], now: dict[str, set[str]]) -> dict[str, dict[str, list[str]]]:
    """What came and what went, by kind. A trust for images goes when nobody had one for a while."""
    changed = {
        kind: {"new": sorted(now[kind] - before[kind]), "gone": sorted(before[kind] - now[kind])} for kind in before
    }
    changed["trusts"]["gone"] = []
    return {kind: both for kind, both in changed.items() if any(both.values())}


@pytest.fixture
def things(tenant: Tenant, busybox_archive: Path, volume_types: None) -> Iterator[Things]:
    made = Things(tenant, token(password("demo", "demo")), busybox_archive)
    yield made
    made.clean()


def test_two_hundred_operations_with_faults_leave_nothing(
    networked: HigginsInCloud, networked_engine: DockerEngine, between: Between, cinder_proxy: Between, way: Way,
    things: Things, admin: Tenant,
) -> None:  # fmt: skip
    own = token(password("demo", "demo"))
    user, census = User(networked.url, own, things, admin), Census(networked, networked_engine, admin)
    bare = census.take()
    warm_up(networked.url, own, things)
    user.delete_all()
    stays = {"images of the engine", "trusts"}
    until("the first container goes", lambda: set(differences(bare, census.take())) <= stays)
    before = census.take()
    disturbance = Disturbance(SEED)
    with disturbance.disturbed({"Neutron": between, "Cinder": cinder_proxy}, way):
        for _ in range(OPERATIONS):
            user.operate()
            time.sleep(0.3)
    user.delete_all()
    until("no image is in the making", lambda: all(one["status"] == "active" for one in _made(own)))
    for image in _made(own):
        glance("DELETE", f"images/{image['id']}", own)
    left: dict[str, Any] = {}

    def nothing_is_left() -> bool:
        left.clear()
        left.update(differences(before, census.take()))
        return not left

    try:
        until("nothing is left", nothing_is_left)
    except AssertionError as late:
        raise AssertionError(f"{late}\n{left}\n{user.asked}") from late
    print(f"HIGGINS_SEED={SEED}", Counter(disturbance.met), user.seen)
    met = {one.partition(":")[0] for one in disturbance.met}
    assert met == {"Neutron", "Cinder"} and user.seen["Running"], "there were faults, and containers"


def warm_up(url: str, own: str, things: Things) -> None:
    """What the first container of all leaves for the others: an image on the host, a trust to read images by."""
    body = {"image": things.image, "image_driver": "glance", "command": IDLE, "memory": 64, "cpu": 0.25}
    body |= {"nets": [{"network": things.networks[0].id}], "mounts": [{"size": 1, "destination": "/new"}]}
    made = ask(f"{url}/containers?run=true", "POST", token=own, json=body).body["uuid"]
    until("a first container runs", lambda: ask(f"{url}/containers/{made}", token=own).body["status"] == "Running")


def _made(own: str) -> list[dict[str, Any]]:
    """The images that commits made."""
    listed: list[dict[str, Any]] = glance("GET", "images?limit=1000&container_format=docker", own)["images"]
    return [one for one in listed if one["name"].startswith("random-commit-")]
