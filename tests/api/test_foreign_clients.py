"""Clients that are not python-zunclient's commands: what they send, in their order, and what they make of the answers.

Heat's ``OS::Zun::Container``, Horizon's panels, gophercloud and virtual-kubelet's provider, as their sources have it.
"""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from zunclient import api_versions
from zunclient.v1 import client as zun_client

from tests.api import go
from tests.api.conftest import Caller, Opener
from tests.api.host import FakeHost
from tests.api.test_identity import log_in, login


@pytest.fixture
def database(sqlite: Path, tmp_path: Path) -> str:
    """One kind of store is enough here: what is on trial is what clients make of answers."""
    shutil.copy(sqlite, tmp_path / "higgins.db")
    return f"sqlite:///{tmp_path}/higgins.db"


# Heat: 1.12, except where a property needs a later version


def heat_says(container: dict[str, Any]) -> str:
    """What Heat makes of a container that it waits for: wait, done or failed."""
    status = container["status"]
    if status in ("Creating", "Created"):
        return "wait"
    if status == "Stopped":
        return "failed" if container["interactive"] else "done"
    return "done" if status == "Running" else "failed"


HEAT_BODY: dict[str, Any] = {
    "name": "stack-box", "image": "busybox", "command": '"sh" "-c" "sleep 9"', "cpu": 0.5, "memory": 64,
    "environment": {"A": "b"}, "labels": {"stack": "s"}, "image_driver": "docker", "hints": {}, "security_groups": [],
    "hostname": "box", "restart_policy": {"Name": "on-failure", "MaximumRetryCount": "3"},
    "mounts": [{"destination": "/data", "size": 1}], "workdir": "/srv",
}  # fmt: skip


async def heat_makes(api: Caller, **more: Any) -> str:
    made = await api.at("1.12").post("/v1/containers?run=true", HEAT_BODY | more)
    assert made.status == 202, made.text
    return f"/v1/containers/{made.json['uuid']}"


async def test_heat_makes_a_container_and_waits_until_it_runs(api: Caller, host: FakeHost) -> None:
    one = await heat_makes(api)
    old = api.at("1.12")
    assert heat_says((await old.get(one)).json) == "wait"
    await host.settle()
    shown = (await old.get(one)).json
    assert heat_says(shown) == "done"
    assert shown["command"] == ["sh", "-c", "sleep 9"]
    ports = [(network, port["port"], port["addr"]) for network, of in shown["addresses"].items() for port in of]
    assert ports and all(all(part) for part in ports)  # the attribute ``addresses``, by network


@pytest.mark.parametrize(
    "state, error, interactive, outcome",
    [
        ("exited", "", False, "done"),
        ("exited", "", True, "failed"),
        ("error", "There is no such image.", False, "failed"),
    ],
)
async def test_heat_tells_an_end_from_a_failure(
    api: Caller, host: FakeHost, state: str, error: str, interactive: bool, outcome: str
) -> None:
    one = await heat_makes(api, interactive=interactive)
    await host.report(state, error=error)
    shown = (await api.at("1.12").get(one)).json
    assert heat_says(shown) == outcome, shown
    assert error in (shown["status_reason"] or "")


async def test_heat_updates_and_changes_networks_at_1_18(api: Caller, host: FakeHost) -> None:
    one = await heat_makes(api)
    await host.settle()
    new = api.at("1.18")
    changed = await new.call("PATCH", one, {"cpu": 1, "memory": 128, "name": "renamed"})
    assert (changed.status, changed.json["name"], changed.json["memory"]) == (200, "renamed", "128")
    body = {"name": "second", "neutron_net_id": "5f1b1cf9-1f0a-4e8f-b4d9-3e1a0e1d7f11"}
    assert (await api.by("admin").post("/v1/networks", body)).status == 200
    before = (await new.get(f"{one}/network_list")).json["networks"]
    assert [set(entry) for entry in before] == [{"net_id", "port_id", "fixed_ips"}]
    detached = await new.post(f"{one}/network_detach?port={before[0]['port_id']}")
    assert detached.status == 202
    await host.settle()
    assert (await new.get(f"{one}/network_list")).json["networks"] == []
    attached = await new.post(f"{one}/network_attach?network=default")
    assert attached.status in (200, 202)
    await host.settle()
    assert len((await new.get(f"{one}/network_list")).json["networks"]) == 1


