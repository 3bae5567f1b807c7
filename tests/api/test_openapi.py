"""The OpenAPI document: it is valid, it tells the truth, and what it allows breaks nothing."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from aiohttp import encode_basic_auth, web
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

from higgins.api import openapi
from higgins.api.app import make_app
from higgins.api.auth import HttpBasic
from higgins.api.routes import ROUTES
from higgins.api.schemas.answers import ANSWERS
from higgins.control import containers, quotas
from higgins.control.cloud import Actor, Cloud
from higgins.model.container import ContainerSpec
from higgins.store.database import open_store
from tests.api.conftest import Caller
from tests.api.host import FakeHost
from tests.api.test_actions import running
from tests.api.test_capsules import TEMPLATE

DOCUMENT = openapi.document(ROUTES)


def conforms(name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": ANSWERS}}
    jsonschema_rs.validate(schema, value)


async def test_the_document_is_served_to_anybody(api: Caller) -> None:
    answer = await api.by(None).get("/v1/openapi.json")
    assert (answer.status, answer.json["openapi"]) == (200, "3.1.0")
    operations = [operation for path in answer.json["paths"].values() for operation in path.values()]
    assert len(operations) == len(ROUTES)
    identifiers = [operation["operationId"] for operation in operations]
    assert len(set(identifiers)) == len(identifiers)
    assert all(operation["summary"] for operation in operations)


async def test_what_is_answered_is_what_the_document_says(api: Caller, host: FakeHost) -> None:
    admin = api.by("admin").at("1.49")
    one = await running(admin, host, interactive=True)
    await admin.post("/v1/capsules", {"template": TEMPLATE})
    await admin.post("/v1/registries", {"registry": {"domain": "x.example", "name": "reg"}})
    await admin.post("/v1/images", {"repo": "busybox", "host": "host-1"})
    group = await admin.post("/v1/security_groups", {"name": "web", "rules": [{"remote_group_id": "default"}]})
    conforms("SecurityGroup", group.json)
    rule = await admin.post("/v1/security_groups/default/rules", {"protocol": "tcp"})
    conforms("SecurityGroupRule", rule.json)
    (action, *_) = (await admin.get(f"{one}/container_actions")).json["containerActions"]
    paths = {
        "/v1/containers/{container}/container_actions/{request}": f"{one}/container_actions/{action['request_id']}",
        "/v1/containers/{container}/get_archive": f"{one}/get_archive?path=/etc",
        "/v1/capsules/{capsule}": "/v1/capsules/pod",
        "/v1/images/{image}": f"/v1/images/{(await admin.get('/v1/images')).json['images'][0]['uuid']}",
        "/v1/images/{image}/search": "/v1/images/busybox/search",
        "/v1/hosts/{host}": "/v1/hosts/host-1",
        "/v1/quotas/{project}": "/v1/quotas/wonder?usages=True",
        "/v1/quotas/{project}/defaults": "/v1/quotas/wonder/defaults",
        "/v1/quota_classes/{quota_class}": "/v1/quota_classes/default",
        "/v1/registries/{registry}": "/v1/registries/reg",
        "/v1/security_groups/{security_group}": "/v1/security_groups/default",
    }
    for route in ROUTES:
        if route.method == "GET" and route.answer != "Stream":
            path = paths.get(route.path) or route.path.replace("/v1/containers/{container}", one)
            answer = await admin.get(path)
            assert answer.status == route.status, (path, answer.text)
            conforms(route.answer, answer.json)
    conforms("Capsule", (await admin.at("1.31").get("/v1/capsules/pod")).json)
    conforms("Error", (await admin.get("/v1/containers/none")).json)
    conforms("Error", (await admin.at("1.99").get("/v1/containers")).json)


class Served:
    """The API in a thread of its own, with a host that answers."""

    def __init__(self, database: Path, users: Path) -> None:
        self.address = ""
        self._made: dict[str, str] = {}
        self._database, self._users = database, users
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        store = open_store(f"sqlite:///{self._database}")
        self._cloud = Cloud(store, Fernet.generate_key())
        self._host = FakeHost(self._cloud, "host-1")
        self._host.follows = False
        await self._host.join()
        await quotas.update(self._cloud, "ops", dict.fromkeys(quotas.RESOURCES, -1))
        runner = web.AppRunner(make_app(self._cloud, auth=HttpBasic(self._users)), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()
        await store.close()

    async def _running(self) -> str:
        actor = Actor(user_id="admin", project_id="ops", is_admin=True, request_id="req-1")
        spec = ContainerSpec(image="busybox", interactive=True, cpu=0.1, memory=4)
        made = await containers.create(self._cloud, actor, containers.Draft(name=None, spec=spec), run=True)
        await self._host.settle()
        return made.uuid

    def running(self, operation: str) -> str:
        """The uuid of a container that runs, at least when ``operation`` is first tried on it."""
        if operation not in self._made:
            self._made[operation] = asyncio.run_coroutine_threadsafe(self._running(), self._loop).result(30)
        return self._made[operation]

    def __enter__(self) -> "Served":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, users: Path, sqlite: Path) -> Iterator[Served]:
    database = tmp_path_factory.mktemp("served") / "higgins.db"
    shutil.copy(sqlite, database)
    with Served(database, users) as opened:
        yield opened


schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path="/v1/events")


@schema.parametrize()
@settings(
    max_examples=4, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_whatever_the_document_allows_breaks_nothing(case: Any, served: Served) -> None:
    case.headers["Authorization"] = encode_basic_auth("admin", "admin")
    if "container" in (case.path_parameters or {}):
        case.path_parameters["container"] = served.running(case.operation.label)
    response = case.call(base_url=served.address, timeout=30)
    assert response.status_code not in (500, 502, 504), response.text
    case.validate_response(response, checks=[status_code_conformance], excluded_checks=[not_a_server_error])
