"""Containers: create, show, list, change, delete."""

import asyncio
import re
from typing import Any

import pytest

from tests.api.conftest import Caller
from tests.api.host import FakeHost

#: What a view has (section 1.9 of the reference), whoever looks.
KEYS = {
    "uuid", "name", "project_id", "user_id", "image", "image_driver", "cpu", "cpu_policy", "memory", "disk", "command",
    "entrypoint", "status", "status_reason", "status_detail", "task_state", "environment", "labels", "workdir",
    "hostname", "auto_remove", "auto_heal", "interactive", "tty", "ports", "addresses", "restart_policy",
    "security_groups", "healthcheck", "registry_id", "created_at", "updated_at", "started_at",
}  # fmt: skip
GUARDED = {"host", "image_pull_policy", "privileged", "runtime"}


async def test_a_container_is_created_listed_shown_and_deleted(api: Caller, host: FakeHost) -> None:
    made = await api.post("/v1/containers?run=true", {"image": "busybox", "name": "web", "command": ["sleep", "9"]})
    assert made.status == 202
    uuid = made.json["uuid"]
    assert made.headers["Location"].endswith(f"/v1/containers/{uuid}")
    assert (made.json["status"], made.json["memory"], made.json["cpu"]) == ("Creating", "512", 1.0)
    await host.settle()
    shown = await api.get("/v1/containers/web")
    assert (shown.status, shown.json["status"], shown.json["uuid"]) == (200, "Running", uuid)
    assert [link["rel"] for link in shown.json["links"]] == ["self", "bookmark"]
    listed = await api.get("/v1/containers")
    assert [item["uuid"] for item in listed.json["containers"]] == [uuid]
    assert listed.json["next"] is None
    assert "links" not in listed.json["containers"][0]
    gone = await api.call("DELETE", f"/v1/containers/{uuid}?force=False&stop=True&all_projects=False")
    assert (gone.status, gone.text) == (204, "")
    await host.settle()
    assert (await api.get(f"/v1/containers/{uuid}")).code == "container.container-not-found"


async def test_everything_asked_for_is_shown_again(api: Caller, host: FakeHost) -> None:
    asked: dict[str, Any] = {
        "image": "busybox:1.36", "name": "all-of-it", "command": ["sh", "-c", "sleep 5"], "cpu": "1.5",
        "memory": "128", "disk": 5, "workdir": "/srv", "environment": {"A": "b"}, "labels": {"app": "web"},
        "restart_policy": {"Name": "on-failure", "MaximumRetryCount": "2"}, "interactive": True, "tty": "false",
        "auto_remove": "False", "auto_heal": True, "hostname": "web-1", "healthcheck":
        {"cmd": "true", "interval": 5, "retries": 2, "timeout": 1}, "exposed_ports": {"80/tcp": {}, "53/udp": None},
        "cpu_policy": "shared", "entrypoint": ["/entry", "x"], "image_driver": "docker", "hints": {},
        "availability_zone": "nova", "nets": [], "mounts": [], "security_groups": [],
    }  # fmt: skip
    made = await api.post("/v1/containers", asked)
    assert made.status == 202, made.text
    view = (await api.get(f"/v1/containers/{made.json['uuid']}")).json
    assert set(view) == KEYS | {"links"}
    assert view["memory"] == "128"
    assert view["cpu"] == 1.5
    assert view["disk"] == 5
    assert view["restart_policy"] == {"Name": "on-failure", "MaximumRetryCount": "2"}
    assert view["healthcheck"] == {"test": "true", "interval": 5, "retries": 2, "timeout": 1}
    assert view["ports"] == [80, 53]
    assert view["tty"] is False
    same = ("name", "command", "workdir", "environment", "labels", "interactive", "auto_heal", "hostname", "entrypoint")
    assert {name: view[name] for name in same} == {name: asked[name] for name in same}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", view["created_at"])
    ((addresses,),) = view["addresses"].values()
    assert set(addresses) == {"addr", "version", "port", "subnet_id", "preserve_on_delete"}