async def test_heat_deletes_and_waits_for_not_found(api: Caller, host: FakeHost) -> None:
    one = await heat_makes(api)
    await host.settle()
    old = api.at("1.12")
    assert (await old.call("DELETE", f"{one}?stop=True")).status == 204
    assert (await old.get(one)).status in (200, 404)
    await host.settle()
    assert (await old.get(one)).status == 404
    assert (await old.call("DELETE", f"{one}?stop=True")).status == 404


async def test_heat_asks_for_a_terminal_at_1_36(api: Caller, host: FakeHost) -> None:
    body = HEAT_BODY | {"command": ["sh"], "interactive": True, "tty": True}
    made = await api.at("1.36").post("/v1/containers?run=true", body)
    assert (made.status, made.json["tty"]) == (202, True)


# Horizon: zun-ui has python-zunclient, a token of the user and the endpoint of the catalog


Horizon = Callable[[Callable[[Any], Any]], Awaitable[Any]]


@pytest.fixture
async def horizon(api: Caller) -> Horizon:
    endpoint = str(api.client.make_url("/v1"))
    token = (await log_in(api, login("admin", "admin"))).headers["X-Subject-Token"]

    async def asked(work: Callable[[Any], Any]) -> Any:
        def run() -> Any:
            who = {"username": "admin", "project_id": "ops", "auth_token": token, "endpoint_override": endpoint}
            first = zun_client.Client(api_version=api_versions.APIVersion("1.1"), **who)
            agreed = api_versions.discover_version(first, api_versions.APIVersion("1.latest"))
            client = zun_client.Client(api_version=agreed, **who)
            try:
                return work(client)
            finally:
                for opened in (first, client):
                    opened.http_client.session.session.close()

        return await asyncio.to_thread(run)

    return asked


def with_id(item: Any) -> dict[str, Any]:
    """How Horizon names it."""
    told: dict[str, Any] = item.to_dict()
    told["id"] = told.pop("uuid")
    return told


async def test_horizon_makes_shows_and_changes_a_container(horizon: Horizon, host: FakeHost) -> None:
    form = {
        "name": "panel", "image": "busybox", "image_driver": "docker", "command": ["sleep", "9"], "cpu": 0.5,
        "memory": 64, "interactive": True, "auto_remove": False, "mounts": [], "nets": [], "security_groups": [],
        "hints": {}, "restart_policy": {"Name": "on-failure", "MaximumRetryCount": "0"}, "labels": {"a": "b"},
    }  # fmt: skip
    made = await horizon(lambda client: client.containers.run(**form))
    await host.settle()
    (listed,) = [with_id(item) for item in await horizon(lambda client: client.containers.list(None, None, None, None))]
    shown = await horizon(lambda client: with_id(client.containers.get(made.uuid)))
    assert shown["id"] == listed["id"] == made.uuid
    assert shown["restart_policy"]["Name"] == "on-failure" and shown["image_driver"] == "docker"
    assert int(shown["memory"].replace("M", "")) == 64
    await horizon(lambda client: client.containers.update(made.uuid, name="other", memory=128))
    assert (await horizon(lambda client: client.containers.get(made.uuid))).memory == "128"


async def test_horizon_does_every_action_of_its_menus(horizon: Horizon, host: FakeHost) -> None:
    made = await horizon(lambda client: client.containers.run(image="busybox", name="menu", interactive=True))
    await host.settle()
    one = made.uuid
    for action in (
        lambda client: client.containers.stop(one, 10),
        lambda client: client.containers.start(one),
        lambda client: client.containers.restart(one, 10),
        lambda client: client.containers.pause(one),
        lambda client: client.containers.unpause(one),
        lambda client: client.containers.rebuild(one, image="busybox", image_driver="docker"),
        lambda client: client.containers.resize(one, 500, 400),
    ):
        await horizon(action)
        await host.settle()
    assert "first" in await horizon(lambda client: client.containers.logs(one, stdout=True, stderr=True))
    done = await horizon(lambda client: client.containers.execute(one, command="ls -l"))
    assert {"output", "exit_code"} <= set(done)
    assert (await horizon(lambda client: client.containers.attach(one))).startswith("ws")
    await horizon(lambda client: client.containers.kill(one, None))
    await host.settle()
    await horizon(lambda client: client.containers.delete(id=one, force=True))
    await host.settle()
    assert await horizon(lambda client: client.containers.list()) == []


