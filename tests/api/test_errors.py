"""Refusals: one envelope, the right code, the field named, nothing leaked; and paths as a web server reads them."""

import gzip
import logging
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud
from tests.api.conftest import Caller, Opener
from tests.api.host import FakeHost


async def test_who_does_not_say_who_it_is_is_asked_to(api: Caller) -> None:
    for caller in (api.by(None), api.by("nobody")):
        answer = await caller.get("/v1/containers")
        assert (answer.status, answer.code) == (401, "container.unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert answer.error["request_id"] == answer.headers["X-Openstack-Request-Id"]


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!", "Basic bm9jb2xvbg==", "Basic /w=="])
async def test_credentials_that_cannot_be_read_are_refused(api: Caller, header: str) -> None:
    assert (await api.by(None).get("/v1/containers", headers={"Authorization": header})).status == 401


async def test_a_path_that_leads_nowhere_and_a_method_that_is_not_there(api: Caller) -> None:
    for path in ("/v1/nothing", "/nothing", "/v1/containers/a/b/c", "/v1/containers/a/dance", "/v1/containers/a%00b"):
        answer = await api.get(path)
        assert (answer.status, answer.code, answer.error["title"]) == (404, "container.", "Not Found")
        assert "OpenStack-API-Version" not in answer.headers
    wrong = await api.call("PUT", "/v1/containers/any")
    assert (wrong.status, wrong.code) == (405, "container.")
    assert wrong.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
    assert (await api.get("/v1/containers/any/start")).status == 405
    assert (await api.call("TRACE", "/v1/containers")).status == 405
    assert (await api.call("POST", "/v1")).status == 405
    assert (await api.at("1.40").get("/v1/networks")).status == 406


@pytest.mark.parametrize(
    "path",
    ["/containers", "/v1/containers/", "//v1//containers", "/v1/containers.json", "/containers/", "/v1//containers//"],
)
async def test_paths_are_read_generously(api: Caller, host: FakeHost, path: str) -> None:
    uuid = (await api.create())["uuid"]
    assert len((await api.get(path)).json["containers"]) == 1
    assert (await api.get(f"{path.rstrip('/').removesuffix('.json')}//{uuid}.json")).json["uuid"] == uuid


async def test_head_and_options_answer_as_on_any_web_server(api: Caller) -> None:
    head = await api.call("HEAD", "/v1/containers")
    assert (head.status, head.text) == (200, "")
    assert (await api.call("HEAD", "/v1/containers/none")).status == 404
    assert (await api.call("HEAD", "/v1/containers/none/attach")).status == 405
    assert (await api.by(None).call("HEAD", "/v1")).status == 200
    options = await api.by(None).call("OPTIONS", "/v1/containers")
    assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    assert (await api.by(None).call("OPTIONS", "/v1/nothing")).status == 404
    assert (await api.by(None).call("OPTIONS", "/")).status == 204


async def test_web_pages_of_allowed_origins_may_call(serve: Opener) -> None:
    api = await serve(allowed_origins=("https://horizon.example",))
    for origin, allowed in (("https://horizon.example", True), ("https://evil.example", False)):
        answer = await api.get("/v1/containers", headers={"Origin": origin})
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is allowed
        preflight = await api.by(None).call(
            "OPTIONS", "/v1/containers", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
        )
        assert ("Access-Control-Allow-Methods" in preflight.headers) is allowed
    refused = await api.by(None).get("/v1/containers", headers={"Origin": "https://horizon.example"})
    assert refused.headers["Access-Control-Allow-Origin"] == "https://horizon.example"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"7",
        b'"x"',
        b"null",
        b'{"image": "busybox", "image": "other"}',
        b'{"image": "bu\\u0000sy"}',
        b'{"image": "bu\\ud800sy"}',
        b'{"image": "busybox", "cpu": NaN}',
        b'{"image": "busybox", "cpu": 1e999}',
        b'{"image": "busybox", "memory": ' + b"9" * 5000 + b"}",
        b'{"image": "busybox", "labels": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b'{"image": "busybox", "command": ' + b"[" * 20000 + b"]" * 20000 + b"}",
        b'{"image": "\xff\xfe"}',
        b'{"image": "busybox", "a' + b"a" * 5000 + b'": 1}',
    ],
    ids=lambda body: str(body[:40]),
)
async def test_bodies_that_are_not_what_they_should_be_are_bad_requests(api: Caller, body: bytes) -> None:
    answer = await api.call("POST", "/v1/containers", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.code) == (400, "container.schema-validation-error")
    assert len(answer.text) < 1000


async def test_a_body_that_is_not_encoded_as_it_says_is_a_bad_request(api: Caller, host: FakeHost) -> None:
    encoded = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    for path in ("/v1/containers", "/v1/containers/any/stop"):
        answer = await api.call("POST", path, data=b"no gzip", headers=encoded)
        assert (answer.status, answer.code) == (400, "container.schema-validation-error")
    uuid = (await api.create())["uuid"]
    await host.settle()
    tar = {"Content-Encoding": "gzip", "Content-Type": "application/x-tar"}
    path = f"/v1/containers/{uuid}/put_archive?path=/"
    assert (await api.at("1.46").call("POST", path, data=b"no gzip", headers=tar)).status == 400


async def test_a_small_body_that_grows_large_is_refused(api: Caller) -> None:
    bomb = gzip.compress(b'{"image": "busybox", "name": "' + b"a" * 20_000_000 + b'"}')
    told = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert (await api.call("POST", "/v1/containers", data=bomb, headers=told)).status == 413