async def test_only_those_whom_the_policy_lets_see_the_guarded_attributes(api: Caller, host: FakeHost) -> None:
    uuid = (await api.create())["uuid"]
    assert set((await api.get(f"/v1/containers/{uuid}")).json) == KEYS | {"links"}
    assert set((await api.by("admin").get(f"/v1/containers/{uuid}")).json) == KEYS | GUARDED | {"links"}
    listed = (await api.by("admin").get("/v1/containers?all_projects=1")).json["containers"]
    assert [set(item) for item in listed] == [KEYS | GUARDED]


async def test_a_name_is_made_where_none_is_given(api: Caller, host: FakeHost) -> None:
    assert re.fullmatch(r"[a-z]+-\d+-container", (await api.create())["name"])
    assert re.fullmatch(r"[a-z]+-\d+-container", (await api.create(name=None))["name"])


async def test_a_created_container_does_not_run_unless_asked(api: Caller, host: FakeHost) -> None:
    for run, status in (("", "Created"), ("?run=false", "Created"), ("?run=YES", "Running"), ("?run=1", "Running")):
        made = await api.post(f"/v1/containers{run}", {"image": "busybox"})
        await host.settle()
        assert (await api.get(f"/v1/containers/{made.json['uuid']}")).json["status"] == status


async def test_without_a_host_a_container_is_answered_and_tells_why_it_failed(api: Caller) -> None:
    made = await api.post("/v1/containers", {"image": "busybox"})
    assert (made.status, made.json["status"]) == (202, "Error")
    assert "not enough hosts" in made.json["status_reason"]


async def test_names_that_two_bear_are_ambiguous(api: Caller, host: FakeHost) -> None:
    for _ in range(2):
        await api.create(name="twin")
    assert (await api.get("/v1/containers/twin")).status == 409


async def test_what_belongs_to_another_project_is_not_found(api: Caller, host: FakeHost) -> None:
    made = await api.create(name="mine")
    other = api.by("bob")
    for ident in (made["uuid"], "mine"):
        assert (await other.get(f"/v1/containers/{ident}")).status == 404
        assert (await other.call("DELETE", f"/v1/containers/{ident}?stop=true")).status == 404
        assert (await other.post(f"/v1/containers/{ident}/stop")).status == 404
        assert (await other.call("PATCH", f"/v1/containers/{ident}", {"name": "yours"})).status == 404
    assert (await other.get("/v1/containers")).json["containers"] == []
    assert (await api.by("admin").get(f"/v1/containers/{made['uuid']}")).status == 200


async def test_all_projects_are_for_those_whom_the_policy_lets(api: Caller, host: FakeHost) -> None:
    await api.create()
    await api.by("bob").create()
    assert len((await api.get("/v1/containers?all_projects=False")).json["containers"]) == 1
    assert (await api.get("/v1/containers?all_projects=True")).code == "container.policy-not-authorized"
    assert len((await api.by("admin").get("/v1/containers?all_projects=t")).json["containers"]) == 2
    assert len((await api.by("sam").get("/v1/containers?all_projects=yes")).json["containers"]) == 2
    assert (await api.by("admin").get("/v1/containers?all_projects=maybe")).status == 400
    uuid = (await api.create())["uuid"]
    assert (await api.by("sam").get(f"/v1/containers/{uuid}?all_projects=True")).status == 200
    assert (await api.by("sam").get(f"/v1/containers/{uuid}")).status == 404
    assert (await api.by("bob").get(f"/v1/containers/{uuid}?all_projects=True")).status == 403


@pytest.mark.parametrize(
    "filters, names",
    [
        ("name=one", ["one"]),
        ("image=busybox", ["one", "two"]),
        ("image=nothing", []),
        ("memory=512", ["two"]),
        ("status=Running", ["one", "two"]),
        ("status=Error", []),
        ("auto_remove=True", ["two"]),
        ("auto_remove=False", ["one"]),
        ("project_id=wonder", ["one", "two"]),
        ("project_id=build", []),
        ("user_id=alice&name=two", ["two"]),
        ("task_state=container_creating", []),
    ],
)
async def test_a_list_is_filtered_exactly(api: Caller, host: FakeHost, filters: str, names: list[str]) -> None:
    await api.create(name="one", memory=64)
    await api.create(name="two", auto_remove=True)
    await host.settle()
    listed = await api.get(f"/v1/containers?{filters}")
    assert [item["name"] for item in listed.json["containers"]] == names, listed.text


