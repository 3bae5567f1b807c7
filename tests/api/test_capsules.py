"""Capsules: templates, the two views, pages, deletion."""

import copy
import json
from typing import Any

import pytest

from tests.api.conftest import Caller
from tests.api.host import FakeHost

TEMPLATE: dict[str, Any] = {
    "kind": "capsule",
    "capsuleVersion": "beta",
    "metadata": {"name": "pod", "labels": {"app": "web"}, "annotations": {"note": "x"}},
    "availabilityZone": "nova",
    "spec": {
        "restartPolicy": "OnFailure",
        "volumes": [{"name": "data", "cinder": {"size": 3, "autoRemove": True}}],
        "initContainers": [{"image": "busybox", "command": ["true"], "resources": {"requests": {"memory": 512}}}],
        "containers": [
            {
                "image": "busybox",
                "command": ["sh"],
                "args": ["-c", "sleep 9"],
                "workDir": "/srv",
                "env": {"A": "b"},
                "imagePullPolicy": "Always",
                "stdin": True,
                "tty": True,
                "resources": {"requests": {"cpu": "0.5", "memory": 128}},
                "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080, "protocol": "TCP"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": False}],
            },
            {
                "image": "busybox",
                "resources": {"requests": {"cpu": 1, "memory": 64}},
                "volumeMounts": [{"name": "data", "mountPath": "/there"}],
            },
        ],
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The template with one thing changed; ``...`` takes it away."""
    template = copy.deepcopy(TEMPLATE)
    *way, last = path.split(".")
    where: Any = template
    for step in way:
        where = where[int(step)] if step.isdigit() else where[step]
    if value is ...:
        del where[last]
    else:
        where[last] = value
    return template


async def test_a_capsule_is_made_of_a_template_and_shown(api: Caller, host: FakeHost) -> None:
    made = await api.post("/capsules/", {"template": TEMPLATE})
    assert made.status == 202, made.text
    view = made.json
    assert made.headers["Location"].endswith(f"/v1/capsules/{view['uuid']}")
    assert set(view) == {
        "uuid", "links", "name", "project_id", "user_id", "cpu", "memory", "status", "status_reason", "labels",
        "addresses", "restart_policy", "annotations", "created_at", "updated_at", "containers", "init_containers",
    }  # fmt: skip
    assert (view["name"], view["cpu"], view["memory"], view["labels"]) == ("pod", 1.5, "512", {"app": "web"})
    assert view["restart_policy"] == {"Name": "on-failure", "MaximumRetryCount": "0"}
    first, second = view["containers"]
    assert first["command"] == ["sh", "-c", "sleep 9"]
    assert (first["workdir"], first["environment"], first["tty"], first["interactive"]) == (
        "/srv", {"A": "b"}, True, True,
    )  # fmt: skip
    assert (first["ports"], second["memory"], second["cpu"]) == ([80], "64", 1.0)
    assert len(view["init_containers"]) == 1
    await host.settle()
    shown = await api.get("/capsules/pod")
    assert (shown.status, shown.json["status"]) == (200, "Running")
    assert (await api.by("admin").get(f"/v1/capsules/{view['uuid']}")).json["host"] == "host-1"
    assert (await api.get("/v1/containers")).json["containers"] == []


async def test_the_old_view_is_told_until_1_31(api: Caller, host: FakeHost) -> None:
    old = api.at("1.31")
    made = (await old.post("/v1/capsules", {"template": json.dumps(TEMPLATE)})).json
    assert (made["meta_name"], made["meta_labels"], made["restart_policy"]) == ("pod", {"app": "web"}, "on-failure")
    assert "name" not in made
    assert "labels" not in made
    assert set(made) > {"volumes_info", "containers_uuids", "init_containers_uuids", "capsule_version"}


async def test_capsules_come_in_pages_and_are_deleted_in_any_state(api: Caller, host: FakeHost) -> None:
    for _ in range(3):
        assert (await api.post("/v1/capsules", {"template": TEMPLATE})).status == 202
    page = (await api.get("/capsules/?limit=2&bogus=1")).json
    assert len(page["capsules"]) == 2
    rest = (await api.get("/v1" + page["next"].partition("/v1")[2])).json
    assert (len(rest["capsules"]), rest["next"]) == (1, None)
    uuid = rest["capsules"][0]["uuid"]
    assert "links" in rest["capsules"][0]
    assert (await api.by("bob").call("DELETE", f"/capsules/{uuid}")).code == "container.container-not-found"
    for _ in range(2):
        assert (await api.call("DELETE", f"/capsules/{uuid}")).status == 204
    assert (await api.get(f"/capsules/{uuid}")).json["status"] == "Deleting"
    await host.settle()
    assert (await api.get(f"/capsules/{uuid}")).status == 404
    assert (await api.get("/capsules/?all_projects=1")).status == 403
    assert len((await api.by("admin").get("/capsules/?all_projects=1")).json["capsules"]) == 2


async def test_more_capsules_take_no_more_statements(api: Caller, host: FakeHost, statements: list[str]) -> None:
    counts = []
    for _ in range(3):
        assert (await api.post("/v1/capsules", {"template": TEMPLATE})).status == 202
        statements.clear()
        assert (await api.get("/v1/capsules")).status == 200
        counts.append(len(statements))
    assert len(set(counts)) == 1


async def test_the_same_idempotency_key_makes_one_capsule(api: Caller, host: FakeHost) -> None:
    new = api.at("1.43")
    key = {"Idempotency-Key": "k"}
    made = [await new.post("/v1/capsules", {"template": TEMPLATE}, headers=key) for _ in range(2)]
    assert made[0].json["uuid"] == made[1].json["uuid"]


@pytest.mark.parametrize(
    "path, value, field",
    [
        ("kind", ..., "kind"),
        ("kind", "pod", "kind"),
        ("capsuleVersion", "alpha", "capsuleVersion"),
        ("metadata", ..., "metadata"),
        ("metadata", [], "metadata"),
        ("metadata.name", "-", "metadata.name"),
        ("metadata.labels", {"a": 1}, "metadata.labels"),
        ("spec", ..., "spec"),
        ("spec", None, "spec"),
        ("spec.containers", ..., "spec.containers"),
        ("spec.containers", [], "spec.containers"),
        ("spec.containers", {}, "spec.containers"),
        ("spec.containers.0.image", ..., "containers[0].image"),
        ("spec.containers.1.resources", {"limits": {}}, "containers[1].resources"),
        ("spec.containers.1.resources", {"requests": {"cpu": "lots"}}, "requests.cpu"),
        ("spec.containers.0.ports", [{"containerPort": 0}], "containerPort"),
        ("spec.containers.0.volumeMounts", [{"name": "none", "mountPath": "/x"}], "volumeMounts"),
        ("spec.containers.0.bogus", 1, "containers[0].bogus"),
        ("spec.initContainers", [7], "initContainers[0]"),
        ("spec.restartPolicy", "Sometimes", "restartPolicy"),
        ("spec.volumes", [{"name": "data", "cinder": {}}], "cinder"),
        ("spec.nets", [], "spec.nets"),
        ("nets", [], "nets"),
    ],
)
async def test_a_bad_template_is_refused_by_the_field(api: Caller, path: str, value: Any, field: str) -> None:
    answer = await api.post("/v1/capsules", {"template": changed(path, value)})
    assert (answer.status, answer.code) == (400, "container.schema-validation-error"), answer.text
    assert field in answer.error["title"]


@pytest.mark.parametrize("template", ["{", "7", "null", [], None, "[" * 10000])
async def test_a_template_that_is_none_is_refused(api: Caller, template: Any) -> None:
    answer = await api.post("/v1/capsules", {"template": template})
    assert (answer.status, "'template'" in answer.error["title"]) == (400, True)
