"""Streams between the control plane and a host on another machine, over real TLS."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from higgins.agent.serve import open_server
from higgins.control import joining
from higgins.control.authority import control_plane_identity, new_authority
from higgins.control.cloud import Cloud
from higgins.control.identities import CONTROL_PLANE, Identity
from higgins.control.link import HostStreams
from higgins.model.errors import ContainerGone, EngineError, HostUnavailable, ImageNotFound, PathNotFound
from higgins.model.images import FoundImage
from higgins.runtimes.base import LogChunk, LogOptions, RegistryAuth, Terminal
from higgins.store.schema import certificate
from tests.hosts.conftest import SECRET, Joining
from tests.hosts.places import Caller, RemoteHost, Replica, eventually, identity_by, report
from tests.hosts.streams import BLOCK, CONTAINER, FloodTerminal, ScriptedStreams

MIB = 2**20
#: How much an archive is that is passed on while memory is watched; the more, the surer.
ARCHIVE_MIB = int(os.environ.get("HIGGINS_TEST_ARCHIVE_MIB", "256"))
#: How much more memory that may take, with both ends in this process.
ROOM_MIB = 48


@pytest.fixture
async def far(replica: Replica, host: RemoteHost) -> HostStreams:
    """The host's streams, as the control plane has them."""
    return await replica.cloud.streams(host.name)


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """The most memory that was held while pieces went by, above what was held at the start."""

    def __init__(self) -> None:
        self.start = self.most = resident()
        self.bytes = 0

    def passed(self, size: int) -> None:
        before, self.bytes = self.bytes, self.bytes + size
        if before // MIB != self.bytes // MIB:
            self.most = max(self.most, resident())

    @property
    def grown(self) -> float:
        return (self.most - self.start) / MIB


async def source(size: int, passed: Callable[[int], None] = lambda size: None) -> AsyncIterator[bytes]:
    left = size
    while left > 0:
        piece = BLOCK[:left]
        left -= len(piece)
        passed(len(piece))
        yield piece


async def read_until(terminal: Terminal, text: bytes) -> bytes:
    """What is printed, until it holds the text."""
    output = b""
    async with asyncio.timeout(30):
        while text not in output:
            chunk = await terminal.read()
            assert chunk is not None, output
            output += chunk.data
    return output


async def say_address(replica: Replica, host: RemoteHost, address: str) -> None:
    """Have the host be found at another address."""
    query = sa.select(certificate.c.serial).where(
        certificate.c.host_id == host.number, certificate.c.revoked_at.is_(None)
    )
    serial = await replica.cloud.store.read(lambda conn: str(conn.execute(query).scalar_one()))
    known = joining.JoinedHost(host.number, host.uuid, host.name, serial, "")
    await joining.register(replica.cloud, known, report(host.name, address))


# questions


async def test_questions_and_answers_travel_whole(far: HostStreams, streams: ScriptedStreams) -> None:
    assert (await far.stats(CONTAINER)).cpu_percent == 1.5
    assert (await far.top(CONTAINER, "aux")).rows == (("1", "aux"),)
    assert (await far.top(CONTAINER, None)).rows == (("1", "None"),)
    assert await far.commit(CONTAINER, "web:1") == "sha256:web:1"
    assert (await far.pull("busybox", RegistryAuth("me", "secret", "registry.example"))).names == ("busybox",)
    found = FoundImage(id="id", name="web", size=7, algorithm="sha256", digest="0" * 64)
    assert (await far.fetch("uuid", found)).names == (found.engine_name,)
    await far.remove_image("busybox")
    auth = RegistryAuth("me", "secret", "registry.example")
    assert streams.asked == [("busybox", auth), ("uuid", found), "busybox"]
    assert await far.search("busy") == [{"name": "busy", "stars": 5}]


async def test_an_image_travels_as_it_is_read(far: HostStreams, streams: ScriptedStreams) -> None:
    async with far.save("web:1") as pieces:
        assert sum([len(piece) async for piece in pieces]) == streams.size
    with pytest.raises(ImageNotFound):
        async with far.save("missing"):
            pass
    streams.breaks_off = True
    with pytest.raises(HostUnavailable):
        async with far.save("web:1") as pieces:
            async for _ in pieces:
                pass


async def test_errors_of_the_engine_arrive_as_what_they_were(far: HostStreams, streams: ScriptedStreams) -> None:
    with pytest.raises(ContainerGone, match="not there any more") as gone:
        await far.stats("gone")
    assert (gone.value.status, gone.value.code) == (404, "container-not-found")
    with pytest.raises(ImageNotFound):
        await far.pull("missing", None)
    with pytest.raises(ContainerGone):
        await far.exec("gone", ("sh",), tty=False, stdin=False)
    with pytest.raises(ContainerGone):
        async for _ in await far.logs("gone", LogOptions()):
            pass
    with pytest.raises(PathNotFound):
        async with far.get_archive(CONTAINER, "/nowhere"):
            pass


