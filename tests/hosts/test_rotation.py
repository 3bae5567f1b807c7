"""Another authority takes the place of the one that is there: over real TLS, with two replicas and hosts at work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509

from higgins.agent import certificates
from higgins.agent import joining as agent_joining
from higgins.agent.certificates import Certificates
from higgins.agent.joining import CannotJoin
from higgins.agent.remote import RemoteLink
from higgins.control import authority as authorities
from higgins.control import joining, remote
from higgins.control.authority import control_plane_identity, open_authorities
from higgins.control.background import background
from higgins.control.cloud import Cloud
from higgins.control.identities import CONTROL_PLANE, fingerprints
from higgins.control.link import ControlUnavailable
from higgins.control.wire import AGENTS, STREAMS, encode
from higgins.model.errors import Conflict, HostUnavailable, Invalid
from higgins.store.database import open_store
from tests.hosts.conftest import SECRET, Joining
from tests.hosts.places import PATIENCE, Caller, RemoteHost, Replica, eventually, identity_by, report
from tests.hosts.streams import CONTAINER
from tests.hosts.test_authority import NOW, operators_authority


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, seconds in ((remote, "_RECHECK", 0.05), (remote, "_SPREAD", 0.3), (certificates, "_SPREAD", 0.1)):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture
async def second(stack: AsyncExitStack, replica: Replica) -> Replica:
    """Another process of the same control plane."""
    store = open_store(replica.cloud.store.engine.url.render_as_string(hide_password=False))
    stack.push_async_callback(store.close)
    return await Replica.open(stack, Cloud(store, SECRET))


@asynccontextmanager
async def at_work(host: RemoteHost) -> AsyncIterator[None]:
    """As its process does: it asks again and again, and has its certificate renewed."""

    async def poll() -> None:
        while True:
            await host.link.assignments(host.number, 10**6, 0.05)

    async with background(lambda: host.certificates.run(host.link.renew)), background(poll):
        yield


async def trusts(host: RemoteHost, count: int) -> None:
    await eventually(lambda: len(trusted(host)) == count)


def trusted(host: RemoteHost) -> list[str]:
    return fingerprints(certificates.read(host.data).authority).split(",")


async def told(*replicas: Replica, count: int) -> None:
    """Until hosts are told of so many authorities by each of them."""
    await eventually(lambda: all(len(one.remote.authorities.each) == count for one in replicas))


async def none_waits(cloud: Cloud) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if not await authorities.behind(cloud):
                return
            await asyncio.sleep(0.05)


async def reachable(replica: Replica, host: RemoteHost) -> None:
    """Both ways, and at a replica of which the host has had no connection yet."""
    assert (await (await replica.cloud.streams(host.name)).stats(CONTAINER)).cpu_percent == 1.5
    own = certificates.read(host.data)
    async with Caller(replica.port, own.authority, own.identity) as caller:
        assert await caller.status("GET", f"{AGENTS}/assignments?since=1000000&timeout=0") in (200, 204)


async def test_hosts_at_work_go_over_to_the_new_authority_and_the_old_one_is_worth_nothing_after(
    replica: Replica, second: Replica, host: RemoteHost, joined: Joining
) -> None:
    cloud, old = replica.cloud, replica.authority
    await host.link.register(report(host.name, host.address))
    async with at_work(host):
        await authorities.rotate(cloud)
        with pytest.raises(Conflict, match="replaced already"):
            await authorities.rotate(cloud)
        await told(replica, second, count=2)
        between = await joined("two")  # the token is of the old one, which all still trust
        await trusts(host, 2)
        await none_waits(cloud)
        for one in (replica, second):
            await reachable(one, host)
            await reachable(one, between)
            assert one.authority.pem == old.pem  # what the control plane shows, until all trust the other one
        assert await authorities.finish(cloud) == []
        await told(replica, second, count=1)
        new = (await open_authorities(cloud)).newest
        assert new.pem != old.pem
        await trusts(host, 1)
        for one in (replica, second):
            assert one.authority.pem == new.pem
            await reachable(one, host)
            await reachable(one, between)
        after = await joined("three")
        assert trusted(after) == trusted(host) == [fingerprints(new.pem)]
    # Whoever has the key of the old one is nobody any more, to either side: not even a connection comes about.
    for name in (host.uuid, CONTROL_PLANE):
        async with Caller(replica.port, new.pem, identity_by(old, name, cloud)) as caller:
            assert await caller.status("GET", f"{AGENTS}/authority") is None
    port = int(host.address.rpartition(":")[2])
    shown = x509.load_pem_x509_certificate(host.certificates.membership.identity.certificate.encode())
    name = shown.subject.rfc4514_string().removeprefix("CN=")
    for shown_by, status in ((old, None), (new, 200)):
        async with Caller(port, new.pem, control_plane_identity(shown_by, cloud.now()), name) as caller:
            assert await caller.status("POST", f"{STREAMS}/containers/{CONTAINER}/stats", data=b"null") == status


async def test_hosts_that_have_not_shown_a_new_certificate_are_named_and_only_force_leaves_them_behind(
    replica: Replica, host: RemoteHost, joined: Joining, tmp_path: Path
) -> None:
    cloud, other = replica.cloud, await joined("two")
    with pytest.raises(Conflict, match="is not being replaced"):
        await authorities.finish(cloud)
    await authorities.rotate(cloud)
    await told(replica, count=2)
    await other.certificates.renew(other.link.renew)
    with pytest.raises(Conflict, match="one, two"):  # it has a new one, but did it get it?
        await authorities.finish(cloud)
    await other.link.register(report(other.name, other.address))
    with pytest.raises(Conflict, match="yet: one"):
        await authorities.finish(cloud)
    assert await authorities.finish(cloud, force=True) == ["one"]
    await told(replica, count=1)
    assert await other.link.register(report(other.name, other.address)) == other.number
    # One that was away for the whole of it: it does not know the control plane, nor does that know it.
    membership = certificates.read(host.data)
    link = RemoteLink(Certificates(host.data, membership), host.address)
    with pytest.raises(ControlUnavailable, match="it joins again"):
        await link.register(report(host.name))
    await link.close()
    with pytest.raises(HostUnavailable):
        await (await cloud.streams(host.name)).stats(CONTAINER)
    await joining.revoke(cloud, host.name)
    again = await joined("one")
    assert again.uuid == host.uuid


async def test_an_agent_that_does_not_know_of_several_authorities_gets_a_certificate_of_the_one_that_it_trusts(
    replica: Replica, host: RemoteHost
) -> None:
    await authorities.rotate(replica.cloud)
    await told(replica, count=2)
    own = certificates.read(host.data)
    async with Caller(replica.port, own.authority, own.identity) as caller:
        _, request = certificates.new_request("one")
        answer = await caller.json("POST", f"{AGENTS}/renew", data=encode({"request": request}))
    signed = x509.load_pem_x509_certificate(answer["certificate"].encode())
    signed.verify_directly_issued_by(replica.authority.certificate)
    assert await authorities.behind(replica.cloud) == ["one"]


async def test_a_token_of_the_old_authority_is_of_no_use_after(
    replica: Replica, joined: Joining, tmp_path: Path
) -> None:
    token = await replica.token()
    await authorities.rotate(replica.cloud)
    await authorities.finish(replica.cloud)
    await eventually(lambda: replica.authority.number == 2)
    with pytest.raises(CannotJoin, match="another authority"):
        await agent_joining.join(replica.url, token, name="late", zone="nova", data=tmp_path / "late")


async def test_an_operators_authority_takes_the_place_of_higgins_own(replica: Replica, host: RemoteHost) -> None:
    with pytest.raises(Invalid, match="is over"):
        await authorities.rotate(replica.cloud, operators_authority(NOW.replace(year=2010)))
    brought = operators_authority(replica.cloud.now())
    async with at_work(host):
        await authorities.rotate(replica.cloud, brought)
        await trusts(host, 2)
        await none_waits(replica.cloud)
        await authorities.finish(replica.cloud)
        await trusts(host, 1)
    assert trusted(host) == [fingerprints(brought.pem)]
    await reachable(replica, host)


async def test_one_of_two_that_replace_the_authority_at_once_does(any_cloud: Cloud) -> None:
    await open_authorities(any_cloud)
    done = await asyncio.gather(*(authorities.rotate(any_cloud) for _ in range(3)), return_exceptions=True)
    assert sum(one is None for one in done) == 1 and sum(isinstance(one, Conflict) for one in done) == 2
    assert (await open_authorities(any_cloud)).numbers == [1, 2]
    await authorities.finish(any_cloud)
    assert (await open_authorities(any_cloud)).numbers == [2]
