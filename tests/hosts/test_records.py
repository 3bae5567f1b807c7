"""Who is a host, as the database has it: on each kind of database, and with several who ask at once."""

import asyncio
import time
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from higgins.agent.certificates import new_request
from higgins.control import containers, evacuation, hosts, joining
from higgins.control.authority import Authority, open_authority
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.fencing import lost_after
from higgins.control.joining import NotAHost, WrongToken
from higgins.control.tls import Peer
from higgins.control.wire import Joined, JoinRequest
from higgins.model.container import ContainerSpec
from higgins.model.errors import Conflict
from higgins.store.schema import host
from tests.hosts.places import report, serial_in


class Records:
    """A cloud whose clock can be moved, and machines that ask to join it."""

    def __init__(self, cloud: Cloud, authority: Authority) -> None:
        self.cloud = cloud
        self.authority = authority
        self._later = timedelta()
        now = cloud.now
        cloud.now = lambda: now() + self._later

    def forward(self, delta: timedelta) -> None:
        self._later += delta

    async def token(self) -> str:
        return await joining.new_token(self.cloud, timedelta(minutes=10))

    async def join(self, name: str, token: str | None = None) -> Joined:
        _, request = new_request(name)
        asked = JoinRequest(token=token or await self.token(), name=name, zone="nova", request=request)
        return await joining.join(self.cloud, self.authority, asked)

    async def recognise(self, joined: Joined, uuid: str | None = None) -> joining.JoinedHost:
        now = time.time()
        peer = Peer(uuid or joined.uuid, serial_in(joined.certificate), now, now)
        return await joining.recognise(self.cloud, peer)


@pytest.fixture
async def records(any_cloud: Cloud) -> Records:
    return Records(any_cloud, await open_authority(any_cloud))


async def test_one_of_many_with_the_same_token_joins(records: Records) -> None:
    token = await records.token()
    outcomes = await asyncio.gather(*(records.join(f"host-{n}", token) for n in range(5)), return_exceptions=True)
    assert len([one for one in outcomes if isinstance(one, Joined)]) == 1
    assert len([one for one in outcomes if isinstance(one, WrongToken)]) == 4


async def test_one_of_many_with_the_same_name_joins_and_the_tokens_of_the_others_stay(records: Records) -> None:
    tokens = [await records.token() for _ in range(4)]
    outcomes = await asyncio.gather(*(records.join("one", token) for token in tokens), return_exceptions=True)
    assert len([one for one in outcomes if isinstance(one, Joined)]) == 1
    left = [token for token, one in zip(tokens, outcomes, strict=True) if isinstance(one, Conflict)]
    assert len(left) == 3
    for number, token in enumerate(left):
        await records.join(f"other-{number}", token)


async def test_a_certificate_counts_for_its_host_until_it_is_over_or_revoked(records: Records) -> None:
    one, two = await records.join("one"), await records.join("two")
    assert (await records.recognise(one)).name == "one"
    with pytest.raises(NotAHost):
        await records.recognise(one, two.uuid)
    serials = {serial_in(one.certificate), serial_in(two.certificate), "never-given"}
    assert await joining.refused_now(records.cloud, serials) == {"never-given"}
    await joining.revoke(records.cloud, "two")
    with pytest.raises(NotAHost):
        await records.recognise(two)
    assert await joining.refused_now(records.cloud, serials) == {"never-given", serial_in(two.certificate)}
    records.forward(timedelta(days=8))
    with pytest.raises(NotAHost, match="join again"):
        await records.recognise(one)


async def test_a_renewal_is_for_the_same_host_and_not_for_one_that_was_revoked(records: Records) -> None:
    joined = await records.join("one")
    known = await records.recognise(joined)
    records.forward(timedelta(days=6))
    renewed = await joining.renew(records.cloud, records.authority, known, new_request("x")[1])
    records.forward(timedelta(days=6))
    assert (await records.recognise(renewed)).id == known.id
    with pytest.raises(NotAHost):
        await records.recognise(joined)
    await joining.revoke(records.cloud, "one")
    with pytest.raises(NotAHost):
        await joining.renew(records.cloud, records.authority, known, new_request("x")[1])
    again = await records.join("one")
    assert again.uuid == joined.uuid
    for refused in (joined, renewed):
        with pytest.raises(NotAHost):
            await records.recognise(refused)
    assert (await records.recognise(again)).id == known.id


async def test_a_report_makes_a_host_up_and_tells_where_its_streams_are(records: Records) -> None:
    known = await records.recognise(await records.join("one"))
    assert await joining.register(records.cloud, known, report("one", "[2001:db8::1]:9519")) == known.id
    found = await hosts.get(records.cloud, "one")
    assert found.up and found.cpus == 8
    await joining.revoke(records.cloud, "one")
    found = await hosts.get(records.cloud, "one")
    assert not found.up and found.seen_at < datetime(1971, 1, 1)
    await hosts.delete(records.cloud, "one", hosts.BINARY)  # with its certificates


@pytest.mark.parametrize("again", [False, True])
async def test_what_may_leave_a_revoked_host_does_so_when_that_had_the_time_to_end_it(
    records: Records, again: bool
) -> None:
    cloud = records.cloud
    await records.join("one")
    await hosts.register(cloud, report("one"))
    spec = ContainerSpec(image="busybox", memory=64, auto_heal=True)
    actor = Actor(user_id="alice", project_id="red")
    made = await containers.create(cloud, actor, Draft(name=None, spec=spec), run=True)
    assert made.host == "one"
    await joining.revoke(cloud, "one")
    if again:  # and says nothing of itself yet
        await records.join("one")
    two = await hosts.register(cloud, report("two"))
    assert (await evacuation.everywhere(cloud, lost=True)).moving == []
    records.forward(timedelta(seconds=lost_after(cloud.settings) - 5))
    await hosts.seen(cloud, two)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == []
    records.forward(timedelta(seconds=10))
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]


async def test_what_may_leave_a_revoked_host_does_so_at_once_where_that_is_forced_down(records: Records) -> None:
    cloud = records.cloud
    await records.join("one")
    await hosts.register(cloud, report("one"))
    spec = ContainerSpec(image="busybox", memory=64, auto_heal=True)
    actor = Actor(user_id="alice", project_id="red")
    made = await containers.create(cloud, actor, Draft(name=None, spec=spec), run=True)
    await joining.revoke(cloud, "one")
    await hosts.register(cloud, report("two"))
    await hosts.force_down(cloud, "one", hosts.BINARY, True)
    assert (await evacuation.everywhere(cloud, lost=True)).moving == [made.uuid]


async def test_a_revoked_host_is_down_though_a_question_of_it_is_still_under_way(records: Records) -> None:
    """Its poll wakes by the revocation, and its lease is as worn as can be: nobody renews it."""
    cloud = records.cloud
    await records.join("one")
    number = await hosts.register(cloud, report("one"))

    async def last_seen() -> datetime:
        query = sa.select(host.c.seen_at).where(host.c.id == number)
        found: datetime = await cloud.store.read(lambda conn: conn.execute(query).scalar_one())
        return found

    await joining.revoke(cloud, "one")
    before = await last_seen()
    await hosts.seen(cloud, number)
    assert await last_seen() == before
