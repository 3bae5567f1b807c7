"""What the Docker driver reads out of the engine's payloads."""

from datetime import UTC, datetime
from typing import Any

import pytest

from higgins.runtimes.docker import engine, state
from higgins.runtimes.wording import one_line

LABELS = {
    "org.higgins.uuid": "c",
    "org.higgins.sandbox": "s",
    "org.higgins.project": "p",
    "org.higgins.incarnation": "2",
    "org.higgins.kind": "container",
}


def payload(**said: Any) -> dict[str, Any]:
    usual = {
        "Status": "running",
        "Running": True,
        "Pid": 42,
        "ExitCode": 0,
        "OOMKilled": False,
        "Error": "",
        "StartedAt": "2026-01-02T03:04:05.123456789Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    return {"Config": {"Labels": LABELS, "Image": "busybox"}, "State": usual | said}


def test_a_running_container_has_started_and_has_no_exit_code() -> None:
    seen = state.observed(payload())
    assert (seen.uuid, seen.sandbox, seen.project_id, seen.incarnation) == ("c", "s", "p", 2)
    assert (seen.state, seen.exit_code, seen.finished_at) == ("running", None, None)
    assert seen.started_at == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)


def test_an_ended_container_has_an_exit_code_and_a_time() -> None:
    seen = state.observed(
        payload(Status="exited", ExitCode=137, OOMKilled=True, FinishedAt="2026-01-02T03:04:06+01:00")
    )
    assert (seen.state, seen.exit_code, seen.oom_killed) == ("exited", 137, True)
    assert seen.finished_at == datetime(2026, 1, 2, 2, 4, 6, tzinfo=UTC)


def test_a_start_that_failed_leaves_a_reason() -> None:
    seen = state.observed(payload(Status="created", ExitCode=127, Error="no such file"))
    assert (seen.state, seen.exit_code, seen.reason) == ("created", 127, "no such file")
    assert state.observed(payload(Status="created")).exit_code is None


@pytest.mark.parametrize(
    ("said", "meant"), [("restarting", "running"), ("removing", "dead"), ("paused", "paused"), ("novel", "dead")]
)
def test_every_state_of_the_engine_is_one_of_ours(said: str, meant: str) -> None:
    assert state.observed(payload(Status=said)).state == meant


def test_a_sandbox_is_ready_while_its_process_holds_the_namespace() -> None:
    assert state.sandbox(payload()).netns == "/proc/42/ns/net"
    ended = state.sandbox(payload(Running=False, Pid=0))
    assert (ended.ready, ended.netns) == (False, "")


def sample(used: int, system: int, cores: int) -> dict[str, Any]:
    return {
        "cpu_stats": {"cpu_usage": {"total_usage": used}, "system_cpu_usage": system, "online_cpus": cores},
        "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
        "memory_stats": {"usage": 50, "limit": 99, "stats": {"total_inactive_file": 20, "inactive_file": 1}},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"op": "Read", "value": 3},
                {"op": "read", "value": 4},
                {"op": "Write", "value": 5},
            ]
        },
    }


def test_cpu_is_per_cent_of_one_core() -> None:
    assert state.cpu_percent(sample(300, 1800, 4)) == 100.0
    assert state.cpu_percent(sample(100, 1800, 4)) == 0.0
    assert state.cpu_percent(sample(300, 1000, 4)) == 0.0


NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     999       9    0    0    0     0          0         0      999       9    0    0    0     0       0          0
  eth0:     100       1    0    0    0     0          0         0      200       2    0    0    0     0       0          0
  eth1:      10       1    0    0    0     0          0         0       20       2    0    0    0     0       0          0
"""  # noqa: E501


def test_stats_count_memory_without_cache_and_traffic_without_lo() -> None:
    seen = state.stats(sample(300, 1800, 4), NET_DEV)
    assert (seen.memory_used, seen.memory_limit, seen.block_read, seen.block_write) == (30, 99, 7, 5)
    assert (seen.net_rx, seen.net_tx) == (110, 220)


def test_stats_of_a_process_that_just_ended_have_no_traffic() -> None:
    seen = state.stats(sample(100, 1000, 1) | {"memory_stats": {}, "blkio_stats": {}}, "")
    assert (seen.memory_used, seen.net_rx, seen.block_read) == (0, 0, 0)


MOUNTINFO = """22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 8:1 / /var/lib/docker rw,relatime shared:2 - xfs /dev/sda1 rw,attr2,prjquota
"""


def test_a_disk_can_be_bounded_only_where_the_file_system_counts() -> None:
    on_xfs = {"Driver": "overlay2", "DockerRootDir": "/var/lib/docker"}
    assert engine.disk_quota(on_xfs, MOUNTINFO)
    assert not engine.disk_quota(on_xfs | {"DockerRootDir": "/var/lib/docker2"}, MOUNTINFO)
    assert engine.disk_quota({"Driver": "btrfs"}, MOUNTINFO)


def test_podman_is_known_by_its_components() -> None:
    version = {"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]}
    said = {"DefaultRuntime": "crun", "Runtimes": {"runc": {}, "crun": {}}}
    assert engine.info(version, said, MOUNTINFO).classes == ("crun",)
    assert engine.info({"Version": "1"}, said, MOUNTINFO).classes == ("crun", "runc")
    assert engine.info(version, {}, MOUNTINFO).engine == "podman"
    assert engine.info({"Version": "1"}, {}, MOUNTINFO).engine == "docker"


def test_a_reason_has_nothing_that_a_database_cannot_keep() -> None:
    assert one_line("denied\0by\n \ud800them") == "denied by ?them"
