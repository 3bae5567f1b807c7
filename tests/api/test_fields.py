"""What the body of a create may say: since when, in which forms, and how a refusal names the field."""

import base64
from typing import Any

import pytest

from higgins.api.microversion import MINIMUM, Version
from higgins.api.schemas.containers import CREATE
from tests.api.conftest import Caller
from tests.api.host import FakeHost

#: A value that each field takes.
GOOD: dict[str, Any] = {
    "nets": [{"network": "default"}], "auto_remove": True, "runtime": "runsc", "hostname": "h",
    "mounts": [{"size": 1, "destination": "/data"}], "privileged": True,
    "healthcheck": {"cmd": "true"}, "exposed_ports": {"80/tcp": {}}, "cpu_policy": "shared", "registry": "nobodys",
    "host": "host-1", "entrypoint": ["/x"],
}  # fmt: skip
NEWER = [(field.name, field.since) for field in CREATE if field.since > MINIMUM and field.name != "command"]


def before(version: Version) -> str:
    return f"1.{version.minor - 1}"


@pytest.mark.parametrize("name, since", NEWER)
async def test_a_field_is_known_from_its_version_on(api: Caller, host: FakeHost, name: str, since: Version) -> None:
    body = {"image": "busybox", name: GOOD[name]}
    admin = api.by("admin")
    refused = await admin.at(before(since)).post("/v1/containers", body)
    assert (refused.status, refused.code) == (400, "container.invalid-param-in-version")
    assert f"'{name}'" in refused.error["title"]
    assert str(since) in refused.error["title"]
    taken = await admin.at(str(since)).post("/v1/containers", body)
    assert taken.status == {"registry": 404}.get(name, 202), taken.text


async def test_what_the_real_client_always_sends_is_taken_in_every_version(api: Caller, host: FakeHost) -> None:
    for version in ("1.1", "1.2", "1.10", "1.19"):
        body = {"image": "busybox", "nets": [], "mounts": [], "auto_remove": False, "hints": {}, "privileged": False}
        made = await api.at(version).post("/v1/containers", body)
        assert made.status == 202, made.text
        gone = await api.at(version).call(
            "DELETE", f"/v1/containers/{made.json['uuid']}?force=False&stop=False&all_projects=False"
        )
        assert gone.status == 204, gone.text
    refused = await api.at("1.6").call("DELETE", "/v1/containers/any?force=True")
    assert (refused.status, refused.code) == (400, "container.invalid-param-in-version")
    refused = await api.at("1.11").call("DELETE", "/v1/containers/any?stop=1")
    assert (refused.status, refused.code) == (400, "container.invalid-param-in-version")


def test_every_newer_field_has_a_value_to_try() -> None:
    assert {name for name, _ in NEWER} == set(GOOD)


async def test_a_command_is_a_string_until_1_19_and_a_list_from_1_20(api: Caller, host: FakeHost) -> None:
    old = await api.at("1.19").post("/v1/containers", {"image": "busybox", "command": "sh -c 'echo a b'"})
    assert old.json["command"] == ["sh", "-c", "echo a b"]
    new = await api.at("1.20").post("/v1/containers", {"image": "busybox", "command": ["echo", "a b"]})
    assert new.json["command"] == ["echo", "a b"]
    for version, command in (("1.19", ["a"]), ("1.20", "a"), ("1.19", "'open")):
        refused = await api.at(version).post("/v1/containers", {"image": "busybox", "command": command})
        assert (refused.status, "'command'" in refused.error["title"]) == (400, True)


@pytest.mark.parametrize(
    "version, body, tty",
    [
        ("1.19", {"interactive": True}, True),
        ("1.35", {"interactive": True, "tty": False}, True),
        ("1.35", {"tty": True}, False),
        ("1.36", {"interactive": True}, False),
        ("1.36", {"interactive": False, "tty": True}, True),
    ],
)
async def test_a_terminal_came_with_interactive_until_1_35(
    api: Caller, host: FakeHost, version: str, body: dict[str, Any], tty: bool
) -> None:
    made = await api.at(version).post("/v1/containers", {"image": "busybox"} | body)
    assert made.json["tty"] is tty


async def test_a_bind_mount_needs_1_23(api: Caller, host: FakeHost) -> None:
    content = base64.b64encode(b"hello").decode()
    body = {"image": "busybox", "mounts": [{"type": "bind", "source": content, "destination": "/etc/motd"}]}
    refused = await api.at("1.22").post("/v1/containers", body)
    assert (refused.status, refused.code) == (400, "container.invalid-param-in-version")
    assert (await api.at("1.23").post("/v1/containers", body)).status == 202


