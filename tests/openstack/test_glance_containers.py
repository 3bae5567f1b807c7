"""Containers of images of a real Glance: whose may run, how often they travel, and what Glance's faults do to them."""

import json
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import exceptions as failures

from tests.engines import wait_until
from tests.engines.docker import DockerEngine
from tests.engines.images import busybox_config
from tests.images.test_archive import digest, tar_of
from tests.openstack import cloud, needs
from tests.openstack.cloud import (
    Reply,
    application_credential,
    ask,
    glance,
    identifier,
    member,
    password,
    token,
    upload,
)
from tests.openstack.conftest import HigginsInCloud, Login
from tests.openstack.faulty import Fault, Way

pytestmark = needs("keystone", "glance")

IDLE = ["sh", "-c", "trap exit TERM; while sleep 0.1; do :; done"]


def called() -> str:
    return f"image-{uuid.uuid4()}"


def image_of(busybox: Path, word: bytes) -> bytes:
    """An archive of busybox with one small layer of its own."""

    with tarfile.open(busybox) as tar:
        (entry,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        base = tar.extractfile(entry["Layers"][0]).read()  # type: ignore[union-attr]
    layers = [base, tar_of([("word", word)])]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": busybox_config(),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}" for layer in layers]},
        }
    ).encode()
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": names}]).encode()
    return tar_of([*zip(names, layers, strict=True), ("config.json", config), ("manifest.json", manifest)])


def gone(image: str, token: str) -> bool:
    try:
        glance("GET", f"images/{image}", token)
    except failures.NotFound:
        return True
    return False


class Tenant:
    """A project's member, who speaks to Higgins without a client."""

    def __init__(self, higgins: HigginsInCloud, project: str, credentials: Any = None) -> None:
        self.project = project
        self.token = token(credentials or password(project, project))
        self._url = higgins.url
        self.made: list[str] = []

    def create(self, image: str, **more: Any) -> Reply:
        body = {"image": image, "image_driver": "glance", "command": IDLE} | more
        reply = ask(f"{self._url}/containers?run=true", "POST", token=self.token, json=body)
        if reply.status == 202:
            self.made.append(reply.body["uuid"])
        return reply

    def runs(self, image: str, **more: Any) -> str:
        """The uuid of a container that came to run."""
        reply = self.create(image, **more)
        assert reply.status == 202, reply
        self.wait(reply.body["uuid"], "Running")
        return str(reply.body["uuid"])

    def show(self, ident: str) -> Any:
        return ask(f"{self._url}/containers/{ident}", token=self.token).body

    def wait(self, ident: str, status: str, patience: float = 60) -> Any:
        deadline = time.monotonic() + patience
        while (shown := self.show(ident))["status"] != status:
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)
        return shown

    def act(self, ident: str, verb: str, query: str = "") -> Reply:
        return ask(f"{self._url}/containers/{ident}/{verb}{query}", "POST", token=self.token)

    def action_now(self, reply: Reply) -> Any:
        """The record of what was asked for by the request that got this reply."""
        made = self.made[-1]
        return ask(f"{self._url}/containers/{made}/container_actions/{reply.request_id}", token=self.token).body

    def action(self, reply: Reply) -> Any:
        """The same once it is over."""
        wait_until(lambda: self.action_now(reply)["finish_time"] is not None, "it does not end")
        return self.action_now(reply)

    def word(self, ident: str) -> str:
        """What the image's own layer holds."""
        return str(self.act(ident, "execute", "?command=cat%20/word&run=true&interactive=false").body["output"])

    def clean(self) -> None:
        for ident in self.made:
            ask(f"{self._url}/containers/{ident}?stop=true", "DELETE", token=self.token)
        for ident in self.made:
            wait_until(lambda ident=ident: "status" not in self.show(ident), "it stays")  # type: ignore[misc]


@pytest.fixture
def demo(higgins: HigginsInCloud) -> Iterator[Tenant]:
    one = Tenant(higgins, "demo")
    yield one
    one.clean()


@pytest.fixture
def alt(higgins: HigginsInCloud) -> Iterator[Tenant]:
    one = Tenant(higgins, "alt")
    yield one
    one.clean()


@pytest.fixture
def admin(higgins: HigginsInCloud) -> Iterator[Tenant]:
    """Who may say when images are fetched."""
    one = Tenant(higgins, "admin")
    yield one
    one.clean()


