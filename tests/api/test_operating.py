"""What there is beside containers: hosts, services, images, networks, quotas, registries."""

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from higgins.control.cloud import Cloud
from higgins.control.delivery import Depot
from higgins.images.shelf import Shelf
from tests.api.conftest import Caller
from tests.api.host import FakeHost
from tests.images.service import ScriptedImages, archive


@pytest.fixture
def admin(api: Caller) -> Caller:
    return api.by("admin")


async def test_hosts_are_shown_by_uuid_and_by_name(admin: Caller, host: FakeHost) -> None:
    (listed,) = (await admin.get("/v1/hosts")).json["hosts"]
    assert set(listed) == {
        "uuid", "links", "hostname", "mem_total", "mem_used", "total_containers", "cpus", "cpu_used", "architecture",
        "os_type", "os", "kernel_version", "labels", "disk_total", "disk_used", "disk_quota_supported", "runtimes",
        "enable_cpu_pinning",
    }  # fmt: skip
    assert (listed["hostname"], listed["cpus"], listed["runtimes"]) == ("host-1", 64.0, ["runc", "runsc"])
    for ident in ("host-1", listed["uuid"]):
        assert (await admin.get(f"/v1/hosts/{ident}")).json == listed
    assert (await admin.get("/v1/hosts/none")).status == 404
    assert (await admin.at("1.3").get("/v1/hosts")).status == 406
    assert (await admin.at("1.3").get("/v1/hosts/host-1")).status == 406
    assert (await admin.at("1.4").get("/v1/hosts?bogus=1")).status == 200


async def test_hosts_come_in_pages(admin: Caller, host: FakeHost) -> None:
    second = FakeHost(host.cloud, "a-host")
    await second.join()
    page = (await admin.get("/v1/hosts?limit=1")).json
    assert [item["hostname"] for item in page["hosts"]] == ["a-host"]
    rest = (await admin.get("/v1" + page["next"].partition("/v1")[2])).json
    assert [item["hostname"] for item in rest["hosts"]] == ["host-1"]


async def test_availability_zones_are_listed(api: Caller, host: FakeHost) -> None:
    told = {"availability_zones": [{"availability_zone": "nova"}], "next": None}
    assert (await api.get("/v1/availability_zones")).json == told


async def test_a_service_is_disabled_enabled_forced_down_and_forgotten(admin: Caller, host: FakeHost) -> None:
    (row,) = (await admin.get("/v1/services")).json["services"]
    assert set(row) == {
        "id", "host", "binary", "disabled", "disabled_reason", "last_seen_up", "forced_down", "report_count",
        "availability_zone", "created_at", "updated_at", "state",
    }  # fmt: skip
    assert (row["host"], row["binary"], row["state"]) == ("host-1", "zun-compute", "up")
    assert "T" in row["last_seen_up"]
    who = {"host": "host-1", "binary": "zun-compute"}
    off = await admin.call("PUT", "/v1/services/disable", who | {"disabled_reason": "repair"})
    assert off.json == {"service": who | {"disabled": True, "disabled_reason": "repair"}}
    query = "host=host-1&binary=zun-compute"
    assert (await admin.call("PUT", f"/v1/services/enable?{query}")).json["service"]["disabled"] is False
    down = await admin.call("PUT", f"/v1/services/force_down?{query}&forced_down=True")
    assert down.json == {"service": who | {"forced_down": True}}
    assert (await admin.get("/v1/services")).json["services"][0]["state"] == "down"
    assert (await admin.call("PUT", f"/v1/services/force_down?{query}")).status == 400
    assert (await admin.call("PUT", "/v1/services/enable?host=host-1")).status == 400
    assert (await admin.call("PUT", "/v1/services/enable?host=none&binary=zun-compute")).status == 404
    assert (await admin.call("DELETE", f"/v1/services?{query}")).status == 200
    assert (await admin.get("/v1/services")).json == {"services": []}


async def test_quotas_are_changed_shown_with_use_and_set_back(admin: Caller, api: Caller, host: FakeHost) -> None:
    default = (await api.get("/v1/quotas/wonder/defaults")).json
    assert default == {"containers": 40, "memory": 51200, "cpu": 20, "disk": 100}
    changed = await admin.call("PUT", "/v1/quotas/wonder", {"containers": "7", "cpu": -1})
    assert (changed.status, changed.json["containers"], changed.json["cpu"]) == (200, 7, -1)
    again = await admin.call("PUT", "/v1/quotas/wonder?containers=8")
    assert again.json["containers"] == 8
    await api.create(memory=100)
    used = (await api.get("/v1/quotas/wonder?usages=True")).json
    assert used["memory"] == {"limit": 51200, "in_use": 100}
    assert used["containers"] == {"limit": 8, "in_use": 1}
    for word in ("", "?usages=False", "?usages="):
        assert (await api.get(f"/v1/quotas/wonder{word}")).json["containers"] == 8
    for bad in ({"containers": -2}, {"cpu": "x"}, {"gpus": 1}):
        assert (await admin.call("PUT", "/v1/quotas/wonder", bad)).status == 400
    gone = await admin.call("DELETE", "/v1/quotas/wonder")
    assert (gone.status, gone.text) == (200, "null")
    assert (await api.get("/v1/quotas/wonder")).json == default
    by_class = await admin.call("PUT", "/v1/quota_classes/default", {"disk": 7})
    assert by_class.json["disk"] == 7
    assert (await admin.get("/v1/quota_classes/default")).json["disk"] == 7
    assert (await api.get("/v1/quotas/wonder")).json["disk"] == 7


