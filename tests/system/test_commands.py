"""Every command of the installed client does here what ``docs/commands.md`` says, in the versions that it says."""

import asyncio
import contextlib
import http.server
import json
import os
import sqlite3
import sys
import threading
import uuid as uuids
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.screen import PATIENCE, Screen
from tests.engines.registry import Registry, open_registry
from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp
from tests.system.rest import Rest
from tests.system.scene import Row, Scene, installed, table

__all__ = ["open_registry"]

VERSIONS = ("1.1", "1.40", "1.latest")
ROWS = table()

Drive = Callable[[Scene, Path, pytest.FixtureRequest], None]
DRIVES: dict[str, Drive] = {}


def drives(command: str) -> Callable[[Drive], Drive]:
    """The function below drives that command and looks what came of it."""

    def noted(drive: Drive) -> Drive:
        assert command not in DRIVES
        DRIVES[command] = drive
        return drive

    return noted


@pytest.fixture(scope="module", params=VERSIONS)
def scene(request: pytest.FixtureRequest, cloud: HigginsUp, openstack: OpenStack) -> Iterator[Scene]:
    made = Scene(cloud, openstack, request.param)
    yield made
    made.close()


def test_the_page_has_the_commands_of_the_installed_client_and_each_is_driven() -> None:
    assert set(ROWS) == installed()
    assert set(DRIVES) == set(ROWS)


