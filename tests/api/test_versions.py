"""The version documents, and which microversion a request is made in."""

from pathlib import Path

import pytest

from higgins.api.microversion import MAXIMUM, MINIMUM
from tests.api.conftest import Caller


async def test_the_root_tells_the_versions_without_authentication(api: Caller) -> None:
    answer = await api.by(None).get("/")
    assert answer.status == 200
    (version,) = answer.json["versions"]
    assert version == answer.json["default_version"]
    assert (version["id"], version["status"], version["min_version"]) == ("v1", "CURRENT", "1.1")
    assert tuple(map(int, version["max_version"].split("."))) >= (1, 40)
    assert version["links"][0]["href"].endswith("/v1/")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "//v1//"])
async def test_v1_tells_where_each_noun_is(api: Caller, path: str) -> None:
    answer = await api.by(None).get(path)
    assert answer.status == 200
    nouns = {"services", "containers", "images", "networks", "hosts", "availability_zones", "capsules", "quotas"}
    assert nouns | {"quota_classes", "registries"} <= set(answer.json)
    assert [link["rel"] for link in answer.json["containers"]] == ["self", "bookmark"]
    assert answer.json["media_types"][0]["type"] == "application/vnd.openstack.zun.v1+json"


@pytest.mark.parametrize(
    "asked, told",
    [
        (None, "1.1"),
        ("container 1.1", "1.1"),
        ("container 1.40", "1.40"),
        ("application-container 1.12", "1.12"),
        ("compute 2.1, container 1.7", "1.7"),
        ("container latest", str(MAXIMUM)),
        ("container 1.latest", str(MAXIMUM)),
    ],
)
async def test_each_reply_tells_the_version_it_was_made_in(api: Caller, asked: str | None, told: str) -> None:
    answer = await Caller(api.client, "alice", asked).get("/v1/containers")
    assert answer.status == 200
    assert answer.headers["OpenStack-API-Version"] == f"container {told}"
    assert answer.headers["OpenStack-API-Minimum-Version"] == "container 1.1"
    assert answer.headers["OpenStack-API-Maximum-Version"] == f"container {MAXIMUM}"
    assert "OpenStack-API-Version" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "asked", ["compute 1.5", "1.5", "container", "container x.y", "container 1.5.6", "container -1"]
)
async def test_a_version_that_cannot_be_read_is_not_acceptable(api: Caller, asked: str) -> None:
    answer = await Caller(api.client, "alice", asked).get("/v1/containers")
    assert (answer.status, answer.code, answer.error["title"]) == (406, "container.", "Not Acceptable")
    assert "OpenStack-API-Version" in answer.error["detail"]


@pytest.mark.parametrize("asked", ["1.0", f"1.{MAXIMUM.minor + 1}", "2.1", "1.99999", "999999.1"])
async def test_a_version_out_of_range_is_told_the_range(api: Caller, asked: str) -> None:
    answer = await api.at(asked).get("/v1/containers")
    assert (answer.status, answer.code) == (406, "zun.microversion-unsupported")
    assert (answer.error["min_version"], answer.error["max_version"]) == ("1.1", str(MAXIMUM))
    assert answer.error["links"][0]["rel"] == "help"
    assert answer.headers["OpenStack-API-Maximum-Version"] == f"container {MAXIMUM}"


def test_the_history_tells_every_version() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api-history.md").read_text()
    for minor in range(MINIMUM.minor, MAXIMUM.minor + 1):
        assert f"\n| 1.{minor} | " in text