def test_a_tenant_runs_a_private_image_with_the_unmodified_client(
    login: Login, busybox_archive: Path, docker_engine: DockerEngine
) -> None:
    client, stranger, name = login("demo"), login("alt"), called()
    format_ = ("--container-format", "docker", "--disk-format", "raw")
    made = client.program(
        "openstack", "image", "create", "--private", *format_, "--file", str(busybox_archive), name, "-f", "json"
    )
    ident = json.loads(made.out)["id"]
    client("run", "--name", "of-glance", "--image-driver", "glance", name, *IDLE)
    shown = client.wait("of-glance", "Running")
    assert (shown["image"], shown["image_driver"]) == (name, "glance")
    for reference in (name, ident):
        refused = stranger.call("run", "--name", "stolen", "--image-driver", "glance", reference, *IDLE)
        assert "There is no image" in refused.out + refused.err
        assert "404" in refused.out + refused.err
    assert stranger.status("stolen") is None
    found = client.json("image", "search", "--image-driver", "glance", name[:12])
    assert name in [one.get("name") or one.get("Name") for one in found]
    client("delete", "--stop", "of-glance")
    client.wait("of-glance", None)
    assert shown["uuid"] not in docker_engine.command("ps", "--all", "--format", "{{.Names}}")


def test_what_is_loaded_for_one_project_is_no_name_for_another(
    demo: Tenant, alt: Tenant, busybox_archive: Path, docker_engine: DockerEngine
) -> None:
    image = upload(demo.token, called(), image_of(busybox_archive, b"secret"))
    demo.runs(image)
    (line,) = docker_engine.command(
        "images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}", f"glance.invalid/{image}"
    ).splitlines()
    ident, name = line.split()
    refused = alt.create(name, image_driver="docker")
    assert (refused.status, "keeps for itself" in refused.title) == (400, True)
    for guess in (ident, ident.removeprefix("sha256:")):
        reply = alt.create(guess, image_driver="docker")
        if reply.status == 202:
            assert alt.wait(reply.body["uuid"], "Error")["status_reason"]


def test_an_administrator_has_a_host_fetch_an_image_ahead(
    higgins: HigginsInCloud, login: Login, admin: Tenant, busybox_archive: Path, way: Way, docker_engine: DockerEngine
) -> None:
    client, name = login("admin"), called()
    image = upload(admin.token, name, image_of(busybox_archive, b"ahead"))
    (host,) = client.json("host", "list")
    wanted = {"repo": name, "host": host["hostname"], "image_driver": "glance"}
    pulled = ask(f"{higgins.url}/images", "POST", token=admin.token, json=wanted)
    assert (pulled.status, pulled.body["repo"], way.count(f"{image}/file")) == (202, name, 1)
    assert name in [one["repo"] for one in client.json("image", "list")]
    assert client.json("image", "show", pulled.body["uuid"])["image_id"] == pulled.body["image_id"]
    made = admin.runs(name)
    assert admin.word(made) == "ahead" and way.count(f"{image}/file") == 1
    admin.clean()
    client("image", "delete", pulled.body["uuid"])
    assert f"glance.invalid/{image}" not in docker_engine.command("images", "--format", "{{.Repository}}")
    assert name not in [one["repo"] for one in client.json("image", "list")]
    glance("DELETE", f"images/{image}", admin.token)
    gone_there = ask(f"{higgins.url}/images", "POST", token=admin.token, json=wanted)
    assert (gone_there.status, "There is no image" in gone_there.title) == (404, True)


def test_a_shared_image_runs_for_whom_it_is_shared_with(demo: Tenant, alt: Tenant, busybox_archive: Path) -> None:
    image = upload(demo.token, called(), busybox_archive.read_bytes(), visibility="shared")
    assert alt.create(image).status == 404
    glance("POST", f"images/{image}/members", demo.token, {"member": identifier("projects", "alt")})
    alt.runs(image)


def test_refusals_say_what_is_wrong(demo: Tenant) -> None:
    name = called()
    for _ in range(2):
        upload(demo.token, name, b"data")
    twice = demo.create(name)
    assert (twice.status, "use the id" in twice.title) == (409, True)
    fields = {"name": called(), "container_format": "docker", "disk_format": "raw"}
    empty = demo.create(glance("POST", "images", demo.token, fields)["id"])
    assert (empty.status, "queued, not active" in empty.title) == (409, True)
    disk = demo.create(upload(demo.token, called(), b"data", container_format="ami", disk_format="ami"))
    assert (disk.status, "container format ami" in disk.title) == (400, True)
    nothing = demo.create(str(uuid.uuid4()))
    assert (nothing.status, "There is no image" in nothing.title) == (404, True)


