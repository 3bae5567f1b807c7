"""Looking into a container: logs, commands, files, figures."""

import asyncio
import base64

import aiohttp
import msgspec
import pytest

from tests.api.conftest import Caller, Opener
from tests.api.host import LOG_LINES, FakeHost
from tests.api.test_actions import running


async def test_logs_are_a_bare_json_string(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    answer = await api.get(f"{one}/logs?stdout=True&stderr=False&timestamps=True&tail=all")
    assert (answer.status, answer.json) == (200, "first\nsecond �\n")
    assert host.options is not None
    assert (host.options.stdout, host.options.stderr, host.options.timestamps) == (True, False, True)
    assert (host.options.tail, host.options.since, host.options.follow) == (None, None, False)


@pytest.mark.parametrize(
    "since, seconds",
    [
        ("1000", 1000),
        ("1970-01-01 00:16:40,000", 1000),
        ("1970-01-01T00:16:40", 1000),
        ("at 1970-01-01 00:16:40,500 sharp", 1000.5),
        ("None", None),
    ],
)
async def test_logs_are_read_from_a_moment_on(api: Caller, host: FakeHost, since: str, seconds: float | None) -> None:
    one = await running(api, host)
    assert (await api.get(f"{one}/logs?tail=7&since={since.replace(' ', '%20')}")).status == 200
    assert host.options is not None
    assert host.options.tail == 7
    told = host.options.since
    assert (told and (told - told.__class__(1970, 1, 1)).total_seconds()) == seconds


@pytest.mark.parametrize("query", ["tail=few", "tail=-1", "since=yesterday", "since=2026-13-01 00:00:00", "stdout=x"])
async def test_bad_parameters_of_logs_are_named(api: Caller, query: str) -> None:
    answer = await api.get(f"/v1/containers/any/logs?{query.replace(' ', '%20')}")
    assert (answer.status, query.partition("=")[0] in answer.error["title"]) == (400, True)


async def test_a_long_log_keeps_its_end(serve: Opener, host: FakeHost) -> None:
    api = await serve(log_limit=6)
    one = await running(api, host)
    assert (await api.get(f"{one}/logs")).json == "cond �\n"[-6:]


async def test_a_followed_log_streams_until_it_ends(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    refused = await api.at("1.43").get(f"{one}/logs?follow=true")
    assert refused.code == "container.invalid-param-in-version"
    new = api.at("1.44")
    url = api.client.make_url(f"{one}/logs?follow=true")
    async with api.client.session.get(url, headers=new.headers()) as response:
        assert response.content_type == "text/plain"
        assert response.headers["X-Openstack-Request-Id"].startswith("req-")
        first = LOG_LINES.decode(errors="replace").encode()
        assert await response.content.readexactly(len(first)) == first
        # A character that comes in two pieces is one character.
        for piece in ("ü".encode()[:1], "ü".encode()[1:], None):
            host.more_logs.put_nowait(piece)
        assert (await response.content.read()).decode() == "ü"


async def test_a_command_gives_its_output_and_its_code(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    answer = await api.post(f"{one}/execute?command=echo+%27a+b%27&run=True&interactive=False")
    assert answer.json == {"output": "echo a b�", "exit_code": 3, "exec_id": None, "proxy_url": None}


async def test_files_go_in_and_out_as_base64_since_1_25(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    got = await api.get(f"{one}/get_archive?path=/etc")
    assert base64.b64decode(got.json["data"]) == host.archive
    assert set(got.json["stat"]) == {"name", "size", "mode", "mtime", "linkTarget"}
    put = await api.post(f"{one}/put_archive?path=/srv", {"data": base64.b64encode(b"\0tar").decode()})
    assert (put.status, put.text, host.put) == (200, "null", [("/srv", b"\0tar")])
    bad = await api.post(f"{one}/put_archive?path=/srv", {"data": "no base64"})
    assert (bad.status, "'data'" in bad.error["title"]) == (400, True)
    missing = await api.get(f"{one}/get_archive?path=/nowhere")
    assert (missing.status, missing.code) == (404, "container.path-not-found")
    assert "'path'" in (await api.get(f"{one}/get_archive")).error["title"]


async def test_files_were_plain_text_until_1_24(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    old = api.at("1.24")
    assert (await old.get(f"{one}/get_archive?path=/etc")).json["data"] == "a tar, as it were �"
    assert (await old.post(f"{one}/put_archive?path=/", {"data": "a tar\0\0 in plain"})).status == 200
    assert host.put == [("/", b"a tar\0\0 in plain")]
    for odd in ("\ud800", 7):
        refused = await old.post(f"{one}/put_archive?path=/", {"data": odd})
        assert (refused.status, "'data'" in refused.error["title"]) == (400, True)


async def test_a_large_archive_is_refused_as_json_and_streamed_as_tar(serve: Opener, host: FakeHost) -> None:
    api = await serve(archive_limit=100_000)
    one = await running(api, host)
    host.archive = bytes(range(256)) * 3000
    refused = await api.get(f"{one}/get_archive?path=/etc")
    assert (refused.status, "1.46" in refused.error["title"]) == (413, True)
    new = api.at("1.46")
    url = api.client.make_url(f"{one}/get_archive?path=/etc")
    accept = new.headers() | {"Accept": "application/x-tar"}
    async with api.client.session.get(url, headers=accept) as response:
        assert response.content_type == "application/x-tar"
        stat = msgspec.json.decode(base64.b64decode(response.headers["Higgins-Path-Stat"]))
        assert stat["name"] == "etc"
        assert await response.read() == host.archive
    put = await new.call(
        "POST", f"{one}/put_archive?path=/srv", data=host.archive, headers={"Content-Type": "application/x-tar"}
    )
    assert put.status == 200
    assert host.put == [("/srv", host.archive)]
    as_json = await new.post(f"{one}/put_archive?path=/", {"data": base64.b64encode(host.archive).decode()})
    assert as_json.status == 413


async def test_a_stream_that_breaks_off_does_not_look_whole(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    new = api.at("1.46")
    url = api.client.make_url(f"{one}/get_archive?path=/breaks")
    with pytest.raises(aiohttp.ClientError):
        async with api.client.session.get(url, headers=new.headers() | {"Accept": "application/x-tar"}) as response:
            await response.read()
    as_json = await api.get(f"{one}/get_archive?path=/breaks")
    assert (as_json.status, as_json.code) == (500, "container.engine-error")


async def test_the_seven_figures_are_there(api: Caller, host: FakeHost) -> None:
    one = await running(api, host, name="web")
    assert (await api.get(f"{one}/stats")).json == {
        "CONTAINER": "web", "CPU %": 12.5, "MEM USAGE(MiB)": 1.0, "MEM LIMIT(MiB)": 4.0, "MEM %": 25.0,
        "BLOCK I/O(B)": "1/2", "NET I/O(B)": "3/0",
    }  # fmt: skip


async def test_processes_are_shown_also_to_a_client_that_writes_none(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    told = {"Titles": ["PID", "CMD"], "Processes": [["1", "sleep None"]]}
    assert (await api.get(f"{one}/top?ps_args=None")).json == told
    assert (await api.get(f"{one}/top")).json == told
    assert (await api.get(f"{one}/top?ps_args=-o%20pid")).json["Processes"] == [["1", "sleep -o pid"]]
    assert (await api.get(f"{one}/top?ps_args=%24(x)")).status == 400


async def test_an_image_is_made_of_a_container(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    answer = await api.post(f"{one}/commit?repository=mine&tag=v1")
    assert (answer.status, set(answer.json)) == (202, {"uuid"})
    image = (await api.by("admin").get(f"/v1/images/{answer.json['uuid']}")).json
    assert (image["repo"], image["tag"], image["host"]) == ("mine", "v1", "host-1")
    assert "commit" in [item["action"] for item in (await api.get(f"{one}/container_actions")).json["containerActions"]]


async def test_a_host_that_does_not_answer_is_told_as_such(api: Caller, host: FakeHost) -> None:
    one = await running(api, host)
    api_cloud = host.cloud
    api_cloud.disconnect("host-1")
    for answer in await asyncio.gather(api.get(f"{one}/logs"), api.get(f"{one}/stats"), api.get(f"{one}/top")):
        assert (answer.status, answer.code) == (503, "container.host-unavailable")
        assert "host-1" in answer.error["title"]
    assert (await api.get(one)).status == 200
