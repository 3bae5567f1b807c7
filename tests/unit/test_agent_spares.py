"""Sandboxes made ahead, on fakes: who takes one, who may not, and that none is lost or given twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from higgins.agent import spares
from higgins.control.link import Assignment, Order
from tests.unit.fakes import WORKLOAD, assignment, member
from tests.unit.test_agent import Host, until

OTHER = "22222222-2222-2222-2222-222222222222"


@pytest.fixture(autouse=True)
def namespaces_are_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "QUIET", 0)
    monkeypatch.setattr(spares, "there", lambda netns: bool(netns))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    yield host
    await host.stop()


def plain(uuid: str = WORKLOAD) -> Assignment:
    """A workload whose owner chose no host name."""
    return replace(assignment(replace(member(), uuid=uuid)), uuid=uuid, hostname="")


async def test_a_plain_container_takes_a_spare_sandbox_and_the_pool_is_filled_again(host: Host) -> None:
    host.start(spares=2)
    await until(lambda: len(host.runtime.boxes) == 2)
    made = set(host.runtime.boxes)
    host.control.put(plain())
    await host.settled()
    assert host.runtime.newest(WORKLOAD).spec.sandbox in made
    assert WORKLOAD not in host.runtime.boxes
    await until(lambda: len(host.runtime.boxes) == 3)


async def test_its_files_and_its_sandbox_have_the_same_host_name(host: Host) -> None:
    host.start(spares=1)
    await until(lambda: len(host.runtime.boxes) == 1)
    (spare,) = host.runtime.boxes
    host.control.put(plain())
    await host.settled()
    assert (host.data / "sandboxes" / WORKLOAD / "hostname").read_text() == f"{spare[:12]}\n"
    assert spare[:12] in (host.data / "sandboxes" / WORKLOAD / "hosts").read_text()


async def test_who_wants_something_special_gets_a_sandbox_of_its_own(host: Host) -> None:
    host.start(spares=1)
    await until(lambda: len(host.runtime.boxes) == 1)
    special = member()
    host.control.put(replace(plain(), members=(replace(special, spec=replace(special.spec, privileged=True)),)))
    await host.settled()
    assert host.runtime.newest(WORKLOAD).spec.sandbox == WORKLOAD


async def test_a_deleted_container_takes_its_sandbox_along(host: Host) -> None:
    host.start(spares=1)
    await until(lambda: len(host.runtime.boxes) == 1)
    host.control.put(plain())
    await host.settled()
    taken = host.runtime.newest(WORKLOAD).spec.sandbox
    host.change(lambda one: replace(one, deleting=True))
    await until(lambda: not host.control.assigned and taken not in host.runtime.boxes)
    assert not host.runtime.held


async def test_after_a_crash_the_taken_are_known_again_and_the_untaken_go(host: Host) -> None:
    host.start(spares=2)
    await until(lambda: len(host.runtime.boxes) == 2)
    host.control.put(plain())
    await host.settled()
    taken = host.runtime.newest(WORKLOAD)
    before = set(host.runtime.boxes)
    await host.crash()
    host.start()
    await until(lambda: set(host.runtime.boxes) == {taken.spec.sandbox})
    assert before >= {taken.spec.sandbox}
    assert host.runtime.newest(WORKLOAD).identity == taken.identity
    assert host.runtime.state(WORKLOAD) == "running"


async def test_a_clean_stop_leaves_no_spare(host: Host) -> None:
    host.start(spares=2)
    await until(lambda: len(host.runtime.boxes) == 2)
    await host.stop()
    assert not host.runtime.boxes


async def test_a_spare_whose_process_was_killed_is_given_to_nobody(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.start(spares=1)
    await until(lambda: len(host.runtime.boxes) == 1)
    (dead,) = host.runtime.boxes
    monkeypatch.setattr(spares, "there", lambda netns: netns != host.runtime.boxes[dead].netns)
    host.control.put(plain())
    await host.settled()
    assert host.runtime.newest(WORKLOAD).spec.sandbox == WORKLOAD
    await until(lambda: dead not in host.runtime.boxes)


async def test_an_event_of_a_taken_spare_before_the_first_comparison_removes_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.start(spares=1)
    await until(lambda: len(host.runtime.boxes) == 1)
    host.control.put(plain())
    await host.settled()
    taken = host.runtime.newest(WORKLOAD)
    await host.crash()
    compare = asyncio.Event()
    real = host.runtime.list

    async def late(sandbox: str | None = None) -> Any:
        if sandbox is None:
            await compare.wait()
        return await real(sandbox)

    monkeypatch.setattr(host.runtime, "list", late)
    host.start()
    await until(lambda: bool(host.agent and host.agent._told and host.runtime._listeners))
    host.runtime.tell(taken.spec.sandbox)
    await until(lambda: all(queue.empty() for queue in host.runtime._listeners))
    compare.set()
    await until(lambda: bool(host.agent and host.agent._compared))
    host.change_member(order=Order(seq=1, verb="restart"))
    await host.settled()
    assert host.runtime.newest(WORKLOAD).identity == taken.identity
    assert host.runtime.state(WORKLOAD) == "running"
