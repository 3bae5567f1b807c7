"""A host that is cut off ends what is placed elsewhere before it runs there, and keeps the rest, addresses and all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import need
from tests.engines.images import busybox_archive
from tests.hosts.chaos.cloud import ChaosCloud, chaos_cloud, held
from tests.hosts.chaos.load import IDLE, Client

__all__ = ["busybox_archive"]

SETTINGS = "[containers]\nhost_lease = 15\nfence_time = 8\n"
#: Seconds that anything may take: a lease, the time to end, a round of the control plane, on a loaded machine.
PATIENCE = 300


@pytest.fixture
def cloud(own_namespaces: None, busybox_archive: Path) -> Iterator[ChaosCloud]:
    need("dockerd", "docker", "runc", "catatonit", "ip", "nsenter")
    with chaos_cloud(busybox_archive, settings=SETTINGS) as made:
        yield made


@pytest.fixture
async def client(cloud: ChaosCloud) -> AsyncIterator[Client]:
    made = Client([one.url for one in cloud.replicas], cloud.replicas[0].credentials())
    yield made
    await made.close()


async def until(claim: Callable[[], Awaitable[bool]], what: str) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + PATIENCE
    while not await claim():
        assert clock() < deadline, what
        await asyncio.sleep(0.5)


async def run(client: Client, name: str, **more: Any) -> str:
    """A container that runs; its uuid."""
    body = {"name": name, "image": "busybox", "command": list(IDLE), **more}
    answers, made = await client.insist("POST", "containers?run=true", json=body, headers={"Idempotency-Key": name})
    assert answers[-1].status == 202, answers

    async def runs() -> bool:
        return bool((await shown(client, made["uuid"]))["status"] == "Running")

    await until(runs, f"{name} does not run")
    return str(made["uuid"])


async def shown(client: Client, uuid: str) -> dict[str, Any]:
    _, found = await client.insist("GET", f"containers/{uuid}")
    assert found is not None
    view: dict[str, Any] = found
    return view


@pytest.mark.timeout(1200)
async def test_a_host_that_is_cut_off_ends_what_runs_elsewhere_then_and_nothing_else(
    cloud: ChaosCloud, client: Client
) -> None:
    leaves = await run(client, "leaves", auto_heal=True)
    here = (await shown(client, leaves))["host"]
    stays = await run(client, "stays", auto_heal=True, host=here)
    old = next(one for one in cloud.machines if one.name == here)
    _, beside = await client.insist("POST", "networks", json={"name": "beside"})
    await client.insist("POST", f"containers/{stays}/network_attach?network=beside")

    async def on_both() -> bool:
        return beside["uuid"] in (found := await shown(client, stays))["addresses"] and found["task_state"] is None

    async def network_gone() -> bool:
        answer, _ = await client.ask("DELETE", "networks/beside")
        assert answer.status in (204, 409), answer
        return answer.status == 204

    async def ended() -> bool:
        return leaves not in held(old).running

    async def elsewhere() -> bool:
        found = await shown(client, leaves)
        if found["host"] == here:
            return False
        assert leaves not in held(old).running, "it was placed elsewhere while it ran here"
        return bool(found["status"] == "Running")

    async def removed() -> bool:
        return leaves not in held(old).others

    await until(on_both, "the network was not attached")
    with old.cut_off():
        answers, _ = await client.insist("POST", f"containers/{stays}/network_detach?network=beside")
        assert answers[-1].status == 202, answers
        await until(ended, "the host did not end it")
        await until(elsewhere, "it does not run elsewhere")
        assert stays in held(old).running
        assert beside["uuid"] not in (await shown(client, stays))["addresses"]
        assert not await network_gone(), "its address is used by a container that nobody reaches"
    await until(removed, "the host kept what is elsewhere")
    assert stays in held(old).running
    found = await shown(client, stays)
    assert found["host"] == here
    await until(network_gone, "the host did not say that it is without the port")
