"""How much is asked of the database for a request: the same, however many containers there are."""

import asyncio

from higgins.control.cloud import Cloud
from tests.api.conftest import Caller
from tests.api.host import FakeHost

#: Requests as administrator and as owner, with the most statements that each may take, the transaction's own included.
READS = {
    "/v1/containers": 1,
    "/v1/containers?limit=5&sort_key=name&sort_dir=desc": 1,
    "/v1/containers?limit=5&status=Creating": 1,
    "/v1/containers?limit=5&marker={uuid}": 2,
    "/v1/containers/{uuid}": 1,
    "/v1/containers/c3": 1,
    "/v1/containers/{uuid}/container_actions": 2,
}
CREATE = {"sqlite": 17, "mariadb": 17, "postgresql": 6}


async def fill(api: Caller, count: int) -> None:
    have = len((await api.get("/v1/containers")).json["containers"])
    await asyncio.gather(*(api.create(name=f"c{have + n}", cpu=0.1, memory=4) for n in range(count - have)))


async def counted(api: Caller, statements: list[str]) -> dict[str, int]:
    uuid = (await api.get("/v1/containers/c3")).json["uuid"]
    counts = {}
    for path in READS:
        statements.clear()
        assert (await api.get(path.format(uuid=uuid))).status == 200
        counts[path] = len(statements)
    statements.clear()
    await api.create(name="another", cpu=0.1, memory=4)
    counts["create"] = len(statements)
    return counts


async def test_requests_take_as_many_statements_with_sixty_containers_as_with_ten(
    api: Caller, cloud: Cloud, host: FakeHost, statements: list[str]
) -> None:
    await api.by("admin").call("PUT", "/v1/quotas/wonder", {"containers": -1, "cpu": -1, "memory": -1})
    await fill(api, 10)
    few = await counted(api, statements)
    await fill(api, 60)
    assert await counted(api, statements) == few
    for path, most in (READS | {"create": CREATE[cloud.store.engine.dialect.name]}).items():
        assert few[path] <= most, (path, few[path])
