"""The agent of another machine: the same agent, with the control plane at the other end of a network."""

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import structs

from higgins.agent import certificates
from higgins.agent.agent import Agent
from higgins.agent.certificates import Certificates
from higgins.agent.remote import RemoteLink
from higgins.control import containers, hosts
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.identities import Identity, key_pem, new_key
from higgins.control.link import ControlUnavailable
from higgins.control.wire import Joined
from higgins.model.container import ContainerSpec, Status
from higgins.model.errors import NotFound
from higgins.store.schema import certificate
from tests.hosts.conftest import SECRET
from tests.hosts.places import RemoteHost, Replica, eventually, report
from tests.unit.fakes import FakeNetwork, FakeRuntime, FakeVolumes


class Machine:
    """The agent of a host over an engine in memory."""

    def __init__(self, host: RemoteHost) -> None:
        self.runtime, self.network, self.volumes = FakeRuntime(), FakeNetwork(), FakeVolumes()
        fakes: Any = (host.link, self.runtime, self.network, self.volumes)
        self.agent = Agent(*fakes, data=host.data, report=report(host.name), dns=())
        self.task = asyncio.ensure_future(self.agent.run())

    async def stop(self) -> None:
        await self.agent.stop()
        await asyncio.wait({self.task})


@pytest.fixture
async def machine(stack: AsyncExitStack, host: RemoteHost) -> Machine:
    made = Machine(host)
    stack.push_async_callback(made.stop)
    return made


async def create(cloud: Cloud, actor: Actor) -> str:
    return (await containers.create(cloud, actor, Draft(name=None, spec=ContainerSpec(image="busybox")), run=True)).uuid


async def becomes(cloud: Cloud, actor: Actor, uuid: str, status: Status | None) -> None:
    """Until the container has this status; None: until it is gone."""
    async with asyncio.timeout(30):
        while True:
            try:
                found = (await containers.get(cloud, actor, uuid)).status
            except NotFound:
                found = None
            if found == status:
                return
            await asyncio.sleep(0.02)


async def test_a_container_lives_on_a_host_that_joined_over_the_network(
    cloud: Cloud, machine: Machine, host: RemoteHost, alice: Actor
) -> None:
    uuid = await create(cloud, alice)
    await becomes(cloud, alice, uuid, Status.RUNNING)
    assert machine.runtime.state(uuid) == "running" and machine.network.wired
    machine.runtime.end(uuid, 3)
    await becomes(cloud, alice, uuid, Status.STOPPED)
    await containers.delete(cloud, alice, uuid)
    await becomes(cloud, alice, uuid, None)
    assert not machine.runtime.boxes and not machine.network.wired
    shown = await hosts.get(cloud, host.name)
    assert shown.up and shown.cpus == 8 and shown.report_count > 0


async def test_an_agent_outlives_its_control_plane_and_tells_later_what_it_saw(
    cloud: Cloud, alice: Actor, tmp_path: Path, streams: Any
) -> None:
    async with AsyncExitStack() as stack:
        async with AsyncExitStack() as first:
            replica = await Replica.open(first, cloud)
            host = await RemoteHost.open(stack, replica, tmp_path / "one", streams)
            machine = Machine(host)
            stack.push_async_callback(machine.stop)
            uuid = await create(cloud, alice)
            await becomes(cloud, alice, uuid, Status.RUNNING)
        machine.runtime.end(uuid, 1)  # while nobody listens
        with pytest.raises(ControlUnavailable, match=f"The control plane at {replica.url} does not answer"):
            await host.link.observe(host.number, [])
        assert not machine.task.done()
        await Replica.open(stack, Cloud(cloud.store, SECRET), replica.port)
        await becomes(cloud, alice, uuid, Status.STOPPED)
        another = await create(cloud, alice)
        await becomes(cloud, alice, another, Status.RUNNING)


def test_an_agent_holds_no_code_that_talks_to_the_database() -> None:
    look = "import sys, higgins.cli.agent; print({'sqlalchemy', 'higgins.store'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


async def test_a_long_poll_is_answered_when_something_changes_and_otherwise_in_its_time(
    cloud: Cloud, host: RemoteHost, alice: Actor
) -> None:
    told = await host.link.assignments(host.number, -1, 30)
    assert told is not None and told.workloads == ()
    assert await host.link.assignments(host.number, told.revision, 0.01) is None
    waiting = asyncio.ensure_future(host.link.assignments(host.number, told.revision, 60))
    await asyncio.sleep(0.1)
    uuid = await create(cloud, alice)
    async with asyncio.timeout(30):
        changed = await waiting
    assert changed is not None and [one.uuid for one in changed.workloads] == [uuid]


async def test_a_control_plane_that_ends_waits_for_no_long_poll(cloud: Cloud, tmp_path: Path, streams: Any) -> None:
    async with AsyncExitStack() as stack:
        async with AsyncExitStack() as first:
            replica = await Replica.open(first, cloud)
            host = await RemoteHost.open(stack, replica, tmp_path / "one", streams)
            told = await host.link.assignments(host.number, -1, 30)
            assert told is not None
            waiting = asyncio.ensure_future(host.link.assignments(host.number, told.revision, 60))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            async with asyncio.timeout(20):
                await first.aclose()
        with pytest.raises(ControlUnavailable):
            await waiting


async def test_a_certificate_is_renewed_at_half_its_time_and_the_old_one_goes_on_meanwhile(
    replica: Replica, host: RemoteHost, cloud: Cloud
) -> None:
    first = host.certificates.membership
    remaining = certificates.half_time(first.identity).replace(tzinfo=None) - cloud.now()
    assert timedelta(days=3) < remaining < timedelta(days=4)
    aged = await aged_identity(replica, host)
    mine = Certificates(host.data, structs.replace(first, identity=aged))
    link = RemoteLink(mine, host.address)
    renewing = asyncio.ensure_future(mine.run(link.renew))
    await eventually(lambda: mine.membership.identity != aged)
    renewing.cancel()
    await asyncio.wait({renewing})
    assert certificates.read(host.data) == mine.membership
    assert mine.membership.identity.key != aged.key and mine.membership.uuid == first.uuid
    assert await link.register(report(host.name)) == host.number  # with the new one
    assert await host.link.register(report(host.name)) == host.number  # with that of before
    await link.close()


async def test_a_renewal_that_fails_is_tried_again_and_loses_nothing(
    host: RemoteHost,
) -> None:
    async def unheard(request: str) -> Joined:
        raise ControlUnavailable("The control plane does not answer.")

    before = host.certificates.membership
    with pytest.raises(ControlUnavailable):
        await host.certificates.renew(unheard)
    assert certificates.read(host.data) == before == host.certificates.membership


async def aged_identity(replica: Replica, host: RemoteHost) -> Identity:
    """A certificate of the host's that is past its half, as if it had been given six days ago."""
    key = new_key()
    then = replica.cloud.now() - timedelta(days=6)
    signed = replica.authority.issue(host.uuid, key.public_key(), then)
    values = {
        "serial": f"{signed.serial_number:x}",
        "host_id": host.number,
        "expires_at": signed.not_valid_after_utc.replace(tzinfo=None),
    }
    await replica.cloud.store.write(lambda conn: conn.execute(sa.insert(certificate).values(values)).rowcount)
    return Identity(signed.public_bytes(Encoding.PEM).decode(), key_pem(key))