# logs


async def test_a_log_is_read_to_its_end(far: HostStreams, streams: ScriptedStreams) -> None:
    options = LogOptions(stderr=False, tail=3, since=datetime(2026, 1, 1, 12))
    chunks = [chunk async for chunk in await far.logs(CONTAINER, options)]
    assert chunks == [LogChunk(1, b"out\n"), LogChunk(2, b"err\n")]
    assert streams.asked == [options]


async def test_a_log_that_breaks_off_is_no_whole_log(far: HostStreams, streams: ScriptedStreams) -> None:
    streams.breaks_off = True
    with pytest.raises(EngineError, match="lost the log"):
        async for _ in await far.logs(CONTAINER, LogOptions()):
            pass


async def test_a_follower_sees_lines_as_they_come_and_its_leaving_ends_the_stream_on_the_host(
    far: HostStreams, streams: ScriptedStreams
) -> None:
    chunks = await far.logs(CONTAINER, LogOptions(follow=True))
    assert (await anext(chunks)).data == b"out\n" and (await anext(chunks)).data == b"err\n"
    streams.more.put_nowait(b"x" * MIB)  # one chunk may be larger than a frame
    received = 0
    while received < MIB:
        received += len((await anext(chunks)).data)
    assert streams.open == 1
    waiting = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    await eventually(lambda: streams.open == 0)


async def test_a_log_of_any_size_is_followed_in_constant_memory(far: HostStreams, streams: ScriptedStreams) -> None:
    streams.size = ARCHIVE_MIB * MIB
    watch = Watch()
    chunks = await far.logs(CONTAINER, LogOptions(follow=True))
    while watch.bytes < streams.size:
        watch.passed(len((await anext(chunks)).data))
    assert watch.grown < ROOM_MIB
    streams.more.put_nowait(None)
    assert await anext(chunks, None) is None


async def test_a_log_of_a_host_that_dies_does_not_look_finished(
    stack: AsyncExitStack, replica: Replica, joined: Joining, streams: ScriptedStreams
) -> None:
    host = await joined("dying")
    async with AsyncExitStack() as short:
        _, port = await open_server(short, streams, host.certificates.ends, "127.0.0.1:0")
        await say_address(replica, host, f"127.0.0.1:{port}")
        chunks = await (await replica.cloud.streams(host.name)).logs(CONTAINER, LogOptions(follow=True))
        assert (await anext(chunks)).data == b"out\n"
    with pytest.raises(HostUnavailable, match="dying does not answer"):
        while True:
            await anext(chunks)
    with pytest.raises(HostUnavailable):
        await (await replica.cloud.streams(host.name)).stats(CONTAINER)


# archives


async def test_an_archive_of_any_size_is_read_in_constant_memory(far: HostStreams, streams: ScriptedStreams) -> None:
    streams.size = ARCHIVE_MIB * MIB + 17
    async with far.get_archive(CONTAINER, "/data") as (stat, pieces):
        assert (stat.name, stat.size) == ("é", streams.size)
        watch = Watch()
        async for piece in pieces:
            watch.passed(len(piece))
    assert watch.bytes == streams.size
    assert watch.grown < ROOM_MIB


async def test_an_archive_of_any_size_is_written_in_constant_memory(far: HostStreams, streams: ScriptedStreams) -> None:
    watch = Watch()
    await far.put_archive(CONTAINER, "/data", source(ARCHIVE_MIB * MIB + 17, watch.passed))
    assert (streams.received, streams.complete) == (watch.bytes, True)
    assert watch.grown < ROOM_MIB


async def test_an_archive_waits_for_its_reader_and_ends_on_the_host_when_the_reader_leaves(
    far: HostStreams, streams: ScriptedStreams
) -> None:
    streams.size = 64 * MIB
    async with far.get_archive(CONTAINER, "/data") as (_, pieces):
        await anext(pieces)
        await asyncio.sleep(0.2)
        assert streams.open == 1  # it is not all in some buffer
    await eventually(lambda: streams.open == 0)


async def test_an_archive_that_breaks_off_is_no_whole_archive(far: HostStreams, streams: ScriptedStreams) -> None:
    streams.size, streams.breaks_off = MIB, True
    with pytest.raises(HostUnavailable):
        async with far.get_archive(CONTAINER, "/data") as (_, pieces):
            async for _ in pieces:
                pass