def test_what_is_no_image_of_a_container_ends_in_error_at_once(demo: Tenant, way: Way) -> None:
    image = upload(demo.token, called(), b"x" * 5000)
    made = demo.create(image).body["uuid"]
    assert "refused" in demo.wait(made, "Error")["status_reason"]
    assert way.count(f"{image}/file") == 1


def test_an_image_and_a_layer_travel_once(
    demo: Tenant, busybox_archive: Path, way: Way, higgins: HigginsInCloud, docker_engine: DockerEngine
) -> None:
    images = [upload(demo.token, called(), image_of(busybox_archive, word)) for word in (b"one", b"two")]
    made = [demo.runs(image) for image in (*images, images[0])]
    assert [demo.word(one) for one in made] == ["one", "two", "one"]
    assert [way.count(f"{image}/file") for image in images] == [1, 1]
    layers = [
        json.loads(docker_engine.command("image", "inspect", f"{name}"))[0]["RootFS"]["Layers"]
        for image in images
        for name in docker_engine.command(
            "images", "--format", "{{.Repository}}:{{.Tag}}", f"glance.invalid/{image}"
        ).split()
    ]
    assert layers[0][0] == layers[1][0]
    shelved = [path.name for path in (higgins.data / "glance" / "layers").iterdir()]
    assert shelved.count(layers[0][0].removeprefix("sha256:")) == 1


def test_a_rebuild_follows_a_name_only_when_it_is_told_to(admin: Tenant, busybox_archive: Path) -> None:
    name = called()
    first = upload(admin.token, name, image_of(busybox_archive, b"first"))
    made = admin.runs(name)
    always = admin.runs(name, image_pull_policy="always")
    glance("DELETE", f"images/{first}", admin.token)
    second = upload(admin.token, name, image_of(busybox_archive, b"second"))
    assert first != second
    for ident in (made, always):
        assert admin.act(ident, "rebuild").status == 202
    admin.wait(made, "Running")
    admin.wait(always, "Running")
    assert (admin.word(made), admin.word(always)) == ("first", "second")
    assert admin.act(made, "rebuild", f"?image={name}").status == 202
    admin.wait(made, "Running")
    assert admin.word(made) == "second"
    assert admin.act(made, "rebuild", "?image=busybox&image_driver=docker").status == 202
    assert admin.wait(made, "Running")["image_driver"] == "docker"


def test_an_image_that_may_never_be_fetched_is_not(admin: Tenant, busybox_archive: Path) -> None:
    image = upload(admin.token, called(), image_of(busybox_archive, uuid.uuid4().bytes))
    made = admin.create(image, image_pull_policy="never").body["uuid"]
    assert "never to fetch it" in admin.wait(made, "Error")["status_reason"]


@pytest.mark.parametrize("obstacle", [{"status": 500}, {"status": 429}, {"status": 409}, {"cut": 100_000}])
def test_what_glance_says_is_told_and_the_container_runs_when_it_is_over(
    demo: Tenant, busybox_archive: Path, way: Way, obstacle: dict[str, int]
) -> None:
    image = upload(demo.token, called(), image_of(busybox_archive, uuid.uuid4().bytes))
    with way.obstacle(Fault(path=f"{image}/file", **obstacle)):  # type: ignore[arg-type]
        made = demo.create(image).body["uuid"]
        reason = demo.wait(made, "Error")["status_reason"]
    said = f"Glance answers {obstacle['status']}" if "status" in obstacle else "Glance broke off"
    assert said in reason and "cannot be read" in reason
    demo.wait(made, "Running")


def test_while_glance_is_slow_the_owner_sees_what_is_waited_for(demo: Tenant, busybox_archive: Path, way: Way) -> None:
    image = upload(demo.token, called(), image_of(busybox_archive, uuid.uuid4().bytes))
    with way.obstacle(Fault(path=f"{image}/file", hang=True)):
        made = demo.create(image).body["uuid"]
        wait_until(lambda: "image service is slow" in (demo.show(made)["status_reason"] or ""), "nothing is told")
        assert demo.show(made)["task_state"] == "image_pulling"
    demo.wait(made, "Running")


