"""The agent's smaller parts: its failpoints, its files, its filters, its outbox and its table of wires."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from higgins.agent import failpoints
from higgins.agent.files import Files, hosts, name_servers
from higgins.agent.filters import Filters
from higgins.agent.observe import Table, by_workload, naive
from higgins.agent.outbox import Outbox
from higgins.control.link import Observation
from higgins.model.errors import HostUnavailable, Invalid
from higgins.networks.base import Neighbour, Plugged, PortFilter
from higgins.runtimes.base import Holdings, Observed, Sandbox
from tests.unit.fakes import FakeNetwork, FakeVolumes, assignment


def test_a_failpoint_ends_the_process_at_its_passing() -> None:
    program = (
        "from higgins.agent import failpoints\n"
        "point = failpoints.from_environment({'HIGGINS_FAILPOINT': 'Plug:after:2'})\n"
        "for when in ('before', 'after', 'before'):\n"
        "    point.reach('Plug', when); point.reach('Unplug', when)\n"
        "print('so far', flush=True)\n"
        "point.reach('Plug', 'after')\n"
        "print('too far')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "so far\n")


def test_without_the_variable_there_is_no_failpoint() -> None:
    assert failpoints.from_environment({}) is None
    with pytest.raises(ValueError, match="before"):
        failpoints.from_environment({"HIGGINS_FAILPOINT": "Plug:during"})


def test_hosts_names_the_loopback_and_all_that_have_a_name() -> None:
    text = hosts({"10.0.0.6": ("db", "postgres"), "10.0.0.5": ("web",), "10.0.0.7": ()})
    assert text.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert text.splitlines()[2:] == ["10.0.0.5\tweb", "10.0.0.6\tdb postgres"]


def test_name_servers_on_loopback_cannot_be_reached_from_a_container() -> None:
    text = "# one\nsearch lan\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\nnameserver\n"
    assert name_servers(text) == ("10.0.0.1",)


def test_files_yield_to_a_mount_in_the_same_place_and_go_for_good(tmp_path: Path) -> None:
    files = Files(tmp_path, ("10.0.0.1",))
    files.write("w", "web", {})
    assert (tmp_path / "w" / "hostname").read_text() == "web\n"
    assert {bind.destination for bind in files.binds("w", frozenset({"/etc/hosts"}))} == {
        "/etc/resolv.conf",
        "/etc/hostname",
    }
    assert files.all() == {"w"}
    files.remove("w")
    files.remove("w")
    assert not files.all() and not files.there("w")


def test_only_what_changed_of_the_files_is_written_and_all_where_they_went_away(tmp_path: Path) -> None:
    files = Files(tmp_path, ("10.0.0.1",))
    files.write("w", "web", {})
    (tmp_path / "w" / "resolv.conf").unlink()
    files.write("w", "web", {"10.0.0.5": ("web",)})
    assert "10.0.0.5" in (tmp_path / "w" / "hosts").read_text()
    assert not (tmp_path / "w" / "resolv.conf").exists()
    shutil.rmtree(tmp_path / "w")
    files.write("w", "web", {"10.0.0.5": ("web",)})
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"hosts", "resolv.conf", "hostname"}


def test_files_are_read_by_every_user_of_a_member_and_written_by_none(tmp_path: Path) -> None:
    files = Files(tmp_path / "sandboxes", ())
    before = os.umask(0o077)
    try:
        files.write("w", "web", {})
    finally:
        os.umask(before)
    assert all(bind.read_only for bind in files.binds("w", frozenset()))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "sandboxes").rglob("*")}
    assert modes == {"w": 0o700, "hosts": 0o644, "resolv.conf": 0o644, "hostname": 0o644}
    assert (tmp_path / "sandboxes").stat().st_mode & 0o777 == 0o700


async def test_filters_are_applied_once_for_all_who_wait_and_only_when_they_changed() -> None:
    network = FakeNetwork()
    filters = Filters(network)
    one = PortFilter(uuid="p", address="10.0.0.5", network="n", project_id="demo")
    filters.want([assignment(filters=(one,))])
    await filters.hold()
    await filters.hold()
    assert (network.filters, network.applied) == ([one], 1)
    filters.want([])
    await filters.hold()
    assert (network.filters, network.applied) == ([], 2)
    far = Neighbour(network="n", tunnel=1, project_id="demo", address="10.0.0.6", mac="02:00:00:00:00:06", host="h")
    filters.want([], (far,))
    await filters.hold()
    assert (network.neighbours, network.applied) == ([far], 3)


async def test_what_was_not_heard_is_sent_again_unless_something_newer_was_seen() -> None:
    heard: list[list[Observation]] = []
    deaf = True

    async def send(batch: list[Observation]) -> None:
        if deaf:
            box.put(Observation(workload="a", generation=2))
            raise HostUnavailable("not now")
        heard.append(batch)

    box = Outbox(send)
    box.put(Observation(workload="a", generation=1))
    box.put(Observation(workload="b", generation=1))
    assert not await box.flush()
    deaf = False
    assert await box.flush()
    assert sorted((one.workload, one.generation) for one in heard[0]) == [("a", 2), ("b", 1)]
    assert await box.flush() and len(heard) == 1


async def test_what_is_seen_while_a_batch_is_under_way_goes_together_in_the_next() -> None:
    heard: list[list[str]] = []
    under_way, answered, all_heard = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def send(batch: list[Observation]) -> None:
        heard.append([one.workload for one in batch])
        under_way.set()
        await answered.wait()
        if len(heard) == 2:
            all_heard.set()

    box = Outbox(send)
    box.put(Observation(workload="a", generation=1))
    running = asyncio.ensure_future(box.run())
    await under_way.wait()
    assert box.waiting == 1, "nobody has taken it yet"
    box.put(Observation(workload="a", generation=2))
    box.put(Observation(workload="b", generation=1))
    assert box.waiting == 2
    answered.set()
    async with asyncio.timeout(30):
        await all_heard.wait()
        while box.waiting:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0)
    running.cancel()
    assert heard == [["a"], ["a", "b"]]


async def test_one_observation_that_is_refused_does_not_hold_up_the_others() -> None:
    heard: list[str] = []
    away = False

    async def send(batch: list[Observation]) -> None:
        if any(one.error for one in batch):
            raise Invalid("A value has a character that cannot be kept.")
        if away:
            raise HostUnavailable("not now")
        heard.extend(one.workload for one in batch)

    box = Outbox(send)
    box.put(Observation(workload="bad", generation=1, error="?"))
    box.put(Observation(workload="a", generation=1))
    box.put(Observation(workload="b", generation=1))
    away = True
    assert not await box.flush()
    away = False
    assert await box.flush()
    assert sorted(heard) == ["a", "b"]
    box.put(Observation(workload="bad", generation=2))
    assert await box.flush()
    assert heard[-1] == "bad"


async def test_what_a_step_changes_while_the_table_is_read_stays() -> None:
    class Slow(FakeNetwork):
        async def plugged(self) -> list[Plugged]:
            before = await super().plugged()
            table.plug("new", ["p2"])
            table.unplug("old", ["p1"])
            table.attach("v2")
            table.detach("v1")
            return before

    network, volumes = Slow(), FakeVolumes()
    network.wired[("old", "p1")] = network.wired[("kept", "p3")] = "/ns/1"
    volumes.in_use.add("v1")
    table = Table(network, volumes)
    await table.read()
    assert table.workloads == {"new", "kept"}
    assert table.attached == {"v2"}


def test_what_is_held_of_a_workload_is_all_of_it_and_nothing_else() -> None:
    boxes = tuple(Sandbox(uuid=uuid, netns="/n", ready=True) for uuid in ("one", "two"))
    members = tuple(
        Observed(uuid=uuid, incarnation=1, sandbox=sandbox, state="running")
        for uuid, sandbox in (("a", "one"), ("b", "three"), ("c", "one"))
    )
    held = by_workload(Holdings(boxes, members))
    assert held == {
        "one": Holdings(boxes[:1], (members[0], members[2])),
        "two": Holdings(boxes[1:], ()),
        "three": Holdings((), members[1:2]),
    }


def test_times_are_utc_without_zone() -> None:
    bare = datetime(2026, 1, 1, 12)
    assert naive(bare) == naive(bare.replace(tzinfo=UTC)) == bare
    assert naive(datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))) == bare
    assert naive(None) is None
