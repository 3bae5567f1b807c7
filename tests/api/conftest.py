"""The real application with a real store in SQLite, callers of several roles, and one fake host."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import pytest
import sqlalchemy as sa
from aiohttp.test_utils import TestClient, TestServer
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, settings
from yarl import URL

from higgins.api.app import make_app
from higgins.api.auth import HttpBasic
from higgins.api.call import ApiSettings
from higgins.control.cloud import Cloud
from higgins.store.database import Store, open_store
from tests.api.host import FakeHost

#: No clock and no chance decides whether a property holds.
settings.register_profile(
    "steady", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

#: user: (project, roles); the password is the user's name.
USERS = {
    "admin": ("ops", "admin"),
    "alice": ("wonder", "member"),
    "rita": ("wonder", "reader"),
    "mandy": ("wonder", "manager"),
    "bob": ("build", "member"),
    "sam": ("service", "service"),
    "nora": ("wonder", ""),
}
LATEST = "container latest"
ZUN = "container 1.40"


def password_file(path: Path) -> Path:
    lines = [
        f"{user}:{bcrypt.hashpw(user.encode(), bcrypt.gensalt(4)).decode()}:{project}:{roles}\n"
        for user, (project, roles) in USERS.items()
    ]
    path.write_text("# who is who\n\n" + "".join(lines))
    return path


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return password_file(tmp_path_factory.mktemp("auth") / "users")


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    opened = open_store(database)
    yield opened
    await opened.close()


@pytest.fixture
def cloud(store: Store) -> Cloud:
    return Cloud(store, Fernet.generate_key())


@pytest.fixture
async def host(cloud: Cloud) -> FakeHost:
    joined = FakeHost(cloud, "host-1")
    await joined.join()
    return joined


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The SQL statements that were run, on any connection; to be cleared before what is counted."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("SET SESSION"):  # what a connection is told first: a thread made one just now
            seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


class Answer:
    """A reply that was read whole."""

    def __init__(self, response: aiohttp.ClientResponse, text: str, value: Any) -> None:
        self.status, self.headers, self.text, self.json = response.status, response.headers, text, value

    @property
    def error(self) -> dict[str, Any]:
        (entry,) = self.json["errors"]
        assert entry["status"] == self.status
        assert set(entry) >= {"request_id", "code", "status", "title", "detail", "links"}
        return dict(entry)

    @property
    def code(self) -> str:
        return str(self.error["code"])


class Caller:
    """One user of the API; ``call`` checks nothing, so that refusals can be looked at."""

    def __init__(self, client: TestClient[Any, Any], user: str | None = "alice", version: str | None = ZUN) -> None:
        self.client, self.user, self.version = client, user, version

    def at(self, version: str | None) -> "Caller":
        return Caller(self.client, self.user, version and f"container {version}")

    def by(self, user: str | None) -> "Caller":
        return Caller(self.client, user, self.version)

    def headers(self) -> dict[str, str]:
        told = {}
        if self.user is not None:
            told["Authorization"] = aiohttp.encode_basic_auth(self.user, self.user)
        if self.version is not None:
            told["OpenStack-API-Version"] = self.version
        return told

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        headers = self.headers() | more.pop("headers", {})
        if body is not None:
            more["json"] = body
        url = URL(f"{str(self.client.make_url('/')).rstrip('/')}{path}", encoded=True)
        async with self.client.session.request(method, url, headers=headers, **more) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return Answer(response, text, await response.json() if is_json else None)

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return await self.call("POST", path, body, **more)

    async def create(self, *, run: bool = True, **fields: Any) -> dict[str, Any]:
        """A container of this caller's."""
        answer = await self.post(f"/v1/containers?run={run}", {"image": "busybox"} | fields)
        assert answer.status == 202, answer.text
        assert isinstance(answer.json, dict)
        return answer.json


Opener = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def serve(cloud: Cloud, users: Path) -> AsyncIterator[Opener]:
    """Open the API with settings of one's own."""
    clients: list[TestClient[Any, Any]] = []

    async def opened(policy_file: Path | None = None, **options: Any) -> Caller:
        app = make_app(cloud, auth=HttpBasic(users), policy_file=policy_file, settings=ApiSettings(**options))
        client: TestClient[Any, Any] = TestClient(TestServer(app))
        await client.start_server()
        clients.append(client)
        return Caller(client)

    yield opened
    for client in clients:
        await client.close()


@pytest.fixture
async def api(serve: Opener) -> Caller:
    return await serve()
