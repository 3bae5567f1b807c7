"""What can be done to a container: codes, parameters in query or body, versions, states, and what is recorded."""

from typing import Any

import pytest

from higgins.model.container import Status
from tests.api.conftest import Caller
from tests.api.host import FakeHost


async def running(api: Caller, host: FakeHost, **fields: Any) -> str:
    """A container that runs; its path."""
    uuid = (await api.create(**fields))["uuid"]
    await host.settle()
    return f"/v1/containers/{uuid}"


async def test_a_container_goes_through_its_states(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    for verb, status in (
        ("pause", Status.PAUSED),
        ("unpause", Status.RUNNING),
        ("stop?timeout=0", Status.STOPPED),
        ("start", Status.RUNNING),
        ("reboot?timeout=1", Status.RUNNING),
        ("rebuild", Status.RUNNING),
        ("kill", Status.STOPPED),
    ):
        answer = await api.post(f"{one}/{verb}", headers={"Content-Length": "0"})
        assert (answer.status, answer.text) == (202, "null"), answer.text
        await host.settle()
        assert (await api.get(one)).json["status"] == status


@pytest.mark.parametrize(
    "state, verbs",
    [
        ("Running", ("start", "unpause")),
        ("Stopped", ("stop", "pause", "unpause", "kill", "execute?command=x", "resize?h=1&w=1")),
        ("Paused", ("start", "stop", "pause", "reboot", "rebuild", "kill", "execute?command=x")),
        ("Creating", ("start", "stop", "pause", "unpause", "kill", "reboot", "rebuild", "commit?repository=ab")),
    ],
)
async def test_a_state_that_forbids_an_action_is_a_conflict(
    api: Caller, host: FakeHost, state: str, verbs: tuple[str, ...]
) -> None:
    uuid = (await api.create())["uuid"]
    one = f"/v1/containers/{uuid}"
    if state != "Creating":
        await host.settle()
    if state in ("Stopped", "Paused"):
        await api.post(f"{one}/{'stop' if state == 'Stopped' else 'pause'}")
        await host.settle()
    for verb in verbs:
        answer = await api.post(f"{one}/{verb}")
        assert (answer.status, answer.code) == (409, "container.invalid-state-exception"), verb
        assert uuid in answer.error["title"]
        assert state in answer.error["title"]


@pytest.mark.parametrize(
    "action, field, bad",
    [
        ("stop", "timeout", ["-1", "x", "1.5", "99999999999"]),
        ("reboot", "timeout", ["-1", "soon"]),
        ("kill", "signal", ["SIGNOT", "99", "TERM;", ""]),
        ("rebuild", "image", ["x", "a b\n"]),
        ("rebuild", "image_driver", ["tape"]),
        ("execute", "command", ["", "'open"]),
        ("execute", "run", ["perhaps"]),
        ("resize", "h", ["0", "x"]),
        ("execute_resize", "exec_id", ["abc", "Z" * 64]),
        ("commit", "repository", ["", "-", "a\tb"]),
        ("commit", "tag", ["a/b", ":"]),
        ("network_attach", "fixed_ip", ["10.0.0", "host"]),
    ],
)
async def test_a_bad_parameter_is_named(api: Caller, action: str, field: str, bad: list[str]) -> None:
    needed = {
        "execute": {"command": "ls"},
        "resize": {"h": "1", "w": "1"},
        "execute_resize": {"exec_id": "a" * 64, "h": "1", "w": "1"},
        "commit": {"repository": "mine"},
        "network_attach": {"network": "n"},
    }.get(action, {})
    for value in bad:
        for sent in ({"params": needed | {field: value}}, {"json": needed | {field: value}}):
            url = f"{api.client.make_url('/')}v1/containers/any/{action}"
            async with api.client.session.post(url, headers=api.headers(), **sent) as response:  # type: ignore[arg-type]
                told = await response.json()
            assert response.status == 400, (value, told)
            assert f"'{field}'" in told["errors"][0]["title"]


@pytest.mark.parametrize(
    "action, missing",
    [
        ("execute", "command"),
        ("resize?h=1", "w"),
        ("execute_resize?h=1&w=1", "exec_id"),
        ("commit", "repository"),
        ("put_archive?path=/", "data"),
    ],
)
async def test_what_is_missing_is_named(api: Caller, action: str, missing: str) -> None:
    answer = await api.post(f"/v1/containers/any/{action}")
    assert (answer.status, f"'{missing}'" in answer.error["title"]) == (400, True)


@pytest.mark.parametrize("signal", ["SIGTERM", "TERM", "sigterm", "term", "15", "None", None])
async def test_signals_may_be_spelled_in_many_ways(api: Caller, host: FakeHost, signal: str | None) -> None:
    one = await running(api, host)
    assert (await api.post(f"{one}/kill", {"signal": signal})).status == 202


async def test_parameters_come_in_the_query_or_in_the_body(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    for answer in (
        await api.post(f"{one}/execute?command=echo+hi"),
        await api.post(f"{one}/execute", {"command": "echo hi"}),
        await api.post(f"{one}/execute?run=True", {"command": "echo hi", "interactive": "False"}),
    ):
        assert (answer.status, answer.json["exit_code"]) == (200, 3)
    twice = await api.post(f"{one}/execute?command=ls", {"command": "ls"})
    assert (twice.status, "'command'" in twice.error["title"]) == (400, True)
    assert (await api.post(f"{one}/start?bogus=1")).status == 400


@pytest.mark.parametrize(
    "method, call, first, last",
    [
        ("POST", "network_detach", 6, None),
        ("POST", "network_attach", 8, None),
        ("GET", "network_list", 13, None),
        ("POST", "rename", None, 13),
        ("POST", "add_security_group", None, 14),
        ("POST", "remove_security_group", None, 14),
        ("POST", "resize_container", 19, None),
    ],
)
async def test_an_action_is_there_only_in_its_versions(
    api: Caller, method: str, call: str, first: int | None, last: int | None
) -> None:
    outside = f"1.{(first or 0) - 1}" if first else f"1.{(last or 0) + 1}"
    refused = await api.at(outside).call(method, f"/v1/containers/any/{call}")
    assert (refused.status, refused.error["title"]) == (406, "Not Acceptable")
    assert f"not supported in version {outside}" in refused.error["detail"]
    inside = await api.at(f"1.{first or last}").call(method, f"/v1/containers/any/{call}")
    assert inside.status in (400, 404)


async def test_networks_are_attached_listed_and_detached(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    made = await api.by("admin").post("/v1/networks", {"name": "lan"})
    assert made.status == 200
    for body in ({}, {"network": "a", "port": "b"}):
        assert (await api.post(f"{one}/network_attach", body)).status == 400
        assert (await api.post(f"{one}/network_detach", body)).status == 400
    assert (await api.post(f"{one}/network_attach?network=nobodys")).status == 404
    listed = await api.get(f"{one}/network_list")
    (network,) = listed.json["networks"]
    assert set(network) == {"net_id", "port_id", "fixed_ips"}
    assert set(network["fixed_ips"][0]) == {"ip_address", "version", "subnet_id"}
    (old,) = (await api.at("1.17").get(f"{one}/network_list")).json["networks"]
    assert set(old) == {"net_id", "subnet_id", "port_id", "version", "ip_address"}
    assert (await api.at("1.16").post(f"{one}/network_detach?port=x")).code == "container.invalid-param-in-version"
    assert (await api.post(f"{one}/network_attach?network={network['net_id']}")).status == 409


async def test_a_second_network_comes_and_goes(api: Caller, host: FakeHost) -> None:
    admin = api.by("admin")
    one = await running(admin, host)
    lan = (await admin.post("/v1/networks", {"name": "lan"})).json["uuid"]
    attached = await admin.post(f"{one}/network_attach?network=lan")
    assert (attached.status, attached.text) == (200, "null")
    assert lan in [item["net_id"] for item in (await admin.get(f"{one}/network_list")).json["networks"]]
    detached = await admin.post(f"{one}/network_detach?network={lan}")
    assert (detached.status, detached.text) == (202, "null")
    assert len((await admin.get(f"{one}/network_list")).json["networks"]) == 1


async def test_renaming_was_an_action_until_1_13(api: Caller, host: FakeHost) -> None:
    one = await running(api, host, name="old")
    old = api.at("1.13")
    assert (await old.post(f"{one}/rename?name=new")).json["name"] == "new"
    assert (await old.post(f"{one}/rename?name=new")).status == 409
    refused = await old.call("PATCH", one, {"name": "other"})
    assert refused.code == "container.invalid-param-in-version"


async def test_what_was_asked_is_recorded_under_the_request_id(api: Caller, host: FakeHost) -> None:
    made = await api.post("/v1/containers?run=true", {"image": "busybox"})
    one = f"/v1/containers/{made.json['uuid']}"
    await host.settle()
    stopped = await api.post(f"{one}/stop?timeout=0")
    request_id = stopped.headers["X-Openstack-Request-Id"]
    assert request_id.startswith("req-")
    await host.settle()
    listed = (await api.get(f"{one}/container_actions")).json["containerActions"]
    assert {item["action"] for item in listed} == {"create", "stop"}
    shown = (await api.get(f"{one}/container_actions/{request_id}")).json
    assert (shown["action"], shown["message"], shown["request_id"]) == ("stop", None, request_id)
    assert "T" in shown["start_time"]
    assert "T" in shown["finish_time"]
    (event,) = shown["events"]
    assert event["event"] == "compute__do_container_stop"
    assert set(event) == {"event", "start_time", "finish_time", "result", "traceback"}
    assert (await api.get(f"{one}/container_actions/req-0")).code == "container.action-not-found"
    assert (await api.by("bob").get(f"{one}/container_actions")).status == 404
