"""The count finds whatever does not add up, and nothing where all does."""

from typing import Any

import pytest
import sqlalchemy as sa

from higgins.control import capsules, containers
from higgins.control.audit import Difference, audit
from higgins.control.capsules import CapsuleDraft
from higgins.control.cloud import Actor, Cloud
from higgins.model.container import ContainerSpec, Mount
from higgins.store.schema import container, core, host, port, project, volume, workload
from tests.control.conftest import Host, draft

#: Numbers of rows begin anywhere.
HOST = sa.select(sa.func.min(host.c.id)).scalar_subquery()
WORKLOAD = sa.select(sa.func.min(workload.c.id)).scalar_subquery()

SPOILED: dict[str, tuple[Any, str, str]] = {
    "memory": (sa.update(host).values(memory_used=1), "claim", "1 of memory are claimed, and 1600 are held"),
    "containers": (sa.update(host).values(containers=7), "claim", "7 of containers are claimed, and 3 are held"),
    "tenant": (sa.update(host).values(tenant="red"), "claim", "it counts as that of 'red', and holds"),
    "cores": (sa.update(host).values(cores_used=2), "core", "2 cores are claimed, and 0 are given"),
    "core": (
        sa.insert(core).values(host_id=HOST, number=3, workload_id=WORKLOAD), "core", "0 cores are claimed, and 1 are",
    ),
    "quota": (sa.update(project).where(project.c.id == "red").values(cpu=9), "quota", "9 of cpu are charged, and 3"),
    "project": (sa.delete(project).where(project.c.id == "blue"), "quota", "it has workloads and is charged for"),
    "place": (
        sa.update(container).where(container.c.name == "web").values(host="x"), "place", "it says host x, and its",
    ),
    "volume": (sa.update(volume).values(deleting=True), "volume", "mounts it, and it is gone"),
    "elsewhere": (sa.update(volume).values(host_id=None), "volume", "it lies elsewhere than workload"),
    "port": (sa.delete(port).where(port.c.workload_id == WORKLOAD), "port", "it is on a host and has no port"),
    "address": (sa.update(port).where(port.c.workload_id == WORKLOAD).values(uuid="x"), "port", "its addresses are"),
}  # fmt: skip


@pytest.fixture
async def full(cloud: Cloud, host: Host, alice: Actor, bob: Actor) -> Cloud:
    """A cloud with a bit of everything, in which all adds up."""
    await containers.create(cloud, alice, draft("web", mounts=(Mount(destination="/d", size=1),)), run=True)
    await containers.create(cloud, bob, draft("db", memory=64), run=True)
    spec = ContainerSpec(image="busybox")
    await capsules.create(cloud, alice, CapsuleDraft(name="pod", init_containers=(spec,), containers=(spec, spec)))
    return cloud


async def test_there_is_no_difference_where_all_adds_up(full: Cloud) -> None:
    assert await full.store.read(audit) == []


@pytest.mark.parametrize("what", SPOILED)
async def test_whatever_does_not_add_up_is_told(full: Cloud, what: str) -> None:
    statement, kind, says = SPOILED[what]
    await full.store.write(lambda conn: conn.execute(statement).rowcount)
    found = await full.store.read(audit)
    assert [one for one in found if one.kind == kind and says in one.says], found


async def test_a_workload_that_nobody_holds_any_more_is_told(full: Cloud) -> None:
    query = sa.select(workload.c.uuid).where(workload.c.kind == "capsule")

    def work(conn: sa.Connection) -> str:
        conn.execute(sa.delete(container).where(container.c.role != "plain"))
        return str(conn.execute(query).scalar_one())

    uuid = await full.store.write(work)
    assert Difference("place", uuid, "it has no containers") in await full.store.read(audit)
