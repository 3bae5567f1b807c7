"""What every call of the table of routes refuses: 400, 404, 406, 409, 413 and 415, with the code and what is wrong.

A route that is added is tried too. Who is refused by the policy (403) is in ``test_policy.py``, the values of a
container's fields in ``test_fields.py``, a capsule's in ``test_capsules.py``.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from higgins.api.microversion import MAXIMUM, MINIMUM, Version
from higgins.api.routes import ROUTES, Route
from higgins.api.schemas.fields import Fields
from higgins.control.cloud import Cloud
from higgins.model.container import ALLOWED, Status
from tests.api.conftest import Answer, Caller, Opener
from tests.api.host import FakeHost
from tests.api.test_policy import concrete

SCHEMA = "container.schema-validation-error"


@pytest.fixture
def database(sqlite: Path, tmp_path: Path) -> str:
    """One kind of store is enough here: almost all of it is refused before the store is asked."""
    shutil.copy(sqlite, tmp_path / "higgins.db")
    return f"sqlite:///{tmp_path}/higgins.db"


def as_admin(api: Caller, route: Route) -> Caller:
    return Caller(api.client, "admin", f"container {route.until}")


async def ask(api: Caller, route: Route, suffix: str = "", **more: Any) -> Answer:
    return await as_admin(api, route).call(route.method, f"{concrete(route, 'ops')}{suffix}", **more)


def bodied(route: Route) -> bool:
    return route.body is not None or route.either is not None


def fields_of(route: Route) -> Fields:
    """What a route takes where it is most likely to: in the body, or else in the query."""
    return next((fields for fields in (route.body, route.either) if fields is not None), route.query)


BODIED = tuple(route for route in ROUTES if bodied(route))
#: Zones are few, and never come in pages.
PAGED = tuple(
    route
    for route in ROUTES
    if any(field.name == "sort_dir" for field in route.query) and "availability_zones" not in route.path
)


# 406


async def test_a_call_is_not_acceptable_outside_its_versions(api: Caller) -> None:
    for route in ROUTES:
        outside = [Version(1, route.since.minor - 1)] if route.since > MINIMUM else []
        outside += [Version(1, route.until.minor + 1)] if route.until < MAXIMUM else []
        outside += route.gap or ()
        for version in outside:
            answer = await api.by("admin").at(str(version)).call(route.method, concrete(route))
            assert (answer.status, answer.code, answer.error["title"]) == (406, "container.", "Not Acceptable")
            assert f"not supported in version {version}" in answer.error["detail"]


# 400


async def test_a_query_parameter_that_nobody_knows_is_named(api: Caller) -> None:
    for route in (route for route in ROUTES if not route.lax and route.method in ("GET", "DELETE")):
        answer = await ask(api, route, "?colour=red")
        assert answer.status == 400, f"{route.path}: {answer.text}"
        assert "colour" in answer.error["title"]


async def test_a_field_of_a_body_that_nobody_knows_is_named(api: Caller) -> None:
    for route in BODIED:
        known = {field.name: None for field in fields_of(route) if field.required}
        answer = await ask(api, route, body={"colour": "red"} | known)
        assert (answer.status, answer.code) == (400, SCHEMA), f"{route.path}: {answer.text}"
        assert "colour" in answer.error["title"]


async def test_a_field_that_is_missing_is_named(api: Caller) -> None:
    for route in (route for route in ROUTES if any(field.required for field in fields_of(route))):
        answer = await (ask(api, route, body={}) if bodied(route) else ask(api, route))
        assert (answer.status, answer.code) == (400, SCHEMA), f"{route.path}: {answer.text}"
        missing = [field.name for field in fields_of(route) if field.required and field.serves(route.until)]
        assert f"'{missing[0]}'" in answer.error["title"]


async def test_a_body_that_is_no_json_object_is_refused(api: Caller) -> None:
    for route in BODIED:
        for data in (b"{", b"[]", b'"x"'):
            answer = await ask(api, route, data=data, headers={"Content-Type": "application/json"})
            assert (answer.status, answer.code) == (400, SCHEMA), f"{route.path}: {answer.text}"
            assert "body" in answer.error["title"]


@pytest.mark.parametrize(
    "query, code, word",
    [
        ("limit=0", SCHEMA, "limit"),
        ("limit=-1", SCHEMA, "limit"),
        ("limit=many", SCHEMA, "limit"),
        ("sort_dir=up", SCHEMA, "sort_dir"),
        ("sort_key=colour", "container.invalid-parameter-value", "colour"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(api: Caller, query: str, code: str, word: str) -> None:
    for route in PAGED:
        answer = await ask(api, route, f"?{query}")
        assert answer.status == 400, f"{route.path}: {answer.text}"
        assert answer.code in (code, "container.invalid-value")
        assert word in answer.error["title"]


async def test_all_projects_is_yes_or_no(api: Caller) -> None:
    for route in (route for route in ROUTES if any(field.name == "all_projects" for field in route.query)):
        if not route.streams:
            answer = await ask(api, route, "?all_projects=some")
            assert answer.status == 400, f"{route.path}: {answer.text}"
            assert "all_projects" in answer.error["title"]


# 404


#: What is looked for by each variable part of a path.
NOUNS = {
    "container": "container", "capsule": "container", "image": "image", "network": "network", "host": "compute-node",
    "registry": "registry", "volume": "volume", "security_group": "security-group",
}  # fmt: skip
#: What these need before anything is looked for.
BODIES: dict[str, dict[str, Any]] = {
    "rebuild": {}, "execute": {"command": "ls"}, "resize": {"h": 1, "w": 1}, "commit": {"repository": "mine"},
    "execute_resize": {"exec_id": "a" * 64, "h": 1, "w": 1}, "put_archive": {"path": "/", "data": ""},
    "network_attach": {"network": "n"}, "network_detach": {"network": "n"}, "rename": {"name": "other"},
    "add_security_group": {"name": "n"}, "remove_security_group": {"name": "n"}, "resize_container": {"cpu": 1},
    "{container}": {"cpu": 1}, "{registry}": {"registry": {"name": "other"}},
    "{security_group}": {"name": "other"}, "rules": {"protocol": "icmp"},
}  # fmt: skip


async def test_what_is_not_there_is_not_found(api: Caller) -> None:
    for route in ROUTES:
        noun = next((noun for noun in NOUNS if f"{{{noun}}}" in route.path), None)
        if noun is None or route.path.endswith("/search"):
            continue
        body = BODIES.get(route.path.rpartition("/")[2], {}) if bodied(route) else None
        answer = await ask(api, route, "?path=/" if route.path.endswith("get_archive") else "", body=body)
        assert (answer.status, answer.code) == (404, f"container.{NOUNS[noun]}-not-found"), (
            f"{route.path}: {answer.text}"
        )
        assert " x " in answer.error["title"]


async def test_a_page_after_what_is_not_there_is_not_found(api: Caller) -> None:
    for route in PAGED:
        answer = await ask(api, route, "?marker=0a0a0a0a-0000-0000-0000-000000000000")
        assert answer.status == 404, f"{route.path}: {answer.text}"
        assert "0a0a0a0a" in answer.error["title"]


# 413 and 415


async def test_a_body_of_another_type_or_too_large_is_refused(serve: Opener) -> None:
    api = await serve(body_limit=50, files_limit=50, archive_limit=50)
    for route in BODIED:
        other = await ask(api, route, data=b"{}", headers={"Content-Type": "text/plain"})
        assert (other.status, other.code) == (415, "container.unsupported-media-type")
        large = await ask(api, route, body={"a": "b" * 50})
        assert (large.status, large.code) == (413, "container.request-entity-too-large")
        assert "larger than 50 bytes" in large.error["title"]


# 409: what a state forbids, as Zun has it; an owner may delete in any


C, R, S, P, E = Status.CREATED, Status.RUNNING, Status.STOPPED, Status.PAUSED, Status.ERROR
STATES: dict[str, set[Status]] = {
    "start": {C, S, E}, "stop": {R}, "reboot": {C, R, S, E}, "rebuild": {C, R, S, E}, "pause": {R}, "unpause": {P},
    "kill": {R}, "execute": {R}, "execute_resize": {R}, "resize": {R}, "attach": {R}, "top": {R}, "stats": {R},
    "resize_container": {C, R, S, P}, "get_archive": {C, P, R, S}, "put_archive": {C, P, R, S},
    "logs": {C, E, P, R, S}, "commit": {R, S, P},
}  # fmt: skip
ROUTE_OF = {route.path.rpartition("/")[2]: route for route in ROUTES if "/{container}/" in route.path}


async def in_state(api: Caller, host: FakeHost, status: Status) -> str:
    """A container of that status; its uuid."""
    uuid = str((await api.create(run=status is not C, interactive=True, name="some"))["uuid"])
    await host.settle()
    if status is E:
        await host.report("error", error="It is broken.")
    elif status in (S, P):
        await api.post(f"/v1/containers/{uuid}/{'stop' if status is S else 'pause'}")
        await host.settle()
    assert (await api.get(f"/v1/containers/{uuid}")).json["status"] == status
    return uuid


@pytest.mark.parametrize("status", [C, R, S, P, E], ids=str)
async def test_a_state_forbids_what_it_forbids_in_zun_and_nothing_else(
    api: Caller, host: FakeHost, status: Status
) -> None:
    uuid = await in_state(api, host, status)
    for verb, allowed in STATES.items():
        if status in allowed:
            assert status in ALLOWED[verb], verb  # what it then does has tests of its own
            continue
        route = ROUTE_OF[verb]
        body = BODIES.get(verb, {}) if bodied(route) else None
        answer = await as_admin(api, route).call(
            route.method, f"/v1/containers/{uuid}/{verb}{'?path=/' if verb == 'get_archive' else ''}", body
        )
        assert (answer.status, answer.code) == (409, "container.invalid-state-exception"), (verb, answer.text)
        assert uuid in answer.error["title"] and str(status) in answer.error["title"]
    if status is E:
        refused = await api.call("PATCH", f"/v1/containers/{uuid}", {"cpu": 1})
        assert (refused.status, refused.code) == (409, "container.invalid-state-exception")


async def test_what_is_there_already_or_still_used_is_a_conflict(api: Caller, host: FakeHost) -> None:
    admin = api.by("admin")
    uuid = (await admin.create(name="one"))["uuid"]
    await admin.create(name="twin")
    await admin.create(name="twin")
    await host.settle()
    network = (await admin.at("1.47").get("/v1/networks")).json["networks"][0]["uuid"]
    made = await admin.post("/v1/registries", {"registry": {"domain": "reg.example", "name": "mine"}})
    registry = made.json["registry"]["uuid"]
    await admin.create(name="other", registry="mine")
    for method, path, body, code, word in (
        ("GET", "/v1/containers/twin", None, "container.conflict", "twin"),
        ("POST", "/v1/networks", {"name": "default"}, "container.network-already-exists", "default"),
        ("DELETE", f"/v1/networks/{network}", None, "container.conflict", "default"),
        ("DELETE", f"/v1/registries/{registry}", None, "container.conflict", registry),
        ("DELETE", "/v1/services?host=host-1&binary=zun-compute", None, "container.conflict", "host-1"),
        ("DELETE", f"/v1/containers/{uuid}", None, "container.invalid-state-exception", uuid),
    ):
        answer = await admin.call(method, path, body)
        assert (answer.status, answer.code) == (409, code), (path, answer.text)
        assert word in answer.error["title"], answer.text


@pytest.mark.parametrize("scope, project", [("project", "alice"), ("global", "bob")])
async def test_a_name_that_is_taken_is_a_conflict_where_names_are_unique(
    cloud: Cloud, api: Caller, host: FakeHost, scope: str, project: str
) -> None:
    cloud.settings = structs.replace(cloud.settings, unique_names=scope)
    await api.create(name="web")
    answer = await api.by(project).post("/v1/containers", {"image": "busybox", "name": "web"})
    assert (answer.status, answer.code) == (409, "container.container-already-exists")
    assert "web" in answer.error["title"]
