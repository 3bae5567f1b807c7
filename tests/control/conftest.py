"""A control plane on a real store of each kind, with one host that nobody serves and a clock that tests move."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from higgins.control import hosts, observing
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.link import Assignment, HostReport, Known, Observation
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec
from higgins.model.resources import HostInfo
from higgins.store.database import open_store


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 6, 1, 12)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Stop:
    """A place where a process is stopped (SIGSTOP) until it goes on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def here(self) -> None:
        self.reached.set()
        await self.goes_on.wait()


class Host:
    """The control plane's view of one host, and what that host would say."""

    def __init__(self, cloud: Cloud, number: int) -> None:
        self.cloud = cloud
        self.number = number

    async def holds(self) -> dict[str, Assignment]:
        """What the host is told to hold, by workload."""
        told = await hosts.assignments(self.cloud, self.number, -1, 1)
        assert told is not None
        return {one.uuid: one for one in told.workloads}

    async def knows(self) -> None:
        """The host has heard all that there is to be told now, and says so."""
        told = await hosts.assignments(self.cloud, self.number, -1, 1)
        assert told is not None
        assert await hosts.assignments(self.cloud, self.number, told.revision, 0) is None

    async def says(self, uuid: str, *, settled: bool = True, generation: int | None = None, **known: object) -> None:
        """Report on every member of a workload as its host would."""
        assignment = (await self.holds())[uuid]
        members = {
            one.uuid: Known(
                **{"incarnation": one.incarnation, "order_done": one.order.seq if one.order else 0, **known}  # type: ignore[arg-type]
            )
            for one in assignment.members
        }
        seen = Observation(
            workload=uuid, generation=generation or assignment.generation, members=members, settled=settled
        )
        await observing.observe(self.cloud, self.number, [seen])

    async def removed(self, uuid: str) -> None:
        """Report that nothing of a workload is left."""
        assignment = (await self.holds())[uuid]
        seen = Observation(workload=uuid, generation=assignment.generation, gone=True)
        await observing.observe(self.cloud, self.number, [seen])


def report(name: str = "one", **values: object) -> HostReport:
    defaults = {"zone": "nova", "cpus": 4, "memory": 8192, "disk": 200, "info": HostInfo(runtimes=("runc",))}
    return HostReport(name=name, **{**defaults, **values})  # type: ignore[arg-type]


def draft(name: str | None = None, **spec: object) -> Draft:
    return Draft(name=name, spec=ContainerSpec(image="busybox", **spec))  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def cloud(database: str, clock: Clock) -> AsyncIterator[Cloud]:
    store = open_store(database)
    yield Cloud(store, Fernet.generate_key(), Settings(), clock=clock)
    await store.close()


@pytest.fixture
async def host(cloud: Cloud) -> Host:
    return Host(cloud, await hosts.register(cloud, report()))


@pytest.fixture
def alice() -> Actor:
    return Actor(user_id="alice", project_id="red", request_id="req-1")


@pytest.fixture
def bob() -> Actor:
    return Actor(user_id="bob", project_id="blue", request_id="req-2")


@pytest.fixture
def admin() -> Actor:
    return Actor(user_id="root", project_id="admin", is_admin=True, request_id="req-3")
