"""Limits that limit, defaults that keep a container in, and the figures about it, all seen from where they count."""

import asyncio
import os
from pathlib import Path

import pytest

from higgins.model.errors import EngineError
from higgins.runtimes.base import Bind, Runtime, Stats
from tests.contract.workloads import Workloads, run, sh, until

MIB = 1 << 20


async def limit(runtime: Runtime, uuid: str, v1: str, v2: str) -> str:
    """A control file of the container's cgroup, by its names in both versions."""
    return (await sh(runtime, uuid, f"cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}")).strip()


async def cores(runtime: Runtime, uuid: str) -> float:
    """The cores that the container's cgroup allows."""
    script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null"
    quota, period = (await sh(runtime, uuid, f"{script} || cat /sys/fs/cgroup/cpu.max")).split()
    return int(quota) / int(period)


async def test_limits_are_in_force_inside(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start(cpu=0.5, memory=64 * MIB)
    assert await limit(runtime, uuid, "memory/memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert await cores(runtime, uuid) == 0.5


async def test_a_container_is_held_back_that_wants_more_of_a_core_than_it_may(
    runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.start("sh", "-c", "while :; do :; done", cpu=0.1)

    async def held_back() -> bool:
        told = (await limit(runtime, uuid, "cpu/cpu.stat", "cpu.stat")).split()
        return int(told[told.index("nr_throttled") + 1]) > 0

    await until(held_back)


async def test_a_process_that_takes_more_memory_than_it_may_is_killed(workloads: Workloads) -> None:
    assert (await workloads.finish("tail", "/dev/zero", memory=16 * MIB)).exit_code == 137


async def test_a_container_keeps_to_the_cores_it_is_given_also_when_it_starts_again(
    runtime: Runtime, workloads: Workloads
) -> None:
    core = max(os.sched_getaffinity(0))
    uuid = await workloads.start(cpu=0.5, cpuset=(core,))
    for _ in range(2):
        allowed = await sh(runtime, uuid, "grep Cpus_allowed_list /proc/self/status")
        assert allowed.split() == ["Cpus_allowed_list:", str(core)]
        await runtime.stop(uuid, 0)
        await runtime.start(uuid)


@pytest.mark.needs("update")
async def test_update_changes_limits_in_place(runtime: Runtime, workloads: Workloads) -> None:
    core = max(os.sched_getaffinity(0))
    uuid = await workloads.start(cpu=0.5, memory=64 * MIB, cpuset=(core,))
    for memory in (96 * MIB, 48 * MIB, 48 * MIB):
        await runtime.update(uuid, cpu=0.25, memory=memory)
        assert await limit(runtime, uuid, "memory/memory.limit_in_bytes", "memory.max") == str(memory)
        assert await cores(runtime, uuid) == 0.25
        assert (await sh(runtime, uuid, "grep Cpus_allowed_list /proc/self/status")).split()[1] == str(core)


@pytest.mark.needs("oom")
async def test_more_memory_than_allowed_is_seen_as_that(workloads: Workloads) -> None:
    async def seen() -> bool:
        # An engine may see the end before it learns of the reason (Docker 20.10: about 1 in 20), hence several.
        container = await workloads.finish("tail", "/dev/zero", memory=16 * MIB)
        assert container.exit_code == 137
        return container.oom_killed

    await until(seen)


@pytest.mark.needs("pids")
async def test_more_processes_than_allowed_are_refused(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start(pids=10)
    assert await limit(runtime, uuid, "pids/pids.max", "pids.max") == "10"
    _, _, err = await run(runtime, uuid, "sh", "-c", "for i in $(seq 20); do sleep 60 >/dev/null 2>&1 & done")
    assert b"fork" in err


async def test_a_bind_is_written_through_and_a_read_only_one_is_not(
    runtime: Runtime, workloads: Workloads, tmp_path: Path
) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "word").write_text(name)
    binds = (
        Bind(source=str(tmp_path / "open"), destination="/open"),
        Bind(source=str(tmp_path / "closed"), destination="/closed", read_only=True),
        Bind(source=str(tmp_path / "open" / "word"), destination="/etc/word", read_only=True),
    )
    uuid = await workloads.start(binds=binds)
    assert await sh(runtime, uuid, "cat /open/word /closed/word /etc/word; echo new > /open/new") == "openclosedopen"
    assert (tmp_path / "open" / "new").read_text() == "new\n"
    for path in ("/closed/new", "/etc/word"):
        code, _, err = await run(runtime, uuid, "sh", "-c", f"echo no > {path}")
        assert code != 0
        assert b"Read-only" in err


async def test_hosts_and_resolver_can_be_given_as_binds(runtime: Runtime, workloads: Workloads, tmp_path: Path) -> None:
    for name in ("hosts", "resolv.conf", "hostname"):
        (tmp_path / name).write_text(f"# {name} of the agent\n")
    names = ("hosts", "resolv.conf", "hostname")
    binds = tuple(Bind(source=str(tmp_path / name), destination=f"/etc/{name}", read_only=True) for name in names)
    uuid = await workloads.start(binds=binds)
    assert await sh(runtime, uuid, "cat /etc/hosts /etc/resolv.conf /etc/hostname") == (
        "# hosts of the agent\n# resolv.conf of the agent\n# hostname of the agent\n"
    )


async def test_defaults_give_a_container_little_to_do_harm_with(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start()
    status = dict(line.split(":", 1) for line in (await sh(runtime, uuid, "cat /proc/1/status")).splitlines())
    capabilities = int(status["CapEff"], 16)
    net_admin, net_raw, sys_admin, mknod = 12, 13, 21, 27
    assert not any(capabilities >> bit & 1 for bit in (net_admin, net_raw, sys_admin, mknod))
    assert capabilities >> 10 & 1, "a service may bind a low port"
    assert status["CapBnd"].strip() == status["CapEff"].strip()
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


async def test_the_kernels_own_files_are_masked(runtime: Runtime, box: str) -> None:
    assert await sh(runtime, box, "head -c 1 /proc/kcore | wc -c") == "0\n"
    for forbidden in ("echo 1 > /proc/sys/kernel/panic", "mknod /tmp/disk b 7 0", "mount -t tmpfs none /mnt"):
        code, _, _ = await run(runtime, box, "sh", "-c", forbidden)
        assert code != 0, forbidden


def has_every_capability() -> bool:
    """Whether this process could give a container all there are."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["CapBnd"], 16) == (1 << last + 1) - 1


@pytest.mark.skipif(not has_every_capability(), reason="this machine withholds capabilities that privileged means")
async def test_a_privileged_container_may_do_more(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox(privileged=True)
    uuid = await workloads.start(sandbox=sandbox, privileged=True)
    await sh(runtime, uuid, "mkdir /place && mount -t tmpfs none /place")


@pytest.mark.needs("stats")
async def test_stats_tell_what_a_container_uses(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start("sh", "-c", "while :; do :; done", cpu=0.5, memory=64 * MIB)
    idle = await workloads.start(memory=32 * MIB)

    async def one_is_busy() -> tuple[Stats, Stats] | None:
        busy, still = await asyncio.gather(runtime.stats(uuid), runtime.stats(idle))
        return (busy, still) if still.cpu_percent < busy.cpu_percent else None

    busy, still = await until(one_is_busy)
    assert 0 < busy.cpu_percent < 150
    assert (busy.memory_limit, still.memory_limit) == (64 * MIB, 32 * MIB)
    assert 0 < busy.memory_used < 64 * MIB
    assert (busy.net_rx, busy.net_tx) == (0, 0)


@pytest.mark.needs("stats")
async def test_stats_of_a_container_that_does_not_run_are_refused(runtime: Runtime, workloads: Workloads) -> None:
    with pytest.raises(EngineError):
        await runtime.stats(await workloads.create())


@pytest.mark.needs("top")
async def test_top_tells_the_containers_processes_alone(runtime: Runtime, workloads: Workloads) -> None:
    uuid = await workloads.start("sh", "-c", "sleep 4321 & wait")

    async def both() -> bool:
        seen = await runtime.top(uuid, None)
        assert "PID" in seen.titles
        commands = [" ".join(row) for row in seen.rows]
        return len(commands) == 2 and any("sleep 4321" in command for command in commands)

    await until(both)
    assert (await runtime.top(uuid, "-o pid,comm")).titles == ("PID", "COMMAND")


async def test_no_label_of_a_tenant_passes_for_ours(runtime: Runtime, workloads: Workloads) -> None:
    sandbox = await workloads.sandbox()
    forged = {
        "org.higgins.uuid": "someone-else",
        "org.higgins.sandbox": "someone-else",
        "org.higgins.project": "someone-else",
        "org.higgins.incarnation": "99",
        "org.higgins.kind": "sandbox",
        "io.kubernetes.pod.uid": "someone-else",
        "mine": "kept",
    }
    container = workloads.spec(sandbox, labels=forged)
    await runtime.create(container)
    seen = await runtime.list(sandbox)
    assert [found.uuid for found in seen.sandboxes] == [sandbox]
    (found,) = seen.containers
    assert (found.uuid, found.sandbox, found.project_id, found.incarnation) == (container.uuid, sandbox, "demo", 1)
    everything = await runtime.list()
    assert "someone-else" not in {held.uuid for held in everything.sandboxes}
    assert "someone-else" not in {held.uuid for held in everything.containers}