async def test_exposed_ports_and_security_groups_do_not_go_together(api: Caller, host: FakeHost) -> None:
    body = {"image": "busybox", "exposed_ports": {"80": {}}, "security_groups": ["default"]}
    refused = await api.post("/v1/containers", body)
    assert (refused.status, "exposed_ports" in refused.error["title"]) == (400, True)


@pytest.mark.parametrize(
    "field, rule",
    [
        ({"runtime": "runsc"}, "container:create:runtime"),
        ({"host": "host-1"}, "container:create:requested_destination"),
        ({"image_pull_policy": "always"}, "container:create:image_pull_policy"),
        ({"privileged": True}, "container:create:privileged"),
    ],
)
async def test_some_fields_are_guarded_by_a_rule_of_their_own(
    api: Caller, host: FakeHost, field: dict[str, Any], rule: str
) -> None:
    refused = await api.post("/v1/containers", {"image": "busybox"} | field)
    assert (refused.status, refused.code) == (403, "container.policy-not-authorized")
    assert refused.error["title"] == f"Policy doesn't allow {rule} to be performed."
    by_admin = await api.by("admin").post("/v1/containers", {"image": "busybox"} | field)
    assert by_admin.status == 202


async def test_a_host_that_is_not_there_is_not_found(api: Caller, host: FakeHost) -> None:
    answer = await api.by("admin").post("/v1/containers", {"image": "busybox", "host": "nowhere"})
    assert (answer.status, answer.code) == (404, "container.requested-host-not-found")


#: Forms that Zun's clients send and that are understood.
TAKEN: list[dict[str, Any]] = [
    {"cpu": 0.5}, {"cpu": "0.5"}, {"cpu": None}, {"cpu": ".5"}, {"memory": 64}, {"memory": "64"}, {"memory": None},
    {"disk": "20"}, {"disk": None}, {"name": "a.b-c_d"}, {"labels": None}, {"environment": {}}, {"hints": None},
    {"interactive": "True"}, {"auto_heal": "false"}, {"auto_heal": None}, {"image_driver": "None"},
    {"image_driver": None}, {"image_driver": "docker"}, {"restart_policy": {"Name": "no", "MaximumRetryCount": "0"}},
    {"restart_policy": {"Name": "always", "MaximumRetryCount": 0}}, {"restart_policy": {"Name": "on-failure"}},
    {"restart_policy": {"Name": "unless-stopped", "MaximumRetryCount": None}}, {"hostname": None},
    {"hostname": "x" * 63}, {"workdir": None}, {"runtime": None}, {"availability_zone": None}, {"mounts": None},
    {"mounts": [{"size": "3", "destination": "/data"}]}, {"mounts": [{"source": "", "size": 1, "destination": "/d"}]},
    {"nets": None}, {"healthcheck": None}, {"exposed_ports": None}, {"entrypoint": None}, {"command": None},
    {"security_groups": None}, {"security_groups": ["default", "default"]}, {"privileged": "False"}, {"host": None},
    {"registry": None}, {"image_pull_policy": None}, {"restart_policy": None}, {"tty": None},
    {"exposed_ports": {"8080": {}, "53/udp": {}}},
    {"healthcheck": {"cmd": "curl x", "interval": "30", "retries": "3", "timeout": 1.5}},
]  # fmt: skip


async def test_forms_that_clients_send_are_taken(api: Caller, host: FakeHost) -> None:
    await api.by("admin").call("PUT", "/v1/quotas/wonder", {"containers": -1, "cpu": -1, "memory": -1, "disk": -1})
    for body in TAKEN:
        answer = await api.post("/v1/containers", {"image": "busybox"} | body)
        assert answer.status == 202, (body, answer.text)