async def test_filtering_by_host_needs_the_right_to_see_hosts(api: Caller, host: FakeHost) -> None:
    await api.create()
    refused = await api.get("/v1/containers?host=host-1")
    assert (refused.status, "container:get_one:host" in refused.error["title"]) == (403, True)
    listed = await api.by("admin").get("/v1/containers?host=host-1&all_projects=1")
    assert len(listed.json["containers"]) == 1


async def test_unknown_parameters_of_a_list_are_named(api: Caller) -> None:
    answer = await api.get("/v1/containers?foo=1")
    assert (answer.status, answer.error["title"]) == (400, "Unknown parameters: foo")


@pytest.mark.parametrize("field, value", [("limit", "0"), ("limit", "x"), ("limit", "-1"), ("sort_dir", "up")])
async def test_bad_pages_are_refused(api: Caller, field: str, value: str) -> None:
    answer = await api.get(f"/v1/containers?{field}={value}")
    assert answer.status == 400
    assert field in answer.error["title"]


async def test_an_unknown_sort_key_and_an_unknown_marker_are_told_apart(api: Caller) -> None:
    assert (await api.get("/v1/containers?sort_key=colour")).code == "container.invalid-parameter-value"
    assert (await api.get("/v1/containers?marker=0a0a0a0a-0000-0000-0000-000000000000")).status == 404


async def test_pages_follow_one_another_and_keep_what_was_asked(api: Caller, host: FakeHost) -> None:
    for number in range(4):
        await api.create(name=f"c{number}", memory=64)
    await api.create(name="other")
    names: list[str] = []
    path: str | None = "/v1/containers/?limit=2&sort_key=name&sort_dir=desc&memory=64"
    pages = 0
    while path:
        page = (await api.get(path)).json
        names += [item["name"] for item in page["containers"]]
        pages += 1
        assert page["next"] is None or "/v1/containers?" in page["next"]
        path = page["next"] and page["next"].split("//", 1)[1].partition("/v1")[2]  # as the real client does it
    assert names == ["c3", "c2", "c1", "c0"]
    assert pages == 3  # a page that is just full is followed by an empty one


async def test_a_list_of_a_hundred_takes_as_many_statements_as_one_of_ten(
    api: Caller, host: FakeHost, statements: list[str]
) -> None:
    await api.by("admin").call("PUT", "/v1/quotas/wonder", {"containers": -1, "cpu": -1, "memory": -1})
    counts = []
    for wanted in (10, 100):
        have = len((await api.get("/v1/containers")).json["containers"])
        await asyncio.gather(*(api.create(cpu=0.1, memory=4) for _ in range(wanted - have)))
        statements.clear()
        listed = await api.get("/v1/containers")
        counts.append(len(statements))
        assert len(listed.json["containers"]) == wanted
    assert counts[0] == counts[1] <= 2


async def test_a_container_is_changed_in_place(api: Caller, host: FakeHost) -> None:
    uuid = (await api.create(name="old"))["uuid"]
    await host.settle()
    changed = await api.call("PATCH", f"/v1/containers/{uuid}", {"name": "new", "cpu": 2, "memory": "256"})
    assert (changed.status, changed.json["name"], changed.json["cpu"]) == (200, "new", 2.0)
    assert changed.json["memory"] == "256"
    assert (await api.call("PATCH", f"/v1/containers/{uuid}", {"auto_heal": "true"})).json["auto_heal"] is True
    resized = await api.post(f"/v1/containers/{uuid}/resize_container", {"cpu": 0.5})
    assert (resized.status, resized.json["cpu"]) == (202, 0.5)
    for field, value in (("cpu", 99), ("memory", 2), ("image", "x"), ("name", "-")):
        refused = await api.call("PATCH", f"/v1/containers/{uuid}", {field: value})
        assert refused.status == 400
        assert field in refused.error["title"]