@pytest.mark.parametrize("command", sorted(ROWS))
def test_every_command_does_what_it_says(
    scene: Scene, command: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if ROWS[command].serves(scene.minor):
        DRIVES[command](scene, tmp_path, request)
    else:
        assert "Not Acceptable" in scene.refused(command, *_words(ROWS[command], scene))


def _words(row: Row, scene: Scene) -> tuple[str, ...]:
    """Enough arguments for the client to ask the server."""
    if row.name == "appcontainer host list":
        return ()
    if row.name == "appcontainer host show":
        return (scene.host,)
    more = {"attach": ("--network", "any"), "detach": ("--network", "any"), "list": ()}
    return (scene.name, *more.get(row.name.rpartition(" ")[2], ("any",)))


# containers


@drives("appcontainer create")
def _create(scene: Scene, *_: Any) -> None:
    name = scene.called("create")
    made = scene.json(
        "appcontainer create", "--name", name, "--label", "a=b", "--memory", "64", "busybox", "echo", "a b"
    )
    shown = scene.openstack.wait(name, "Created")
    assert (shown["uuid"], shown["labels"], shown["memory"]) == (made["uuid"], {"a": "b"}, "64")
    assert shown["command"] == ["echo", "a b"]


@drives("appcontainer run")
def _run(scene: Scene, *_: Any) -> None:
    name = scene.called("run")
    scene.do("appcontainer run", "--name", name, "busybox", "sh", "-c", "echo 'two  words'; exec sleep 1000")
    scene.openstack.wait(name, "Running")
    scene.openstack.wait_for_log(name, "two  words")


@drives("appcontainer list")
def _list(scene: Scene, *_: Any) -> None:
    assert [row["name"] for row in scene.json("appcontainer list", "--name", scene.name)] == [scene.name]
    assert scene.name in [row["name"] for row in scene.json("appcontainer list")]
    assert len(scene.json("appcontainer list", "--limit", "1")) == 1


@drives("appcontainer show")
def _show(scene: Scene, *_: Any) -> None:
    shown = scene.json("appcontainer show", scene.name)
    assert (shown["name"], shown["status"], shown["image"]) == (scene.name, "Running", "busybox")
    assert scene.json("appcontainer show", shown["uuid"])["name"] == scene.name
    assert "could not be found" in scene.refused("appcontainer show", "nobodys")


@drives("appcontainer set")
def _set(scene: Scene, *_: Any) -> None:
    scene.do("appcontainer set", "--cpu", "0.5", "--memory", "128", "--auto-heal", scene.name)
    shown = scene.openstack.show(scene.name)
    assert (shown["cpu"], shown["memory"], shown["auto_heal"]) == (0.5, "128", True)
    scene.do("appcontainer set", "--no-auto-heal", scene.name)
    assert scene.openstack.show(scene.name)["auto_heal"] is False
    if scene.minor >= 14:
        scene.do("appcontainer set", "--name", f"{scene.name}-anew", scene.name)
        scene.do("appcontainer set", "--name", scene.name, f"{scene.name}-anew")
    else:
        assert "'name'" in scene.refused("appcontainer set", "--name", "other-name", scene.name)
    assert scene.openstack.status(scene.name) == "Running"


@drives("appcontainer delete")
def _delete(scene: Scene, *_: Any) -> None:
    name = scene.called("delete")
    scene.openstack("create", "--name", name, "busybox", "true")
    scene.openstack.wait(name, "Created")
    scene.do("appcontainer delete", name)
    scene.openstack.wait(name, None)
    for option, since in (("--force", 7), ("--stop", 12)):
        said = scene.refused("appcontainer delete", option, name)
        assert ("could not be found" if scene.minor >= since else f"'{option[2:]}'") in said


@drives("appcontainer stop")
def _stop(scene: Scene, *_: Any) -> None:
    scene.do("appcontainer stop", "--timeout", "5", scene.name)
    scene.openstack.wait(scene.name, "Stopped")
    assert "while it is Stopped" in scene.refused("appcontainer stop", scene.name)
    scene.openstack("start", scene.name)
    scene.openstack.wait(scene.name, "Running")


@drives("appcontainer start")
def _start(scene: Scene, *_: Any) -> None:
    scene.openstack("stop", "--timeout", "5", scene.name)
    scene.openstack.wait(scene.name, "Stopped")
    scene.do("appcontainer start", scene.name)
    scene.openstack.wait(scene.name, "Running")


@drives("appcontainer restart")
def _restart(scene: Scene, *_: Any) -> None:
    before = scene.inside("cat", "/proc/1/stat")
    scene.do("appcontainer restart", "--timeout", "5", scene.name)
    scene.until(lambda: scene.inside("cat", "/proc/1/stat").startswith("1 ") and started(scene) != before)
    scene.openstack.wait(scene.name, "Running")


def started(scene: Scene) -> str:
    return scene.inside("cat", "/proc/1/stat")


@drives("appcontainer pause")
def _pause(scene: Scene, *_: Any) -> None:
    scene.do("appcontainer pause", scene.name)
    scene.openstack.wait(scene.name, "Paused")
    scene.openstack("unpause", scene.name)
    scene.openstack.wait(scene.name, "Running")


@drives("appcontainer unpause")
def _unpause(scene: Scene, *_: Any) -> None:
    scene.openstack("pause", scene.name)
    scene.openstack.wait(scene.name, "Paused")
    scene.do("appcontainer unpause", scene.name)
    scene.openstack.wait(scene.name, "Running")


@drives("appcontainer kill")
def _kill(scene: Scene, *_: Any) -> None:
    scene.do("appcontainer kill", "--signal", "SIGUSR1", scene.name)
    scene.openstack.wait_for_log(scene.name, "caught")
    scene.openstack.wait(scene.name, "Running")


@drives("appcontainer rebuild")
def _rebuild(scene: Scene, *_: Any) -> None:
    scene.openstack("exec", scene.name, "touch", "/scratch")
    scene.do("appcontainer rebuild", scene.name)
    scene.until(lambda: "bin" in (there := scene.inside("ls", "/")) and "scratch" not in there)
    scene.openstack.wait(scene.name, "Running")


@drives("appcontainer logs")
def _logs(scene: Scene, *_: Any) -> None:
    assert "first" in scene.do("appcontainer logs", scene.name)
    assert "first" not in scene.do("appcontainer logs", "--stderr", scene.name)


@drives("appcontainer exec")
def _exec(scene: Scene, *_: Any) -> None:
    assert scene.do("appcontainer exec", scene.name, "echo", "two  words").strip() == "two  words"
    done = scene.call("appcontainer exec", scene.name, "sh", "-c", "exit 3")
    assert done.code == 3


@drives("appcontainer attach")
def _attach(scene: Scene, *_: Any) -> None:
    name = scene.called("attach")
    scene.openstack("create", "--name", name, "--interactive", "busybox", "sh", "-c", "read word; echo got $word")
    scene.openstack.wait(name, "Created")
    scene.openstack("start", name)
    scene.openstack.wait(name, "Running")

    async def at_the_screen() -> None:
        environment = scene.cloud.openrc() | {"PYTHONWARNINGS": "ignore", "TERM": "xterm", "PATH": os.environ["PATH"]}
        program = "from openstackclient.shell import main; raise SystemExit(main())"
        words = ("--os-container-api-version", scene.version, "appcontainer", "attach", name)
        async with Screen(environment, sys.executable, "-c", program, *words) as screen:
            await screen.shows(b"connected to")
            await screen.answers(b"hello\n", b"got hello")
            async with asyncio.timeout(PATIENCE):
                assert await screen.process.wait() == 0, screen.shown

    asyncio.run(at_the_screen())
    assert "interactive" in scene.refused("appcontainer attach", scene.name)


@drives("appcontainer top")
def _top(scene: Scene, *_: Any) -> None:
    done = scene.call("appcontainer top", scene.name)
    assert "%-20s" in ROWS["appcontainer top"].remark
    assert done.code != 0 and "%-20s" in done.out and "unsupported operand" in done.err, done
    assert scene.cloud.get(f"/containers/{scene.name}/top?ps_args=None")["Processes"]


@drives("appcontainer stats")
def _stats(scene: Scene, *_: Any) -> None:
    stats = scene.json("appcontainer stats", scene.name)
    assert (stats["CONTAINER"], len(stats)) == (scene.name, 7)
    assert stats["MEM USAGE(MiB)"] > 0


@drives("appcontainer cp")
def _cp(scene: Scene, folder: Path, *_: Any) -> None:
    letter = folder / "letter"
    letter.write_text("Dear container,\n" * 100)
    scene.do("appcontainer cp", str(letter), f"{scene.name}:/tmp")
    assert scene.inside("wc", "-c", "/tmp/letter").split()[0] == "1600"
    scene.do("appcontainer cp", f"{scene.name}:/tmp/letter", str(folder / "out"))
    assert (folder / "out" / "letter").read_text() == letter.read_text()


@drives("appcontainer commit")
def _commit(scene: Scene, *_: Any) -> None:
    said = scene.do("appcontainer commit", scene.name, f"mine-{scene.mark}:1")
    image = said.strip().rpartition(" ")[2].rstrip(".")
    shown = scene.cloud.get(f"/images/{image}")
    assert (shown["repo"], shown["tag"]) == (f"mine-{scene.mark}", "1")


@drives("appcontainer action list")
def _action_list(scene: Scene, *_: Any) -> None:
    assert "create" in [row["action"] for row in scene.json("appcontainer action list", scene.name)]


@drives("appcontainer action show")
def _action_show(scene: Scene, *_: Any) -> None:
    made = next(row for row in scene.json("appcontainer action list", scene.name) if row["action"] == "create")
    shown = scene.json("appcontainer action show", scene.name, made["request_id"])
    assert shown["action"] == "create" and shown["finish_time"] is not None


# networks


@contextlib.contextmanager
def _network(scene: Scene) -> Iterator[str]:
    """A second network."""
    made = scene.rest.call("POST", "/networks", {"name": f"second-{scene.mark}", "neutron_net_id": str(uuids.uuid4())})
    yield made["name"]
    scene.until(
        lambda: (gone := scene.rest.ask("DELETE", f"/networks/{made['name']}")) is not None and gone.status < 300
    )


def _addresses(scene: Scene) -> int:
    return len([address for address in scene.openstack.show(scene.name)["addresses"].split(", ") if address])


def _links(scene: Scene) -> set[str]:
    return set(scene.inside("ls", "/sys/class/net").split())


@drives("appcontainer network attach")
def _network_attach(scene: Scene, *_: Any) -> None:
    with _network(scene) as network:
        scene.do("appcontainer network attach", "--network", network, scene.name)
        scene.until(lambda: _addresses(scene) == 2 and "eth1" in _links(scene))
        scene.openstack("network", "detach", "--network", network, scene.name)


@drives("appcontainer network detach")
def _network_detach(scene: Scene, *_: Any) -> None:
    with _network(scene) as network:
        scene.openstack("network", "attach", "--network", network, scene.name)
        scene.until(lambda: "eth1" in _links(scene))
        scene.do("appcontainer network detach", "--network", network, scene.name)
        scene.until(lambda: _addresses(scene) == 1 and "eth1" not in _links(scene))
    scene.do("appcontainer network detach", "--network", "default", scene.name)  # even the last one
    scene.until(lambda: _addresses(scene) == 0 and _links(scene) == {"lo"})
    scene.openstack("network", "attach", "--network", "default", scene.name)
    scene.until(lambda: _addresses(scene) == 1 and "default" in scene.inside("ip", "route"))


@drives("appcontainer network list")
def _network_list(scene: Scene, *_: Any) -> None:
    done = scene.call("appcontainer network list", scene.name)
    assert done.code == 0 or done.err.strip() == "Invalid formatter provided.", done
    assert scene.cloud.get(f"/containers/{scene.name}/network_list")["networks"]


@contextlib.contextmanager
def _group(scene: Scene) -> Iterator[tuple[str, str]]:
    """Name and uuid of a security group, which no container is in when it goes."""
    made = scene.rest.call("POST", "/security_groups", {"name": f"group-{scene.mark}"})
    try:
        yield made["name"], made["uuid"]
    finally:
        scene.rest.ask("POST", f"/containers/{scene.name}/remove_security_group?name={made['uuid']}")
        scene.rest.call("DELETE", f"/security_groups/{made['uuid']}")


def _groups(scene: Scene) -> list[str]:
    return list(scene.openstack.show(scene.name)["security_groups"])


@drives("appcontainer add security group")
def _add_security_group(scene: Scene, *_: Any) -> None:
    with _group(scene) as (name, uuid):
        scene.do("appcontainer add security group", scene.name, name)
        assert uuid in _groups(scene)
    said = scene.refused("appcontainer add security group", scene.name, "nobodys")
    assert "Security group nobodys could not be found" in said


@drives("appcontainer remove security group")
def _remove_security_group(scene: Scene, *_: Any) -> None:
    with _group(scene) as (name, uuid):
        scene.rest.call("POST", f"/containers/{scene.name}/add_security_group?name={name}")
        scene.do("appcontainer remove security group", scene.name, name)
        assert uuid not in _groups(scene)


@drives("appcontainer add floating ip")
def _add_floating_ip(scene: Scene, *_: Any) -> None:
    assert ROWS["appcontainer add floating ip"].remark.startswith("Neutron")
    assert scene.refused("appcontainer add floating ip", scene.name, "192.0.2.1")


@drives("appcontainer remove floating ip")
def _remove_floating_ip(scene: Scene, *_: Any) -> None:
    assert ROWS["appcontainer remove floating ip"].remark.startswith("Neutron")
    assert scene.refused("appcontainer remove floating ip", "192.0.2.1")


# images


class Index(http.server.BaseHTTPRequestHandler):
    """What an engine searches: the old index of a registry, which today's registries have no more."""

    def do_GET(self) -> None:
        found = {"num_results": 1, "results": [{"name": "library/found", "star_count": 7, "description": "a find"}]}
        body = json.dumps(found if "search" in self.path else {"standalone": True}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@drives("appcontainer image search")
def _image_search(scene: Scene, *_: Any) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as index:
        threading.Thread(target=index.serve_forever, daemon=True).start()
        rows = scene.json("appcontainer image search", f"127.0.0.1:{index.server_port}/found")
        index.shutdown()
    assert [row["Name"].rpartition("/")[2] for row in rows] == ["found"]
    assert "glance is not set up" in scene.refused("appcontainer image search", "--image-driver", "glance", "found")


def _pulled(scene: Scene, request: pytest.FixtureRequest) -> str:
    """The uuid of an image that a host was made to pull."""
    registry: Registry = request.getfixturevalue("open_registry")
    return str(scene.rest.call("POST", "/images", {"repo": registry.image, "host": scene.host})["uuid"])


@drives("appcontainer image pull")
def _image_pull(scene: Scene, _folder: Path, request: pytest.FixtureRequest) -> None:
    registry: Registry = request.getfixturevalue("open_registry")
    made = scene.json("appcontainer image pull", registry.image, scene.host)
    shown = scene.cloud.get(f"/images/{made['uuid']}")
    assert (f"{shown['repo']}:{shown['tag']}", shown["host"]) == (registry.image, scene.host)


@drives("appcontainer image list")
def _image_list(scene: Scene, _folder: Path, request: pytest.FixtureRequest) -> None:
    assert _pulled(scene, request) in [row["uuid"] for row in scene.json("appcontainer image list")]


@drives("appcontainer image show")
def _image_show(scene: Scene, _folder: Path, request: pytest.FixtureRequest) -> None:
    assert scene.json("appcontainer image show", _pulled(scene, request))["tag"] == "1"


@drives("appcontainer image delete")
def _image_delete(scene: Scene, _folder: Path, request: pytest.FixtureRequest) -> None:
    image = _pulled(scene, request)
    scene.do("appcontainer image delete", image)
    assert image not in [row["uuid"] for row in scene.cloud.get("/images")["images"]]


# hosts and services


@drives("appcontainer host list")
def _host_list(scene: Scene, *_: Any) -> None:
    assert scene.host in [row["hostname"] for row in scene.json("appcontainer host list")]


@drives("appcontainer host show")
def _host_show(scene: Scene, *_: Any) -> None:
    shown = scene.json("appcontainer host show", scene.host)
    assert int(shown["total_containers"]) >= 1
    assert scene.json("appcontainer host show", shown["uuid"])["hostname"] == scene.host


@drives("appcontainer availability zone list")
def _zones(scene: Scene, *_: Any) -> None:
    zones = [row["availability_zone"] for row in scene.json("appcontainer availability zone list")]
    assert _service(scene)["availability_zone"] in zones


def _service(scene: Scene, host: str | None = None) -> Any:
    wanted = host or scene.host
    return next((one for one in scene.cloud.get("/services")["services"] if one["host"] == wanted), None)


@drives("appcontainer service list")
def _service_list(scene: Scene, *_: Any) -> None:
    [row] = [row for row in scene.json("appcontainer service list") if row["Host"] == scene.host]
    assert (row["Binary"], row["State"], row["Disabled"]) == ("zun-compute", "up", False)


@drives("appcontainer service disable")
def _service_disable(scene: Scene, *_: Any) -> None:
    scene.do("appcontainer service disable", "--reason", "to be mended", scene.host, "zun-compute")
    try:
        assert (_service(scene)["disabled"], _service(scene)["disabled_reason"]) == (True, "to be mended")
    finally:
        scene.openstack("service", "enable", scene.host, "zun-compute")


@drives("appcontainer service enable")
def _service_enable(scene: Scene, *_: Any) -> None:
    scene.openstack("service", "disable", "--reason", "to be mended", scene.host, "zun-compute")
    scene.do("appcontainer service enable", scene.host, "zun-compute")
    assert _service(scene)["disabled"] is False


@contextlib.contextmanager
def lost_host(cloud: HigginsUp, rest: Rest, like: str, name: str) -> Iterator[str]:
    """A host that was there once and holds nothing, as the database knows it; else ``like`` another."""
    database = sqlite3.connect(cloud.data / "higgins.db", timeout=60)
    database.row_factory = sqlite3.Row
    with contextlib.closing(database), database:
        row = dict(database.execute("SELECT * FROM host WHERE name = ?", (like,)).fetchone())
        row |= {"name": name, "uuid": str(uuids.uuid4()), "address": None, "containers": 0, "tenant": None}
        del row["id"]
        places = ", ".join(f":{column}" for column in row)
        database.execute(f"INSERT INTO host ({', '.join(row)}) VALUES ({places})", row)
    try:
        yield name
    finally:
        rest.ask("DELETE", f"/services?host={name}&binary=zun-compute")


def _lost_host(scene: Scene) -> contextlib.AbstractContextManager[str]:
    return lost_host(scene.cloud, scene.rest, scene.host, f"lost-{scene.mark}")


@drives("appcontainer service forcedown")
def _service_forcedown(scene: Scene, *_: Any) -> None:
    with _lost_host(scene) as host:
        scene.do("appcontainer service forcedown", host, "zun-compute")
        assert (_service(scene, host)["forced_down"], _service(scene, host)["state"]) == (True, "down")
        scene.do("appcontainer service forcedown", "--unset", host, "zun-compute")
        assert _service(scene, host)["forced_down"] is False


@drives("appcontainer service delete")
def _service_delete(scene: Scene, *_: Any) -> None:
    assert "still holds containers" in scene.refused("appcontainer service delete", scene.host, "zun-compute")
    with _lost_host(scene) as host:
        scene.do("appcontainer service delete", host, "zun-compute")
        assert _service(scene, host) is None


# quotas

LIMITS = {"containers": 7, "memory": 700, "cpu": 7, "disk": 70}
UPDATE = [word for name, limit in LIMITS.items() for word in (f"--{name}", str(limit))]


@drives("appcontainer quota update")
def _quota_update(scene: Scene, *_: Any) -> None:
    assert scene.json("appcontainer quota update", *UPDATE, "somebodys") == LIMITS
    assert scene.cloud.get("/quotas/somebodys") == LIMITS
    scene.openstack("quota", "delete", "somebodys")


@drives("appcontainer quota get")
def _quota_get(scene: Scene, *_: Any) -> None:
    assert set(scene.json("appcontainer quota get", "demo")) == set(LIMITS)
    used = scene.json("appcontainer quota get", "--usages", "demo")
    assert used["containers"]["in_use"] >= 1


@drives("appcontainer quota default")
def _quota_default(scene: Scene, *_: Any) -> None:
    assert scene.json("appcontainer quota default", "demo") == scene.cloud.get("/quotas/demo/defaults")


@drives("appcontainer quota delete")
def _quota_delete(scene: Scene, *_: Any) -> None:
    scene.openstack("quota", "update", *UPDATE, "somebodys")
    scene.do("appcontainer quota delete", "somebodys")
    assert scene.cloud.get("/quotas/somebodys") == scene.cloud.get("/quotas/somebodys/defaults")


@drives("appcontainer quota class get")
def _quota_class_get(scene: Scene, *_: Any) -> None:
    assert scene.json("appcontainer quota class get", "default") == scene.cloud.get("/quota_classes/default")


@drives("appcontainer quota class update")
def _quota_class_update(scene: Scene, *_: Any) -> None:
    assert scene.json("appcontainer quota class update", *UPDATE, "another") == LIMITS
    assert scene.cloud.get("/quota_classes/another") == LIMITS


# registries


@contextlib.contextmanager
def _registry(scene: Scene) -> Iterator[str]:
    made = {"domain": "registry.example", "name": f"registry-{scene.mark}", "username": "u", "password": "p"}
    try:
        yield str(scene.rest.call("POST", "/registries", {"registry": made})["registry"]["uuid"])
    finally:
        for row in scene.cloud.get("/registries")["registries"]:
            scene.rest.call("DELETE", f"/registries/{row['uuid']}")


@drives("appcontainer registry create")
def _registry_create(scene: Scene, *_: Any) -> None:
    with _registry(scene):
        told = ("--name", "new", "--domain", "new.example", "--username", "me", "--password", "secret")
        made = scene.json("appcontainer registry create", *told)
        shown = scene.cloud.get(f"/registries/{made['uuid']}")["registry"]
        assert (shown["domain"], shown["username"], shown["password"]) == ("new.example", "me", "***")


@drives("appcontainer registry list")
def _registry_list(scene: Scene, *_: Any) -> None:
    with _registry(scene) as registry:
        assert registry in [row["uuid"] for row in scene.json("appcontainer registry list")]


@drives("appcontainer registry show")
def _registry_show(scene: Scene, *_: Any) -> None:
    with _registry(scene) as registry:
        shown = scene.json("appcontainer registry show", f"registry-{scene.mark}")
        assert (shown["uuid"], shown["password"]) == (registry, "***")


@drives("appcontainer registry update")
def _registry_update(scene: Scene, *_: Any) -> None:
    with _registry(scene) as registry:
        scene.do("appcontainer registry update", "--domain", "other.example", registry)
        assert scene.cloud.get(f"/registries/{registry}")["registry"]["domain"] == "other.example"


@drives("appcontainer registry delete")
def _registry_delete(scene: Scene, *_: Any) -> None:
    with _registry(scene) as registry:
        scene.do("appcontainer registry delete", registry)
        assert registry not in [row["uuid"] for row in scene.cloud.get("/registries")["registries"]]


# capsules


def capsule_template(name: str) -> dict[str, Any]:
    container = {"image": "busybox", "command": ["sleep", "1000"], "resources": {"requests": {"memory": 32}}}
    return {
        "capsuleVersion": "beta",
        "kind": "capsule",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [container]},
    }


@contextlib.contextmanager
def _capsule(scene: Scene) -> Iterator[str]:
    """The name of a capsule."""
    made = scene.rest.call("POST", "/capsules", {"template": capsule_template(f"capsule-{scene.mark}")})
    try:
        yield str(made["name"])
    finally:
        _gone(scene, made["uuid"])


def _capsule_status(scene: Scene, capsule: str) -> str | None:
    answer = scene.rest.ask("GET", f"/capsules/{capsule}")
    assert answer is not None
    return answer.body["status"] if answer.status == 200 else None


def _gone(scene: Scene, capsule: str) -> None:
    scene.rest.ask("DELETE", f"/capsules/{capsule}")
    scene.until(lambda: _capsule_status(scene, capsule) is None)


@drives("capsule create")
def _capsule_create(scene: Scene, folder: Path, *_: Any) -> None:
    file = folder / "capsule.yaml"
    file.write_text(json.dumps(capsule_template(f"new-{scene.mark}")))  # JSON is YAML
    made = scene.json("capsule create", "--file", str(file))
    scene.until(lambda: _capsule_status(scene, made["uuid"]) == "Running")
    _gone(scene, made["uuid"])


@drives("capsule list")
def _capsule_list(scene: Scene, *_: Any) -> None:
    with _capsule(scene) as name:
        [row] = scene.json("capsule list")
        assert row["name"] == (name if scene.minor >= 32 else "")


@drives("capsule show")
def _capsule_show(scene: Scene, *_: Any) -> None:
    with _capsule(scene) as name:
        shown = scene.json("capsule show", name)
        assert shown["name" if scene.minor >= 32 else "meta_name"] == name
        assert shown["labels" if scene.minor >= 32 else "meta_labels"] == {"app": "web"}
        assert len(shown["containers"]) == 1


@drives("capsule delete")
def _capsule_delete(scene: Scene, *_: Any) -> None:
    with _capsule(scene) as name:
        scene.do("capsule delete", name)
        scene.until(lambda: _capsule_status(scene, name) is None)