async def test_a_body_of_another_type_is_unsupported(api: Caller) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        answer = await api.call("POST", "/v1/containers", data=b"{}", headers={"Content-Type": kind})
        assert (answer.status, answer.code) == (415, "container.unsupported-media-type")
    tar = {"Content-Type": "application/x-tar"}
    old = await api.at("1.45").call("POST", "/v1/containers/any/put_archive?path=/", data=b"x", headers=tar)
    assert old.status == 415
    empty = await api.call("POST", "/v1/containers/any/start", headers={"Content-Type": "text/plain"})
    assert empty.status == 404


async def test_bodies_have_a_limit_by_what_they_are_for(serve: Opener, host: FakeHost) -> None:
    api = await serve(body_limit=2_000, files_limit=20_000)
    long = await api.post("/v1/registries", {"registry": {"domain": "x", "name": "n" * 3_000}})
    assert (long.status, long.code) == (413, "container.request-entity-too-large")

    async def dripping() -> Any:
        for _ in range(30):
            yield b" " * 1000

    chunked = await api.call("POST", "/v1/containers", data=dripping(), headers={"Content-Type": "application/json"})
    assert chunked.status == 413
    file = {"type": "bind", "destination": "/f", "source": "QUJD" * 2_000}
    assert (await api.post("/v1/containers", {"image": "busybox", "mounts": [file]})).status == 202
    stuffed = await api.post("/v1/containers", {"image": "busybox", "environment": {"A": "b" * 3_000}})
    assert stuffed.status == 413


async def test_a_parameter_given_twice_is_refused(api: Caller) -> None:
    answer = await api.get("/v1/containers?limit=1&limit=2")
    assert (answer.status, "'limit'" in answer.error["title"]) == (400, True)


async def test_what_nobody_foresaw_leaks_nothing_and_can_be_found_in_the_log(
    api: Caller, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_work: object) -> object:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(cloud.store, "read", broken)
    with caplog.at_level(logging.ERROR):
        answer = await api.get("/v1/containers")
    assert (answer.status, answer.code, answer.error["title"]) == (500, "container.", "Internal Server Error")
    assert "hunter2" not in answer.text
    correlation = answer.error["detail"].rpartition(" ")[2]
    (record,) = (record for record in caplog.records if getattr(record, "correlation_id", None) == correlation)
    assert record.exc_info is not None
    assert record.request_id == answer.headers["X-Openstack-Request-Id"]  # type: ignore[attr-defined]


async def test_each_request_is_written_down_with_its_number(api: Caller, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "higgins.api.access"):
        theirs = "req-0a0a0a0a-0000-0000-0000-000000000000"
        answer = await api.get("/v1/containers?name=secret", headers={"X-Openstack-Request-Id": theirs})
    (line,) = (record.getMessage() for record in caplog.records if record.name == "higgins.api.access")
    assert answer.headers["X-Openstack-Request-Id"] in line
    assert '"project":"wonder"' in line
    assert theirs in line
    assert theirs != answer.headers["X-Openstack-Request-Id"]
    assert "secret" not in line


async def test_the_service_tells_its_health_and_its_figures(api: Caller, host: FakeHost, cloud: Cloud) -> None:
    await api.create()
    assert (await api.by(None).get("/healthcheck")).text == "OK\n"
    assert (await api.by(None).get("/metrics")).status == 401
    assert (await api.get("/metrics")).status == 403
    text = (await api.by("admin").get("/metrics")).text
    assert 'higgins_workloads{kind="container",status="Creating"} 1.0' in text
    assert 'higgins_api_requests_total{method="POST",route="/v1/containers",status="202"} 1.0' in text
    assert 'higgins_api_request_seconds_count{route="/v1/containers"}' in text


async def test_a_database_that_does_not_answer_is_ill_health(
    api: Caller, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_work: object) -> object:
        raise sa.exc.OperationalError("SELECT 1", None, Exception("no connection"))

    read = cloud.store.read
    monkeypatch.setattr(cloud.store, "read", lambda _work: read(gone))
    assert (await api.by(None).get("/healthcheck")).status == 503
    answer = await api.get("/v1/containers")
    assert (answer.status, answer.code) == (503, "container.database-unavailable")
    assert "connection" not in answer.text


async def test_a_statement_that_is_wrong_is_a_fault(
    api: Caller, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(conn: Connection) -> None:
        conn.execute(sa.text("SELECT no_such_column FROM host"))

    read = cloud.store.read
    monkeypatch.setattr(cloud.store, "read", lambda _work: read(wrong))
    answer = await api.get("/v1/containers")
    assert answer.status == 500 and "Error Correlation id" in answer.text
    assert "no_such_column" in caplog.text and "no_such_column" not in answer.text


async def test_figures_may_be_open(serve: Opener) -> None:
    api = await serve(open_metrics=True)
    assert (await api.by(None).get("/metrics")).status == 200


async def test_links_are_made_of_the_address_that_the_caller_used(serve: Opener, host: FakeHost) -> None:
    api = await serve(trust_forwarded=True)
    via = {"Host": "cloud.example:8443", "X-Forwarded-Proto": "https"}
    assert (await api.get("/", headers=via)).json["versions"][0]["links"][0]["href"] == "https://cloud.example:8443/v1/"
    odd = await api.get("/", headers={"Host": "evil<script>"})
    assert "<script>" not in odd.text
    fixed = await serve(public_url="https://api.example/container/v1")
    made = await fixed.post("/v1/containers", {"image": "busybox"})
    assert made.headers["Location"] == f"https://api.example/container/v1/containers/{made.json['uuid']}"
