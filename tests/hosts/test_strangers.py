"""What a host's certificate cannot do, and what nobody can who has none that counts."""

import asyncio
import ssl
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509

from higgins.api.agents.connections import Connections
from higgins.control import containers, hosts, joining
from higgins.control.authority import new_authority
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.identities import CONTROL_PLANE, Identity, new_key
from higgins.control.link import Known, Observation
from higgins.control.wire import Observations, Uuids, encode
from higgins.model.container import ContainerSpec, Mount, Status
from higgins.model.errors import Forbidden
from higgins.model.resources import Container
from higgins.store.schema import volume
from tests.hosts.conftest import Joining
from tests.hosts.places import Caller, RemoteHost, Replica, eventually, identity_by, report
from tests.hosts.test_authority import request_for

#: Every call that a host may make, with something to say.
CALLS: list[tuple[str, str, bytes]] = [
    ("POST", "/agents/v1/register", encode(report("one"))),
    ("GET", "/agents/v1/assignments?since=-1&timeout=0", b""),
    ("POST", "/agents/v1/observations", encode(Observations([]))),
    ("POST", "/agents/v1/volumes_deleted", encode(Uuids([]))),
    ("POST", "/agents/v1/renew", b'{"request": ""}'),
]


async def run_on(cloud: Cloud, actor: Actor, host: str, name: str, *mounts: Mount) -> Container:
    spec = ContainerSpec(image="busybox", requested_host=host, mounts=mounts)
    made = await containers.create(cloud, actor, Draft(name=name, spec=spec), run=True)
    assert made.host == host, made.status_reason
    return made


async def statuses(replica: Replica, identity: Identity | None) -> set[int | None]:
    """What all calls are answered to this identity."""
    async with Caller(replica.port, replica.authority.pem, identity) as caller:
        return {await caller.status(method, path, data=body) for method, path, body in CALLS}


async def test_without_a_certificate_nothing_is_answered_but_who_the_authority_is(replica: Replica) -> None:
    assert await statuses(replica, None) == {403}
    async with Caller(replica.port, replica.authority.pem, None) as caller:
        told = await caller.json("GET", "/agents/v1/authority")
        assert told == {"certificate": replica.authority.pem}
        assert await caller.status("POST", "/agents/v1/join", data=b"{}") == 400
        assert await caller.status("POST", "/agents/v1/join", data=b" " * 2**20) in (413, None)


async def test_certificates_of_others_are_refused(replica: Replica, host: RemoteHost, cloud: Cloud) -> None:
    foreign = new_authority(cloud.now())
    assert await statuses(replica, identity_by(foreign, host.uuid, cloud)) == {None}
    # Signed by the right authority, but never given to a host: an authority's key that leaked is not enough.
    assert await statuses(replica, identity_by(replica.authority, host.uuid, cloud)) == {403}
    assert await statuses(replica, identity_by(replica.authority, CONTROL_PLANE, cloud)) == {403}
    assert await statuses(replica, host.certificates.membership.identity) == {200, 204, 400}


