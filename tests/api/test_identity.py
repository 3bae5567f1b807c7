"""Tokens without Keystone: clients that can log in no other way do so with the users of HTTP Basic."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from keystoneauth1 import session
from keystoneauth1.identity import v3
from zunclient import client as zun

from higgins.api.app import make_app
from higgins.api.auth import HttpBasic, Identity
from higgins.control.cloud import Cloud
from higgins.model.errors import Unauthorized
from tests.api.conftest import Answer, Caller, password_file
from tests.api.host import FakeHost


@pytest.fixture
def database(sqlite: Path, tmp_path: Path) -> str:
    """One kind of store is enough here: nothing of a login is in it."""
    shutil.copy(sqlite, tmp_path / "higgins.db")
    return f"sqlite:///{tmp_path}/higgins.db"


def login(user: str, password: str, project: Any = ...) -> dict[str, Any]:
    identity = {"methods": ["password"], "password": {"user": {"name": user, "password": password}}}
    scope = {} if project is ... else {"scope": project}
    return {"auth": {"identity": identity} | scope}


async def log_in(api: Caller, body: Any) -> Answer:
    return await api.by(None).post("/v3/auth/tokens", body)


async def test_the_unmodified_client_logs_in_and_finds_the_service_in_the_catalog(api: Caller, host: FakeHost) -> None:
    base = str(api.client.make_url("/")).rstrip("/")
    assert (await api.create(name="web"))["name"] == "web"

    def work() -> Any:
        client = zun.Client(
            username="alice",
            password="alice",
            auth_url=f"{base}/v3",
            project_name="wonder",
            user_domain_id="default",
            project_domain_id="default",
        )
        try:
            return [item.name for item in client.containers.list()], client.http_client.get_endpoint()
        finally:
            client.http_client.session.session.close()

    assert await asyncio.to_thread(work) == (["web"], f"{base}/v1")


async def test_keystoneauth_reads_who_and_what_the_token_is_for(api: Caller) -> None:
    auth = v3.Password(
        auth_url=str(api.client.make_url("/v3")), username="rita", password="rita", user_domain_id="default"
    )

    def work() -> Any:
        opened = session.Session(auth)
        try:
            access = auth.get_access(opened)
        finally:
            opened.session.close()
        return access.user_id, access.project_id, access.role_names, access.will_expire_soon()

    assert await asyncio.to_thread(work) == ("rita", "wonder", ["reader"], False)


async def test_a_token_says_who_asks(api: Caller, host: FakeHost) -> None:
    await api.create(name="web")
    answer = await log_in(api, login("alice", "alice", {"project": {"name": "wonder", "domain": {"id": "default"}}}))
    assert answer.status == 201, answer.text
    bearer = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
    listed = await api.by(None).get("/v1/containers", headers=bearer)
    assert [item["name"] for item in listed.json["containers"]] == ["web"]
    assert (await api.by(None).get("/v1/hosts", headers=bearer)).status == 403
    assert (await api.get("/v1/containers", headers={"X-Auth-Token": "rubbish\u00e9"})).status == 401


@pytest.mark.parametrize(
    "body",
    [
        login("alice", "wrong"),
        login("nobody", "alice"),
        login("alice", "alice", {"project": {"name": "build"}}),
        {"auth": {"identity": {"methods": ["token"], "token": {"id": "x"}}}},
        {"auth": {"identity": {"methods": ["password"]}}},
    ],
)
async def test_who_cannot_log_in_is_told_so(api: Caller, body: Any) -> None:
    answer = await log_in(api, body)
    assert (answer.status, answer.code) == (401, "container.unauthorized")
    assert "X-Subject-Token" not in answer.headers


@pytest.mark.parametrize("body", [{}, {"auth": 7}, {"auth": {"identity": {"methods": "password"}}}, login("a", 1)])  # type: ignore[arg-type]
async def test_what_is_no_login_is_a_bad_request(api: Caller, body: Any) -> None:
    answer = await log_in(api, body)
    assert (answer.status, answer.code) == (400, "container.schema-validation-error")


async def test_paths_and_methods_of_it(api: Caller) -> None:
    assert (await api.by(None).get("/v3")).json["version"]["links"][0]["href"].endswith("/v3/")
    assert (await api.by(None).get("/v3/")).status == 200
    wrong = await api.by(None).get("/v3/auth/tokens")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "OPTIONS, POST")
    large = await log_in(api, login("a" * 20_000, "b"))
    assert large.status == 413


def request_with(token: str) -> web.Request:
    return make_mocked_request("GET", "/", headers={"X-Auth-Token": token})


async def test_a_token_ends_with_its_time_with_its_password_and_with_its_user(tmp_path: Path) -> None:
    users = password_file(tmp_path / "users")
    brief = HttpBasic(users, token_ttl=-1)
    with pytest.raises(Unauthorized):
        await brief.identify(request_with((await brief.log_in("alice", "alice"))[1]))
    for change in (_new_password, _no_user):
        auth = HttpBasic(password_file(users))
        _, token = await auth.log_in("alice", "alice")
        assert (await auth.identify(request_with(token))).user_id == "alice"
        users.write_text(change(users.read_text()))
        with pytest.raises(Unauthorized):
            await auth.identify(request_with(token))


def _no_user(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("alice:"))


def _new_password(text: str) -> str:
    (bob,) = (line for line in text.splitlines() if line.startswith("bob:"))
    return _no_user(text) + f"alice:{bob.split(':')[1]}:wonder:member\n"


async def test_a_token_of_one_process_is_good_in_another_that_has_the_secret(users: Path) -> None:
    one, other, stranger = (HttpBasic(users, secret=secret) for secret in (b"shared", b"shared", b"another"))
    _, token = await one.log_in("bob", "bob")
    assert (await other.identify(request_with(token))).project_id == "build"
    with pytest.raises(Unauthorized):
        await stranger.identify(request_with(token))


class Elsewhere:
    """Authentication that has tokens of its own, as Keystone's."""

    challenge = "Elsewhere"

    async def identify(self, request: web.Request) -> Identity:
        return Identity("u", "p", frozenset({"member"}))


async def test_where_keystone_is_there_is_nothing_in_its_place(cloud: Cloud) -> None:
    client: TestClient[Any, Any] = TestClient(TestServer(make_app(cloud, auth=Elsewhere())))
    await client.start_server()
    try:
        api = Caller(client, None)
        assert (await api.get("/v3")).status == 404
        assert (await log_in(api, login("alice", "alice"))).status == 404
    finally:
        await client.close()