async def test_an_image_is_pulled_listed_shown_and_deleted(admin: Caller, host: FakeHost) -> None:
    made = await admin.post("/v1/images", {"repo": "reg:5000/busybox:1.36", "host": "host-1"})
    assert made.status == 202
    view = made.json
    assert set(view) == {"uuid", "links", "image_id", "repo", "tag", "size", "project_id", "host"}
    assert (view["repo"], view["tag"]) == ("reg:5000/busybox", "1.36")
    assert made.headers["Location"].endswith(f"/v1/images/{view['uuid']}")
    assert (await admin.get("/v1/images/?limit=5")).json == {"images": [view], "next": None}
    assert (await admin.get(f"/v1/images/{view['uuid']}")).json == view
    assert (await admin.get("/v1/images/busybox")).status == 404
    assert (await admin.post("/v1/images", {"repo": "busybox", "host": "none"})).status == 404
    assert "'host'" in (await admin.post("/v1/images", {"repo": "busybox"})).error["title"]
    gone = await admin.call("DELETE", f"/v1/images/{view['uuid']}")
    assert (gone.status, gone.text) == (200, "null")
    assert (await admin.get("/v1/images")).json["images"] == []


async def test_an_image_of_the_image_service_is_pulled_listed_shown_and_deleted(
    cloud: Cloud, admin: Caller, host: FakeHost, tmp_path: Path
) -> None:
    service = ScriptedImages()
    service.good.add("")
    service.put("web:1", archive(b"web"))
    service.put("broken", b"no archive")
    cloud.depot = Depot(service, Shelf(tmp_path))
    wanted = {"repo": "web:1", "host": "host-1"}
    made = await admin.post("/v1/images", wanted | {"image_driver": "glance"})
    assert made.status == 202
    view = made.json
    assert (view["repo"], view["tag"], view["project_id"], view["host"]) == ("web:1", "", "ops", "host-1")
    assert view["image_id"].startswith("sha256:") and int(view["size"]) > 0
    assert (await admin.get("/v1/images")).json["images"] == [view]
    assert (await admin.get(f"/v1/images/{view['uuid']}")).json == view
    # As python-zunclient asks, which names no driver.
    cloud.settings = structs.replace(cloud.settings, image_driver="glance")
    assert (await admin.post("/v1/images", wanted)).json == view
    assert [name for name, _ in service.saved] == ["web:1"]
    assert "has none" in (await admin.post("/v1/images", wanted | {"tag": "2"})).error["title"]
    for name, says in (("nowhere", "no image nowhere"), ("broken", "refused")):
        refused = await admin.post("/v1/images", wanted | {"repo": name})
        assert refused.status >= 400 and says in refused.error["title"], name
    assert (await admin.get("/v1/images")).json["images"] == [view]
    await admin.call("DELETE", f"/v1/images/{view['uuid']}")
    (removed,) = host.removed_images
    assert removed.startswith("glance.invalid/id-web:1:")
    assert (await admin.get("/v1/images")).json["images"] == []


@pytest.mark.parametrize("name", ["busybox", "library/busybox"])
async def test_images_are_searched(api: Caller, host: FakeHost, name: str) -> None:
    found = await api.get(f"/v1/images/{name}/search?image_driver=docker")
    assert [row["name"] for row in found.json] == [name, f"{name}-extra"]
    exact = await api.get(f"/v1/images/{name}/search?exact_match=True&image_driver=None")
    assert [row["name"] for row in exact.json] == [name]
    assert (await api.get(f"/v1/images/{name}/search?exact_match=perhaps")).status == 400