async def test_a_certificate_whose_time_is_over_is_refused(
    replica: Replica, host: RemoteHost, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = identity_by(replica.authority, host.uuid, cloud, age=7200, lifetime=3600)
    assert await statuses(replica, over) == {None}
    # And one that runs out while its connection is open.
    now = cloud.now
    monkeypatch.setattr(cloud, "now", lambda: now() + timedelta(days=8))
    assert await statuses(replica, host.certificates.membership.identity) == {403}


async def test_a_revoked_certificate_is_refused_and_its_open_connections_end(
    replica: Replica, host: RemoteHost
) -> None:
    identity = host.certificates.membership.identity
    async with Caller(replica.port, replica.authority.pem, identity) as caller:
        told = await host.link.assignments(host.number, -1, 0)
        assert told is not None
        # It waits at the newest revision: revoking wakes it, and what it then hears is not what the host holds.
        path = f"/agents/v1/assignments?since={told.revision}&timeout=60"
        waiting = asyncio.ensure_future(caller.status("GET", path))
        idle = asyncio.ensure_future(caller.status("GET", "/agents/v1/assignments?since=-1&timeout=0"))
        assert await idle == 200
        assert not waiting.done()
        await joining.revoke(replica.cloud, host.name)
        async with asyncio.timeout(30):
            assert await waiting in (403, None)
    assert await statuses(replica, identity) == {403}


async def test_a_host_sees_what_is_assigned_to_it_and_nothing_else(
    replica: Replica, joined: Joining, alice: Actor
) -> None:
    one, two = await joined("one"), await joined("two")
    mine = await run_on(replica.cloud, alice, "one", "mine")
    theirs = await run_on(replica.cloud, alice, "two", "theirs")
    for number in (one.number, two.number, 0):  # the number that it says is not looked at
        told = await one.link.assignments(number, -1, 0)
        assert told is not None and [workload.uuid for workload in told.workloads] == [mine.uuid]
        assert theirs.uuid.encode() not in encode(told)


async def test_a_host_cannot_report_on_what_others_hold(replica: Replica, joined: Joining, alice: Actor) -> None:
    one, two = await joined("one"), await joined("two")
    theirs = await run_on(replica.cloud, alice, "two", "theirs")
    known = Known(incarnation=1, state="error", reason="stolen")
    lie = Observation(workload=theirs.uuid, generation=1, members={theirs.uuid: known}, settled=True)
    for number in (one.number, two.number):
        await one.link.observe(number, [lie])
    await containers.delete(replica.cloud, alice, theirs.uuid, force=True)
    told = await two.link.assignments(two.number, -1, 0)
    assert told is not None
    (assigned,) = told.workloads
    await one.link.observe(two.number, [Observation(workload=theirs.uuid, generation=assigned.generation, gone=True)])
    found = await containers.get(replica.cloud, alice, theirs.uuid)  # it is still there
    assert found.status in (Status.DELETING, Status.DELETED, Status.CREATING) and found.status_reason != "stolen"


async def test_a_host_cannot_report_on_members_of_others_within_its_own_workload(
    replica: Replica, joined: Joining, alice: Actor
) -> None:
    one, _ = await joined("one"), await joined("two")
    mine = await run_on(replica.cloud, alice, "one", "mine")
    theirs = await run_on(replica.cloud, alice, "two", "theirs")
    members = {uuid: Known(incarnation=1, state="running") for uuid in (mine.uuid, theirs.uuid)}
    await one.link.observe(one.number, [Observation(workload=mine.uuid, generation=1, members=members, settled=True)])
    assert (await containers.get(replica.cloud, alice, mine.uuid)).status == Status.RUNNING
    assert (await containers.get(replica.cloud, alice, theirs.uuid)).status == Status.CREATING


async def test_a_host_cannot_say_that_volumes_of_others_are_gone(
    replica: Replica, joined: Joining, alice: Actor
) -> None:
    one, _ = await joined("one"), await joined("two")
    await run_on(replica.cloud, alice, "two", "theirs", Mount(destination="/data", size=1))

    def all_volumes(conn: Any) -> list[str]:
        conn.execute(sa.update(volume).values(deleting=True))
        return list(conn.execute(sa.select(volume.c.uuid)).scalars())

    held = await replica.cloud.store.write(all_volumes)
    assert held
    await one.link.volumes_deleted(one.number, held)
    query = sa.select(volume.c.uuid)
    assert await replica.cloud.store.read(lambda conn: list(conn.execute(query).scalars())) == held


async def test_a_host_registers_under_its_own_name_only(replica: Replica, joined: Joining, cloud: Cloud) -> None:
    one, two = await joined("one"), await joined("two")
    async with Caller(replica.port, replica.authority.pem, one.certificates.membership.identity) as caller:
        for name in ("two", "three", ""):
            assert await caller.status("POST", "/agents/v1/register", data=encode(report(name))) == 403
        bad = encode(report("one", "nowhere"))
        assert await caller.status("POST", "/agents/v1/register", data=bad) == 400
    assert (await hosts.get(cloud, "two")).uuid == two.uuid
    known = joining.JoinedHost(one.number, one.uuid, "one", "0", "")
    with pytest.raises(Forbidden):
        await joining.register(cloud, known, report("one"))


async def test_a_renewed_certificate_is_for_the_same_host_whatever_was_asked(replica: Replica, joined: Joining) -> None:
    one = await joined("one")
    certificate = x509.load_pem_x509_certificate((await one.link.renew(request_for(new_key()))).certificate.encode())
    assert certificate.subject.rfc4514_string() == f"CN={one.uuid}"


async def test_the_tenants_api_is_not_served_to_hosts(replica: Replica, host: RemoteHost) -> None:
    identity = host.certificates.membership.identity
    async with Caller(replica.port, replica.authority.pem, identity) as caller:
        for path in ("/", "/v1", "/v1/containers", "/v1/containers?all_projects=1", "/v1/hosts", "/metrics"):
            assert await caller.status("GET", path) == 404
        assert await caller.status("POST", "/v1/containers", data=b'{"image": "busybox"}') == 404


async def test_what_cannot_be_read_is_refused_and_changes_nothing(replica: Replica, host: RemoteHost) -> None:
    identity = host.certificates.membership.identity
    async with Caller(replica.port, replica.authority.pem, identity) as caller:
        for body in (b"", b"[]", b"{", b'{"observations": 1}', b"\xff", b'{"observations": [{"workload": 1}]}'):
            assert await caller.status("POST", "/agents/v1/observations", data=body) == 400
        for query in ("", "?since=x&timeout=0", "?since=0", "?since=0&timeout=nan", "?since=inf&timeout=1"):
            assert await caller.status("GET", f"/agents/v1/assignments{query}") == 400


async def test_only_tls_1_3_is_spoken(replica: Replica, host: RemoteHost) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    for port in (replica.port, int(host.address.rpartition(":")[2])):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def test_the_words_of_errors_survive_the_way(replica: Replica) -> None:
    async with Caller(replica.port, replica.authority.pem, None) as caller:
        told = await caller.json("GET", "/agents/v1/assignments?since=0&timeout=0")
    assert told["kind"] == "Forbidden" and told["code"] == "not-a-host" and "certificate" in told["sentence"]


async def test_connections_that_are_closed_are_forgotten(cloud: Cloud) -> None:
    connections = Connections(cloud)

    class Closed(asyncio.Transport):
        def is_closing(self) -> bool:
            return True

    connections.seen(Closed(), "1")
    running = asyncio.ensure_future(connections.run())
    await eventually(lambda: not connections._serials)
    running.cancel()
    await asyncio.wait({running})