def test_a_container_that_is_deleted_waits_for_no_glance(demo: Tenant, busybox_archive: Path, way: Way) -> None:
    image = upload(demo.token, called(), image_of(busybox_archive, uuid.uuid4().bytes))
    with way.obstacle(Fault(path=f"{image}/file", hang=True)):
        demo.create(image)
        wait_until(lambda: way.count(f"{image}/file") > 0, "it is not asked for")
        demo.clean()


def test_while_glance_is_stopped_a_create_says_so_and_what_was_made_waits(
    demo: Tenant, busybox_archive: Path, way: Way
) -> None:
    image = upload(demo.token, called(), image_of(busybox_archive, uuid.uuid4().bytes))
    with way.obstacle(Fault(path=f"{image}/file", status=503)):
        made = demo.create(image).body["uuid"]
        demo.wait(made, "Error")
    cloud.service("stop", "glance")
    try:
        refused = demo.create(image)
        assert (refused.status, "Glance" in refused.title) == (503, True)
    finally:
        cloud.service("start", "glance")
    demo.wait(made, "Running")


def test_an_image_is_fetched_by_a_trust_when_the_token_is_over(demo: Tenant, busybox_archive: Path, way: Way) -> None:
    image = upload(demo.token, called(), image_of(busybox_archive, uuid.uuid4().bytes))
    with way.obstacle(Fault(path=f"{image}/file", status=401, token=demo.token)):  # as when it has expired
        demo.runs(image)


def test_who_may_give_no_trust_is_acted_for_while_the_token_lasts(
    higgins: HigginsInCloud, busybox_archive: Path, way: Way
) -> None:
    user = member("demo", "member")
    one = Tenant(higgins, "demo", application_credential(user, "demo"))
    try:
        image = upload(one.token, called(), image_of(busybox_archive, uuid.uuid4().bytes))
        one.runs(image)
        other = upload(one.token, called(), image_of(busybox_archive, uuid.uuid4().bytes))
        with way.obstacle(Fault(path=f"{other}/file", status=401, token=one.token)):
            made = one.create(other).body["uuid"]
            assert "rebuild the container" in one.wait(made, "Error")["status_reason"]
        one.token = token(password(user, "demo"))
        assert one.act(made, "rebuild", f"?image={other}").status == 202
        one.wait(made, "Running")
    finally:
        one.clean()


def test_a_commit_is_an_image_in_glance_that_runs(demo: Tenant, busybox_archive: Path, way: Way) -> None:
    made = demo.runs(upload(demo.token, called(), image_of(busybox_archive, b"before")))
    demo.act(made, "execute", "?command=sh%20-c%20%22echo%20after%20%3E%20/word%22&run=true&interactive=false")
    name = called()
    reply = demo.act(made, "commit", f"?repository={name}&tag=v1")
    assert reply.status == 202, reply
    done = demo.action(reply)
    assert (done["events"][0]["result"], done["message"]) == ("Success", None)
    image = glance("GET", f"images/{reply.body['uuid']}", demo.token)
    assert (image["name"], image["status"], image["visibility"]) == (f"{name}:v1", "active", "private")
    assert image["owner"] == identifier("projects", "demo")
    again = demo.runs(f"{name}:v1")
    assert demo.word(again).strip() == "after"


def test_how_far_a_commit_is_is_told_and_what_glance_refuses_leaves_no_image(
    demo: Tenant, busybox_archive: Path, way: Way, docker_engine: DockerEngine
) -> None:
    made = demo.runs(upload(demo.token, called(), busybox_archive.read_bytes()))
    with way.obstacle(Fault(path="/file", method="PUT", status=413, hang=True)):
        reply = demo.act(made, "commit", f"?repository={called()}")
        wait_until(lambda: "sent to the image service" in (demo.action_now(reply)["message"] or ""), "nothing is told")
    done = demo.action(reply)
    assert (done["events"][0]["result"], done["message"]) == ("Error", "Error")
    wait_until(lambda: gone(reply.body["uuid"], demo.token), "the image stays")
    assert "higgins.invalid" not in docker_engine.command("images", "--format", "{{.Repository}}")
    with way.obstacle(Fault(path="/images", method="POST", status=403)):
        refused = demo.act(made, "commit", f"?repository={called()}")
    assert (refused.status, "Glance answers 403" in refused.title) == (403, True)