async def test_quotas_refuse_with_the_resource_named(api: Caller, host: FakeHost) -> None:
    await api.by("admin").call("PUT", "/v1/quotas/wonder", {"cpu": 1})
    uuid = (await api.create())["uuid"]
    refused = await api.post("/v1/containers", {"image": "busybox"})
    assert (refused.status, refused.code) == (403, "container.over-quota")
    assert refused.error["title"] == "Quota exceeded for resources: ['cpu']"
    await host.settle()
    assert (await api.call("PATCH", f"/v1/containers/{uuid}", {"cpu": 2})).code == "container.over-quota"


async def test_a_running_container_is_deleted_only_with_stop_or_force(api: Caller, host: FakeHost) -> None:
    uuid = (await api.create())["uuid"]
    await host.settle()
    refused = await api.call("DELETE", f"/v1/containers/{uuid}")
    assert (refused.status, refused.code) == (409, "container.invalid-state-exception")
    assert uuid in refused.error["title"]
    forced = await api.call("DELETE", f"/v1/containers/{uuid}?force=true")
    assert (forced.status, "container:delete_force" in forced.error["title"]) == (403, True)
    assert (await api.call("DELETE", f"/v1/containers/{uuid}?bogus=1")).status == 400
    assert (await api.by("mandy").call("DELETE", f"/v1/containers/{uuid}?force=true")).status == 204
    # Twice is once.
    assert (await api.call("DELETE", f"/v1/containers/{uuid}?stop=True")).status == 204


async def test_the_same_idempotency_key_makes_one_container(api: Caller, host: FakeHost) -> None:
    new = api.at("1.43")
    key = {"Idempotency-Key": "abc-1"}
    first = await new.post("/v1/containers", {"image": "busybox"}, headers=key)
    again = await new.post("/v1/containers", {"image": "busybox"}, headers=key)
    assert (first.status, again.status) == (202, 202)
    assert first.json["uuid"] == again.json["uuid"]
    other = await new.post("/v1/containers", {"image": "another"}, headers=key)
    assert other.status == 409
    elsewhere = await new.by("bob").post("/v1/containers", {"image": "busybox"}, headers=key)
    assert elsewhere.json["uuid"] != first.json["uuid"]
    bad = await new.post("/v1/containers", {"image": "busybox"}, headers={"Idempotency-Key": "x" * 256})
    assert (bad.status, "Idempotency-Key" in bad.error["title"]) == (400, True)
    old = await api.at("1.42").post("/v1/containers", {"image": "busybox"}, headers=key)
    assert old.json["uuid"] != first.json["uuid"]


async def test_a_dry_run_tells_the_host_and_makes_nothing(api: Caller, host: FakeHost) -> None:
    told = await api.at("1.45").post("/v1/containers?dry_run=true", {"image": "busybox"})
    assert (told.status, told.json["host"]) == (200, "host-1")
    nowhere = await api.at("1.45").post("/v1/containers?dry_run=true", {"image": "busybox", "hints": {"label:a": "b"}})
    assert nowhere.json["host"] is None
    assert list(nowhere.json["refused"]) == ["host-1"]
    assert (await api.get("/v1/containers")).json["containers"] == []


async def test_a_show_waits_for_a_status(api: Caller, host: FakeHost) -> None:
    uuid = (await api.create())["uuid"]
    new = api.at("1.41")
    waiting = asyncio.create_task(new.get(f"/v1/containers/{uuid}?wait=running&timeout=30"))
    while (await api.get(f"/v1/containers/{uuid}")).json["status"] != "Running":
        await host.settle()
    assert (await waiting).json["status"] == "Running"
    at_once = await new.get(f"/v1/containers/{uuid}?wait=Stopped&timeout=0")
    assert (at_once.status, at_once.json["status"]) == (200, "Running")
    assert (await new.get(f"/v1/containers/{uuid}?wait=Nowhere")).status == 400
    assert (await new.get(f"/v1/containers/{uuid}?wait=Running&timeout=999")).status == 400