#: What is refused; the field that the refusal names is the key.
REFUSED: list[dict[str, Any]] = [
    {"image": None}, {"image": "x"}, {"image": 7}, {"image": "a\0b"}, {"image": "a" * 256}, {"name": "x"},
    {"name": "-x"}, {"name": "a b"}, {"name": "n" * 256}, {"name": 5}, {"name": "ok\n"}, {"cpu": "much"},
    {"cpu": 99}, {"cpu": 0.01}, {"cpu": True}, {"cpu": -1}, {"cpu": "99"}, {"cpu": []}, {"memory": 3},
    {"memory": "99999"}, {"memory": 1.5}, {"memory": "1m"}, {"memory": 10**30}, {"disk": -1}, {"disk": 1000},
    {"disk": "x"}, {"workdir": 1}, {"environment": {"A": 1}}, {"environment": []}, {"environment": {"A=B": "c"}},
    {"environment": {"": "c"}}, {"labels": {"a": {}}}, {"labels": "a=b"}, {"image_pull_policy": "sometimes"},
    {"image_driver": "tape"}, {"restart_policy": {}}, {"restart_policy": {"Name": "maybe"}},
    {"restart_policy": {"Name": "always", "MaximumRetryCount": 1}}, {"restart_policy": {"Name": "no", "x": 1}},
    {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": -1}}, {"interactive": "perhaps"}, {"tty": 2},
    {"security_groups": "default"}, {"security_groups": [""]}, {"hints": []}, {"nets": {}},
    {"nets": [{"network": "a", "port": "b"}]}, {"nets": [{}]}, {"nets": [{"network": "a", "v4-fixed-ip": "::1"}]},
    {"nets": [{"network": "a", "other": 1}]}, {"auto_remove": "x"}, {"hostname": ""}, {"hostname": "x" * 64},
    {"hostname": "a b"}, {"hostname": "a/b"}, {"mounts": [{"destination": "/d"}]}, {"mounts": [{"source": "v"}]},
    {"mounts": [{"source": "v", "destination": "relative"}]}, {"mounts": [{"size": 0, "destination": "/d"}]},
    {"mounts": [{"type": "bind", "source": "not base64!", "destination": "/d"}]},
    {"mounts": [{"type": "nfs", "source": "v", "destination": "/d"}]}, {"availability_zone": ""},
    {"privileged": "maybe"}, {"healthcheck": {}}, {"healthcheck": {"cmd": ""}},
    {"healthcheck": {"cmd": "x", "interval": 0}}, {"healthcheck": {"cmd": "x", "interval": "soon"}},
    {"healthcheck": {"cmd": "x", "retries": 1.5}}, {"healthcheck": {"cmd": "x", "every": 1}},
    {"exposed_ports": {"80/sctp": {}}}, {"exposed_ports": {"0": {}}}, {"exposed_ports": {"65536/tcp": {}}},
    {"exposed_ports": {"http": {}}}, {"exposed_ports": ["80"]}, {"cpu_policy": "mine"}, {"registry": "x"},
    {"entrypoint": "sh"}, {"entrypoint": [1]}, {"command": [None]}, {"command": {"a": 1}}, {"auto_heal": 7},
]  # fmt: skip


async def test_what_no_container_may_be_is_refused_by_the_name_of_the_field(api: Caller) -> None:
    for body in REFUSED:
        answer = await api.post("/v1/containers", {"image": "busybox"} | body)
        assert (answer.status, answer.code) == (400, "container.schema-validation-error"), (body, answer.text)
        assert next(iter(body)) in answer.error["title"], (body, answer.text)
        assert len(answer.error["title"]) < 400


async def test_an_image_service_that_is_not_set_up_is_named(api: Caller, host: FakeHost) -> None:
    answer = await api.post("/v1/containers", {"image": "busybox", "image_driver": "glance"})
    assert (answer.status, answer.code) == (400, "container.invalid-value")
    assert "image_driver: glance is not set up" in answer.error["title"]


async def test_the_image_is_required_and_nothing_unknown_is_taken(api: Caller) -> None:
    assert "'image'" in (await api.post("/v1/containers", {"name": "ab"})).error["title"]
    unknown = await api.post("/v1/containers", {"image": "busybox", "imagee": 1})
    assert (unknown.status, "imagee" in unknown.error["title"]) == (400, True)
    assert (await api.post("/v1/containers?run=true&walk=1", {"image": "busybox"})).status == 400
    assert (await api.post("/v1/containers", {"image": "busybox", "run": True})).status == 400


async def test_a_security_group_or_registry_that_is_not_there_is_named(api: Caller, host: FakeHost) -> None:
    for field, value in (("security_groups", ["nobodys"]), ("registry", "nobodys"), ("mounts", "nobodys")):
        given = [{"source": value, "destination": "/d"}] if field == "mounts" else value
        answer = await api.post("/v1/containers", {"image": "busybox", field: given})
        assert (answer.status, "nobodys" in answer.error["title"]) == (404, True)
