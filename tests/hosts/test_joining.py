"""How a machine becomes a host, and who does not."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiohttp import web

from higgins.agent import certificates
from higgins.agent import joining as agent_joining
from higgins.agent.certificates import Certificates, Membership, NoMembership
from higgins.agent.joining import CannotJoin
from higgins.agent.remote import CertificateRefused, RemoteLink
from higgins.control import hosts, joining, wire
from higgins.control.authority import new_authority
from higgins.control.cloud import Cloud
from higgins.control.identities import fingerprint
from higgins.model.errors import NotFound
from higgins.store.schema import join_token
from tests.hosts.conftest import Joining
from tests.hosts.places import RemoteHost, Replica, report


async def join(replica: Replica, data: Path, token: str, url: str | None = None) -> Membership:
    return await agent_joining.join(url or replica.url, token, name=data.name, zone="nova", data=data)


async def test_a_machine_with_a_token_becomes_a_host_and_keeps_its_key_to_itself(
    replica: Replica, tmp_path: Path
) -> None:
    data = tmp_path / "one"
    membership = await join(replica, data, await replica.token())
    assert certificates.read(data) == membership
    assert (data / "membership.json").stat().st_mode & 0o777 == 0o600
    host = await hosts.get(replica.cloud, "one")
    assert (host.uuid, host.up, host.cpus) == (membership.uuid, False, 0)  # it has not said yet what it is


async def test_a_token_is_good_for_one_machine(replica: Replica, tmp_path: Path) -> None:
    token = await replica.token()
    outcomes = await asyncio.gather(
        *(join(replica, tmp_path / f"host-{n}", token) for n in range(4)), return_exceptions=True
    )
    assert len([one for one in outcomes if isinstance(one, Membership)]) == 1
    refused = [one for one in outcomes if isinstance(one, CannotJoin)]
    assert len(refused) == 3 and all("used already" in str(one) for one in refused)


async def test_a_token_that_is_too_old_or_not_ours_is_refused(replica: Replica, tmp_path: Path) -> None:
    with pytest.raises(CannotJoin, match="too old"):
        await join(replica, tmp_path / "late", await replica.token(seconds=-1))
    guessed = wire.token_text("guessed", fingerprint(replica.authority.pem))
    with pytest.raises(CannotJoin, match="unknown"):
        await join(replica, tmp_path / "guess", guessed)
    with pytest.raises(CannotJoin, match="in one piece"):
        await join(replica, tmp_path / "half", "half-a-token")
    with pytest.raises(NoMembership):
        certificates.read(tmp_path / "guess")


async def test_only_the_hash_of_a_token_is_stored(cloud: Cloud) -> None:
    secret = await joining.new_token(cloud, timedelta(hours=1))
    stored = await cloud.store.read(lambda conn: conn.execute(sa.select(join_token)).one())
    assert secret not in stored.token_hash and len(secret) == 64 and secret.isalnum()


async def test_a_token_is_not_shown_to_a_control_plane_with_another_authority(replica: Replica, tmp_path: Path) -> None:
    token = await replica.token()
    secret, _ = wire.split_token(token)
    foreign = wire.token_text(secret, fingerprint(new_authority(replica.cloud.now()).pem))
    with pytest.raises(CannotJoin, match="was not sent"):
        await join(replica, tmp_path / "one", foreign)
    await join(replica, tmp_path / "one", token)  # it was not used up


async def test_what_is_no_control_plane_is_said_to_be_none(replica: Replica, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        with pytest.raises(CannotJoin, match="does not answer"):
            await join(replica, tmp_path / "one", await replica.token(), f"https://127.0.0.1:{port}")
    with pytest.raises(CannotJoin, match="does not answer"):  # nobody listens there any more
        await join(replica, tmp_path / "one", await replica.token(), f"https://127.0.0.1:{port}")
    for url in ("http://127.0.0.1:1", "127.0.0.1", "https://127.0.0.1:1/path", "https://", "https://a:b"):
        with pytest.raises(CannotJoin, match=r"URL|form"):
            await join(replica, tmp_path / "one", await replica.token(), url)


async def test_nobody_joins_under_the_name_of_a_host_that_is_there(
    replica: Replica, host: RemoteHost, tmp_path: Path
) -> None:
    await hosts.register(replica.cloud, report("local", ""))
    for name in (host.name, "local"):
        token = await replica.token()
        with pytest.raises(CannotJoin, match="higgins host revoke"):
            await join(replica, tmp_path / "thief" / name, token)
        await join(replica, tmp_path / f"other-{name}", token)  # the token is as it was


async def test_a_host_that_was_revoked_joins_again_as_itself_and_its_old_certificate_stays_refused(
    replica: Replica, host: RemoteHost, tmp_path: Path
) -> None:
    await joining.revoke(replica.cloud, host.name)
    with pytest.raises(CertificateRefused, match="revoked"):
        await host.link.register(report(host.name))
    anew = tmp_path / "anew" / host.name
    membership = await join(replica, anew, await replica.token())
    assert membership.uuid == host.uuid
    link = RemoteLink(Certificates(anew, membership), host.address)
    assert await link.register(report(host.name)) == host.number
    await link.close()
    with pytest.raises(CertificateRefused):
        await host.link.register(report(host.name))


async def test_a_revoked_host_is_down_at_once_and_one_that_is_not_there_cannot_be_revoked(
    replica: Replica, host: RemoteHost
) -> None:
    assert (await hosts.get(replica.cloud, host.name)).up
    await joining.revoke(replica.cloud, host.name)
    assert not (await hosts.get(replica.cloud, host.name)).up
    with pytest.raises(NotFound):
        await joining.revoke(replica.cloud, "nobody")


async def test_a_host_that_was_removed_is_nobody_any_more(replica: Replica, joined: Joining) -> None:
    host = await joined("two")
    await hosts.delete(replica.cloud, host.name, hosts.BINARY)
    with pytest.raises(CertificateRefused):
        await host.link.assignments(host.number, -1, 0)