async def test_who_sends_an_archive_and_breaks_off_leaves_no_whole_archive_and_hears_their_own_error(
    far: HostStreams, streams: ScriptedStreams
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in source(MIB):
            yield piece
        raise ConnectionResetError("the tenant hung up")

    with pytest.raises(ConnectionResetError, match="tenant"):
        await far.put_archive(CONTAINER, "/data", broken())
    await eventually(lambda: streams.open == 0)
    assert not streams.complete


async def test_a_refusal_is_heard_while_the_archive_is_still_being_sent(
    far: HostStreams, streams: ScriptedStreams
) -> None:
    streams.refuses = True
    with pytest.raises(PathNotFound, match="/data"):
        await far.put_archive(CONTAINER, "/data", source(32 * MIB))


async def test_an_upload_that_is_cancelled_ends_on_the_host(far: HostStreams, streams: ScriptedStreams) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield BLOCK
        await asyncio.Event().wait()

    sending = asyncio.ensure_future(far.put_archive(CONTAINER, "/data", stuck()))
    await eventually(lambda: streams.received > 0)
    sending.cancel()
    await asyncio.wait({sending})
    await eventually(lambda: streams.open == 0)
    assert not streams.complete


# terminals


async def test_a_terminal_passes_on_what_is_typed_printed_and_resized_and_how_it_ended(
    far: HostStreams, streams: ScriptedStreams
) -> None:
    terminal = await far.exec(CONTAINER, ("sh", "-c", "x"), tty=True, stdin=True)
    assert streams.asked == [(("sh", "-c", "x"), True, True)]
    await read_until(terminal, b"opened")
    await terminal.write(b"\x00typed\xff")
    await read_until(terminal, b"\x00typed\xff")
    await terminal.write(b"y" * MIB + b"z")
    await read_until(terminal, b"z")
    await terminal.resize(132, 43)
    await terminal.close_stdin()
    assert await terminal.read() is None
    assert await terminal.exit_code() == 7
    assert streams.terminals[0].sizes == [(132, 43)]
    await terminal.write(b"into the void")
    await terminal.close()
    await eventually(lambda: streams.terminals[0].closed)


async def test_a_terminal_is_resized_through_a_replica_that_did_not_open_it(
    stack: AsyncExitStack, cloud: Cloud, host: RemoteHost, far: HostStreams, streams: ScriptedStreams
) -> None:
    other = await (await Replica.open(stack, Cloud(cloud.store, SECRET))).cloud.streams(host.name)
    assert not await other.resize(CONTAINER, "e1", 80, 24)  # nobody opened it yet; it will have that size
    terminal = await far.exec(CONTAINER, ("sh",), tty=True, stdin=True, exec_id="e1")
    attached = await far.attach(CONTAINER)
    assert await other.resize(CONTAINER, "e1", 132, 43)
    assert await other.resize(CONTAINER, None, 100, 30)
    assert [one.sizes for one in streams.terminals] == [[(80, 24), (132, 43)], [(100, 30)]]
    await terminal.close()
    await attached.close()
    await eventually(lambda: all(one.closed for one in streams.terminals))
    assert not await other.resize(CONTAINER, "e1", 80, 24)


async def test_leaving_a_terminal_closes_the_hosts_end(far: HostStreams, streams: ScriptedStreams) -> None:
    terminal = await far.attach(CONTAINER)
    await read_until(terminal, b"opened")
    await terminal.close()
    await eventually(lambda: streams.terminals[0].closed)
    with pytest.raises(HostUnavailable):
        await terminal.read()


async def test_a_terminal_that_nobody_reads_makes_its_program_wait(far: HostStreams, streams: ScriptedStreams) -> None:
    terminal = await far.exec(CONTAINER, ("yes",), tty=False, stdin=False)
    flood = streams.terminals[0]
    assert isinstance(flood, FloodTerminal)
    before = -1
    async with asyncio.timeout(30):
        while flood.printed != before:  # until it stands still
            before = flood.printed
            await asyncio.sleep(0.3)
    assert 0 < before < 64 * MIB
    chunk = await terminal.read()
    assert chunk is not None and (chunk.stream, len(chunk.data)) == (2, len(BLOCK))
    await terminal.close()
    await eventually(lambda: flood.closed)


async def test_a_hundred_terminals_are_open_at_once(far: HostStreams, streams: ScriptedStreams) -> None:
    async def use(number: int) -> Terminal:
        terminal = await far.exec(CONTAINER, (str(number),), tty=True, stdin=True)
        await terminal.write(f"typed in {number}.".encode())
        await read_until(terminal, f"typed in {number}.".encode())
        return terminal

    opened = await asyncio.gather(*(use(number) for number in range(100)))
    assert len(streams.terminals) == 100 and not any(one.closed for one in streams.terminals)
    await asyncio.gather(*(terminal.close() for terminal in opened))
    await eventually(lambda: all(one.closed for one in streams.terminals))


# who may


async def test_any_replica_reaches_any_host(
    stack: AsyncExitStack, replica: Replica, host: RemoteHost, cloud: Cloud
) -> None:
    other = await Replica.open(stack, Cloud(cloud.store, SECRET))
    far = await other.cloud.streams(host.name)
    assert (await far.stats(CONTAINER)).cpu_percent == 1.5
    with pytest.raises(HostUnavailable, match="nobody"):
        await other.cloud.streams("nobody")


async def test_a_host_answers_the_control_plane_and_nobody_else(
    replica: Replica, host: RemoteHost, joined: Joining, cloud: Cloud
) -> None:
    other = await joined("two")
    authority, port = replica.authority, int(host.address.rpartition(":")[2])
    path = f"/streams/v1/containers/{CONTAINER}/stats"

    async def status(identity: Identity | None) -> int | None:
        async with Caller(port, authority.pem, identity, host.uuid) as caller:
            return await caller.status("POST", path)

    assert await status(identity_by(authority, CONTROL_PLANE, cloud)) == 200
    assert await status(None) is None
    assert await status(other.certificates.membership.identity) == 403
    assert await status(host.certificates.membership.identity) == 403
    assert await status(identity_by(new_authority(cloud.now()), CONTROL_PLANE, cloud)) is None
    assert await status(identity_by(authority, CONTROL_PLANE, cloud, age=7200, lifetime=3600)) is None


async def test_nothing_is_asked_of_a_machine_that_is_not_the_host(
    stack: AsyncExitStack, replica: Replica, joined: Joining, streams: ScriptedStreams, cloud: Cloud
) -> None:
    thief, victim = await joined("thief"), await joined("victim")
    await say_address(replica, victim, thief.address)  # as if the victim's address were somebody else's now
    far = await replica.cloud.streams(victim.name)
    with pytest.raises(HostUnavailable):
        await far.pull("busybox", RegistryAuth("me", "secret", "registry.example"))
    assert streams.asked == []
    # Nor does the thief pass for the control plane.
    _, port = await open_server(stack, streams, thief.certificates.ends, "127.0.0.1:0")
    async with Caller(port, replica.authority.pem, victim.certificates.membership.identity) as caller:
        assert await caller.status("GET", "/agents/v1/authority") is None


async def test_a_revoked_certificate_does_not_answer_for_the_host_that_joined_again(
    replica: Replica, joined: Joining, streams: ScriptedStreams, tmp_path: Path
) -> None:
    stolen = await joined("one")
    await joining.revoke(replica.cloud, "one")
    anew = await joined("one", ScriptedStreams())
    assert anew.uuid == stolen.uuid
    far = await replica.cloud.streams("one")
    assert await far.search("mine") == [{"name": "mine", "stars": 5}]
    await say_address(replica, anew, stolen.address)  # as if somebody in between led calls to the stolen machine
    far = await replica.cloud.streams("one")
    with pytest.raises(HostUnavailable):
        await far.pull("busybox", RegistryAuth("me", "secret", "registry.example"))
    assert streams.asked == []


async def test_streams_of_a_revoked_host_end_and_no_new_ones_begin(
    replica: Replica, host: RemoteHost, far: HostStreams, streams: ScriptedStreams
) -> None:
    terminal = await far.attach(CONTAINER)
    await read_until(terminal, b"opened")
    chunks = await far.logs(CONTAINER, LogOptions(follow=True))
    assert (await anext(chunks)).data == b"out\n" and (await anext(chunks)).data == b"err\n"
    await joining.revoke(replica.cloud, host.name)
    async with asyncio.timeout(30):
        with pytest.raises(HostUnavailable):
            await terminal.read()
        with pytest.raises(HostUnavailable):
            await anext(chunks)
    await terminal.close()
    with pytest.raises(HostUnavailable):
        await replica.cloud.streams(host.name)
    await eventually(lambda: streams.open == 0 and streams.terminals[0].closed)


async def test_a_control_plane_that_has_a_new_certificate_goes_on(replica: Replica, far: HostStreams) -> None:
    replica.remote.ends.use(replica.authority.pem, control_plane_identity(replica.authority, replica.cloud.now()))
    assert (await far.stats(CONTAINER)).cpu_percent == 1.5