async def test_networks_are_made_listed_and_deleted(admin: Caller, host: FakeHost) -> None:
    made = await admin.post("/v1/networks", {"name": "lan"})
    assert (made.status, made.json["name"]) == (200, "lan")
    assert {"uuid", "name", "project_id", "user_id", "network_id", "neutron_net_id"} <= set(made.json)
    assert "'name'" in (await admin.post("/v1/networks", {})).error["title"]
    assert (await admin.post("/v1/networks", {"name": "lan"})).status == 409
    assert (await admin.at("1.46").get("/v1/networks")).status == 406
    listed = (await admin.at("1.47").get("/v1/networks")).json["networks"]
    assert {item["name"] for item in listed} == {"default", "lan"}
    one = f"/v1/networks/{made.json['uuid']}"
    assert (await admin.at("1.26").call("DELETE", one)).status == 406
    assert (await admin.call("DELETE", one)).status == 204
    assert (await admin.call("DELETE", one)).status == 404


async def test_kept_volumes_are_listed_and_deleted_once_nobody_uses_them(api: Caller, host: FakeHost) -> None:
    mounts = [{"source": "data", "size": "2", "destination": "/data"}, {"size": "1", "destination": "/own"}]
    asked = {"image": "busybox", "name": "web", "mounts": mounts}
    assert (await api.at("1.40").post("/v1/containers?run=true", asked)).status == 202
    newest = api.at("1.48")
    assert (await api.at("1.47").get("/v1/volumes")).status == 406
    (listed,) = (await newest.get("/v1/volumes")).json["volumes"]
    assert (listed["name"], listed["size"]) == ("data", 2)
    refused = await newest.call("DELETE", "/v1/volumes/data")
    assert (refused.status, "in use" in refused.error["detail"]) == (409, True)
    await api.call("DELETE", "/v1/containers/web?stop=true")
    await host.settle()
    other = newest.by("admin")
    assert (await other.get("/v1/volumes")).json["volumes"] == []
    assert len((await other.get("/v1/volumes?all_projects=True")).json["volumes"]) == 1
    assert (await newest.get("/v1/volumes?all_projects=True")).status == 403
    assert (await newest.call("DELETE", f"/v1/volumes/{listed['uuid']}")).status == 204
    assert (await newest.call("DELETE", "/v1/volumes/data")).status == 404
    assert (await newest.get("/v1/volumes")).json["volumes"] == []


async def test_a_registry_is_kept_with_its_password_untold(api: Caller, host: FakeHost) -> None:
    asked: dict[str, Any] = {"domain": "reg.example:5000", "name": "mine", "username": "me", "password": "hunter2"}
    made = await api.post("/v1/registries", {"registry": asked})
    assert made.status == 201
    view = made.json["registry"]
    assert made.headers["Location"].endswith(f"/v1/registries/{view['uuid']}")
    assert (view["password"], view["username"], view["domain"]) == ("***", "me", "reg.example:5000")
    assert "links" in view
    (listed,) = (await api.get("/v1/registries?name=mine")).json["registries"]
    assert "links" not in listed
    assert listed["uuid"] == view["uuid"]
    assert (await api.get("/v1/registries?domain=other")).json["registries"] == []
    assert (await api.get("/v1/registries?foo=1")).status == 400
    assert (await api.get("/v1/registries?all_projects=1")).status == 403
    assert len((await api.by("admin").get("/v1/registries?all_projects=1")).json["registries"]) == 1
    for ident in ("mine", view["uuid"]):
        assert (await api.get(f"/v1/registries/{ident}?all_projects=False")).json["registry"]["uuid"] == view["uuid"]
    assert (await api.by("bob").get(f"/v1/registries/{view['uuid']}")).status == 404
    changed = await api.call("PATCH", "/v1/registries/mine", {"registry": {"name": "ours", "password": None}})
    assert (changed.json["registry"]["name"], changed.json["registry"]["password"]) == ("ours", None)
    made_with = await api.post("/v1/containers", {"image": "busybox", "registry": "ours"})
    assert made_with.json["registry_id"] == view["uuid"]
    assert (await api.call("DELETE", f"/v1/registries/{view['uuid']}")).status == 409
    await api.call("DELETE", f"/v1/containers/{made_with.json['uuid']}?stop=true")
    await host.settle()
    assert (await api.call("DELETE", f"/v1/registries/{view['uuid']}")).status == 204
    assert "hunter2" not in made.text + changed.text


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "registry"),
        ({"registry": {}}, "registry.domain"),
        ({"registry": {"domain": ""}}, "registry.domain"),
        ({"registry": {"domain": "x y"}}, "registry.domain"),
        ({"registry": {"domain": "x", "name": "a"}}, "registry.name"),
        ({"registry": {"domain": "x", "token": "a"}}, "registry.token"),
        ({"registry": "x"}, "registry"),
        ({"domain": "x"}, "domain"),
    ],
)
async def test_a_bad_registry_is_refused_by_the_field(api: Caller, body: dict[str, Any], field: str) -> None:
    answer = await api.post("/v1/registries", body)
    assert (answer.status, field in answer.error["title"]) == (400, True), answer.text