async def test_horizon_has_its_other_panels(horizon: Horizon, host: FakeHost) -> None:
    assert [zone.to_dict() for zone in await horizon(lambda client: client.availability_zones.list())] == [
        {"availability_zone": "nova"}
    ]
    (listed,) = await horizon(lambda client: client.hosts.list(None, None, None, None))
    assert with_id(await horizon(lambda client: client.hosts.get(listed.uuid)))["hostname"] == "host-1"
    image = await horizon(lambda client: client.images.create(repo="busybox", host="host-1"))
    assert [with_id(item)["id"] for item in await horizon(lambda client: client.images.list())] == [image.uuid]
    await horizon(lambda client: client.images.delete(image.uuid))
    template = {"kind": "capsule", "metadata": {"name": "pod"}, "spec": {"containers": [{"image": "busybox"}]}}
    made = await horizon(lambda client: client.capsules.create(template=template))
    assert [item.to_dict()["uuid"] for item in await horizon(lambda client: client.capsules.list())] == [made.uuid]
    assert with_id(await horizon(lambda client: client.capsules.get(made.uuid)))["id"] == made.uuid
    await horizon(lambda client: client.capsules.delete(id=made.uuid))


# gophercloud: the template is text, and every field has a type


TEMPLATE = {
    "capsuleVersion": "beta",
    "kind": "capsule",
    "metadata": {"name": "pod", "labels": {"app": "web"}},
    "spec": {
        "restartPolicy": "Always",
        "containers": [
            {
                "image": "busybox",
                "command": ["sleep", "9"],
                "env": {"A": "b"},
                "workDir": "/srv",
                "ports": [{"containerPort": 80}],
                "resources": {"requests": {"cpu": 1, "memory": 64}},
            }
        ],
    },
}


async def with_token(api: Caller, version: str | None, user: str = "alice") -> Caller:
    """gophercloud logs in first; without a microversion of the caller's it sends none."""
    token = (
        await log_in(api, login(user, user, {"project": {"name": "wonder", "domain": {"name": "Default"}}}))
    ).headers
    caller = Caller(api.client, None, version and f"container {version}")
    headers = caller.headers()
    caller.headers = lambda: headers | {"X-Auth-Token": token["X-Subject-Token"]}  # type: ignore[method-assign]
    return caller


@pytest.mark.parametrize("version, newer", [(None, False), ("1.31", False), ("1.32", True), ("1.40", True)])
async def test_gophercloud_decodes_a_capsule_in_every_stage_of_its_life(
    api: Caller, host: FakeHost, version: str | None, newer: bool
) -> None:
    gopher = await with_token(api, version)
    made = await gopher.post("/v1/capsules", {"template": json.dumps(TEMPLATE, indent=2)})
    assert made.status == 202, made.text
    one = f"/v1/capsules/{made.json['uuid']}"
    decoded, is_newer = go.capsule(made.json)
    assert (decoded["uuid"], is_newer) == (made.json["uuid"], newer)
    await host.settle()
    got = await gopher.get(one)
    assert got.status in (200, 203)
    decoded, is_newer = go.capsule(got.json)
    assert is_newer is newer
    assert (decoded["status"], decoded["cpu"], decoded["memory"]) == ("Running", 1, "64")
    assert decoded["created_at"] is not None
    (container,) = decoded["containers"]
    assert (container["command"], container["ports"]) == (["sleep", "9"], [80])
    assert [address["version"] for of in decoded["addresses"].values() for address in of] == [4]
    assert decoded["labels" if newer else "meta_labels"] == {"app": "web"}
    assert (await gopher.call("DELETE", one)).status in (202, 204)


async def test_gophercloud_follows_pages_of_capsules(api: Caller, host: FakeHost) -> None:
    gopher = await with_token(api, "1.32")
    for number in range(3):
        body = {"template": json.dumps(TEMPLATE | {"metadata": {"name": f"pod{number}"}})}
        assert (await gopher.post("/v1/capsules", body)).status == 202
    found, following = [], "/v1/capsules?limit=2&sort_dir=asc&sort_key=id"
    while following:  # until a page is empty or names none after it
        page = (await gopher.get(following)).json
        if not page["capsules"]:
            break
        found += [go.CAPSULE_132(item)["name"] for item in page["capsules"]]
        following = (page["next"] or "").removeprefix(str(api.client.make_url("/")).rstrip("/"))
    assert found == ["pod0", "pod1", "pod2"]


async def test_gophercloud_decodes_what_an_administrator_is_shown(api: Caller, host: FakeHost) -> None:
    await (await with_token(api, "1.40")).post("/v1/capsules", {"template": json.dumps(TEMPLATE)})
    await host.report("error", error="There is no such image.")
    (item,) = (await api.by("admin").get("/v1/capsules?all_projects=true")).json["capsules"]
    decoded, _ = go.capsule(item)
    assert (decoded["host"], decoded["status"]) == ("host-1", "Error")


# virtual-kubelet: a pod as a capsule at 1.32, named after namespace and pod


POD = {
    "spec": {"containers": [{
        "image": "busybox", "command": ["sleep", "9"], "workDir": "/srv", "env": {"A": "b"}, "resources": {},
        "imagePullPolicy": "IfNotPresent",
    }]},
    "kind": "capsule",
    "metadata": {
        "labels": {
            "PodName": "web", "ClusterName": "", "NodeName": "zun-node", "Namespace": "default",
            "UID": "3c6ee1e1-97b5-4b5c-90b9-6d5e4d0b8d1d", "CreationTimestamp": "2026-11-28 00:00:00 +0000 UTC",
        },
        "name": "default-web",
    },
}  # fmt: skip

#: The phase of a pod by the status of its capsule; anything else is Unknown.
PHASES = {"Running": "Running", "Stopped": "Succeeded", "Error": "Failed", "Creating": "Pending", "Deleting": "Pending"}


@pytest.mark.parametrize("resources", [{}, {"requests": {"cpu": 0.25, "memory": 524.288}}])
async def test_virtual_kubelet_runs_a_pod_and_waits_for_its_end(
    api: Caller, host: FakeHost, resources: dict[str, Any]
) -> None:
    kubelet = await with_token(api, "1.32")
    pod = json.loads(json.dumps(POD))
    pod["spec"]["containers"][0]["resources"] = resources
    made = await kubelet.post("/v1/capsules", {"template": json.dumps(pod, indent=2)})
    assert made.status == 202, made.text

    async def phase() -> str:
        shown = go.CAPSULE_132((await kubelet.get("/v1/capsules/default-web")).json)
        assert shown["labels"]["NodeName"] == "zun-node"
        return PHASES.get(shown["status"], "Unknown")

    assert await phase() == "Pending"
    await host.settle()
    assert await phase() == "Running"
    (listed,) = (await kubelet.get("/v1/capsules")).json["capsules"]
    pod_shown = go.CAPSULE_132(listed)
    assert [address["addr"] for of in pod_shown["addresses"].values() for address in of if address["version"] == 4]
    assert [int(container["memory"]) for container in pod_shown["containers"]] == [524 if resources else 512]
    assert pod_shown["containers"][0]["status"] == "Running"
    assert (await kubelet.call("DELETE", "/v1/capsules/default-web")).status in (202, 204)
    assert await phase() == "Pending"
    await host.settle()
    assert (await kubelet.get("/v1/capsules/default-web")).status == 404


@pytest.mark.parametrize("state, phase", [("exited", "Succeeded"), ("error", "Failed"), ("created", "Pending")])
async def test_virtual_kubelet_maps_what_becomes_of_a_pod(api: Caller, host: FakeHost, state: str, phase: str) -> None:
    kubelet = await with_token(api, "1.32")
    await kubelet.post("/v1/capsules", {"template": json.dumps(POD)})
    await host.report(state, error="It cannot start." if state == "error" else "")
    shown = go.CAPSULE_132((await kubelet.get("/v1/capsules/default-web")).json)
    assert PHASES.get(shown["status"], "Unknown") == phase, shown


async def test_a_full_quota_is_told_with_its_own_code(serve: Opener, host: FakeHost) -> None:
    api = await serve()
    await api.by("admin").call("PUT", "/v1/quotas/wonder", {"containers": 0})
    refused = await api.at("1.12").post("/v1/containers?run=true", HEAT_BODY)
    assert (refused.status, refused.code) == (403, "container.over-quota")  # as Zun; Heat shows the sentence
    assert "containers" in refused.error["title"]
