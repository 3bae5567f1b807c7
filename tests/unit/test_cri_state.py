"""What the CRI driver makes of what an engine tells: states, limits, figures, names, errors."""

import json
from datetime import UTC, datetime

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import (
    ContainerGone,
    EngineError,
    EngineUnavailable,
    HigginsError,
    ImageNotFound,
    ImagePullFailed,
)
from higgins.runtimes.base import EngineContainer, Processes
from higgins.runtimes.cri import config, state, usage
from higgins.runtimes.cri.commit import with_layer
from higgins.runtimes.cri.errors import engine_error, pull_error
from higgins.runtimes.cri.images import check_name, short_name
from higgins.runtimes.cri.oom import killed_within
from higgins.runtimes.cri.streams import exit_code_of
from higgins.runtimes.pulls import canonical

SPEC = EngineContainer(uuid="c", incarnation=3, sandbox="s", project_id="demo", image="busybox", memory=1 << 20)


def status(engine_state: int, **told: object) -> cri.ContainerStatus:
    kept = config.container_config(SPEC, attempt=1)
    return cri.ContainerStatus(
        id="engine-id",
        state=engine_state,  # type: ignore[arg-type]
        labels=kept.labels,
        annotations=kept.annotations,
        **told,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("engine_state", "expected"),
    [
        (cri.CONTAINER_CREATED, "created"),
        (cri.CONTAINER_RUNNING, "running"),
        (cri.CONTAINER_EXITED, "exited"),
        (cri.CONTAINER_UNKNOWN, "dead"),
    ],
)
def test_each_state_has_a_word(engine_state: int, expected: str) -> None:
    seen = state.observed(status(engine_state))
    assert (seen.state, seen.uuid, seen.incarnation, seen.sandbox, seen.project_id, seen.image) == (
        expected,
        "c",
        3,
        "s",
        "demo",
        "busybox",
    )
    assert state.word(engine_state) == expected


def test_what_runs_or_has_ended_stays_as_it_is_told() -> None:
    every = (cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED, cri.CONTAINER_UNKNOWN)
    assert [one for one in every if state.stays(status(one))] == [cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED]


def test_an_exit_code_is_told_of_an_exit_only() -> None:
    assert state.observed(status(cri.CONTAINER_RUNNING)).exit_code is None
    assert state.observed(status(cri.CONTAINER_EXITED)).exit_code == 0
    seen = state.observed(status(cri.CONTAINER_EXITED, exit_code=1, reason="Error", message="why"))
    assert (seen.exit_code, seen.reason, seen.oom_killed) == (1, "why", False)
    for told in ("Completed", "Error", "OOMKilled"):
        assert state.observed(status(cri.CONTAINER_EXITED, reason=told)).reason == ""
    assert state.observed(status(cri.CONTAINER_EXITED, reason="Other", message="why")).reason == "Other: why"


def test_a_container_whose_start_failed_has_never_run() -> None:
    message = 'a failed: b failed: unable to start container process: exec: "x": not found: unknown'
    seen = state.observed(status(cri.CONTAINER_EXITED, exit_code=128, reason="StartError", message=message))
    assert (seen.state, seen.exit_code, seen.reason) == ("created", None, 'exec: "x": not found.')


def test_times_are_nanoseconds_since_1970_and_zero_for_never() -> None:
    seen = state.observed(status(cri.CONTAINER_EXITED, started_at=1_000_000_000))
    assert (seen.started_at, seen.finished_at) == (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), None)


def test_a_kill_that_the_engine_gives_no_reason_for_is_looked_into() -> None:
    assert state.observed(status(cri.CONTAINER_EXITED, exit_code=137, reason="OOMKilled")).oom_killed
    unclear = status(cri.CONTAINER_EXITED, exit_code=137, reason="Error")
    assert state.may_be_out_of_memory(unclear)
    assert state.observed(unclear, out_of_memory=True).oom_killed
    assert not state.may_be_out_of_memory(status(cri.CONTAINER_EXITED, exit_code=137, reason="OOMKilled"))
    assert not state.may_be_out_of_memory(status(cri.CONTAINER_EXITED, exit_code=1))
    assert not state.may_be_out_of_memory(status(cri.CONTAINER_RUNNING))


def test_the_kernel_names_the_group_whose_limit_it_was() -> None:
    record = (
        "4,1234,5678,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=aa,mems_allowed=0,"
        "oom_memcg={group},task_memcg=/k8s.io/bb,task=tail,pid=42,uid=0"
    )
    for group in ("/k8s.io/bb", "/system.slice/cri-containerd-bb.scope"):
        assert killed_within([record.format(group=group)], "bb")
    assert not killed_within([record.format(group="/tenants")], "bb"), "a limit above it: not the container's fault"
    assert not killed_within(["6,1,2,-;bb oom_memcg is mentioned"], "bb")


def test_the_newest_of_each_incarnation_counts() -> None:
    def container(attempt: int, incarnation: int) -> cri.Container:
        spec = EngineContainer(uuid="c", incarnation=incarnation, sandbox="s", image="i")
        return cri.Container(
            id=str(attempt), metadata=cri.ContainerMetadata(attempt=attempt), labels=config.labels(spec)
        )

    held = [container(1, 1), container(3, 1), container(2, 1), container(9, 2)]
    assert {one.id for one in state.newest_of_each(held)} == {"3", "9"}


def verbose(info: dict[str, object], ready: bool = True) -> cri.PodSandboxStatusResponse:
    engine_state = cri.SANDBOX_READY if ready else cri.SANDBOX_NOTREADY
    return cri.PodSandboxStatusResponse(
        status=cri.PodSandboxStatus(state=engine_state), info={"info": json.dumps(info)}
    )


def test_the_network_namespace_is_the_one_in_the_specification_or_the_pause_process_own() -> None:
    spec = {"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}]}}
    assert state.netns(verbose({"pid": 42, "runtimeSpec": spec})) == "/run/netns/x"
    assert state.netns(verbose({"pid": 42})) == "/proc/42/ns/net"
    assert state.netns(verbose({"pid": 42, "runtimeSpec": spec}, ready=False)) == ""
    assert state.netns(verbose({})) == ""


def test_limits_in_force_are_those_of_the_engine() -> None:
    held = {"linux": {"resources": {"cpu": {"quota": 25_000, "period": 100_000}, "memory": {"limit": 5}}}}
    now = state.limits_in_force(SPEC, held)
    assert (now.cpu, now.memory) == (0.25, 5)
    assert state.limits_in_force(SPEC, {}) == SPEC
    none = state.limits_in_force(SPEC, {"linux": {"resources": {"cpu": {"quota": -1}, "memory": {"limit": -1}}}})
    assert (none.cpu, none.memory) == (0, 0)


def engine_status(ready: bool, *plugins: str) -> cri.StatusResponse:
    """An engine with a network configuration of these plugins."""
    network = cri.RuntimeCondition(type="NetworkReady", status=ready, reason="NetworkPluginNotReady", message="no conf")
    conditions = [cri.RuntimeCondition(type="RuntimeReady", status=True), network]
    networks = [{"Config": {"Plugins": [{"Network": {"type": plugin}}]}, "IFName": "eth0"} for plugin in plugins]
    return cri.StatusResponse(
        status=cri.RuntimeStatus(conditions=conditions), info={"cniconfig": json.dumps({"Networks": networks})}
    )


def test_an_engine_that_makes_interfaces_of_its_own_or_none_at_all_is_unfit() -> None:
    assert state.unfit(engine_status(True, "loopback", "loopback")) == ""
    assert state.unfit(cri.StatusResponse()) == ""
    assert "not ready: NetworkPluginNotReady: no conf." in state.unfit(engine_status(False))
    assert "(bridge, loopback)" in state.unfit(engine_status(True, "loopback", "bridge"))


def test_runtime_classes_come_from_the_message_or_the_settings() -> None:
    settings = {"config": json.dumps({"containerd": {"runtimes": {"runsc": {}, "runc": {}}}})}
    assert state.runtime_classes(cri.StatusResponse(info=settings)) == ("runc", "runsc")
    handlers = [cri.RuntimeHandler(name=""), cri.RuntimeHandler(name="kata")]
    assert state.runtime_classes(cri.StatusResponse(runtime_handlers=handlers)) == ("kata",)
    assert state.runtime_classes(cri.StatusResponse()) == ()


@pytest.mark.parametrize(
    ("written", "full", "short"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("reg:5000/a/b", "reg:5000/a/b:latest", "reg:5000/a/b:latest"),
        ("a@sha256:" + "0" * 64, "docker.io/library/a@sha256:" + "0" * 64, "a@sha256:" + "0" * 64),
    ],
)
def test_names_are_written_in_full_to_the_engine_and_short_to_people(written: str, full: str, short: str) -> None:
    check_name(written)
    assert canonical(written) == full
    assert short_name(full) == short
    assert canonical(short) == full


@pytest.mark.parametrize("name", ["", "-x", "a//b", "a b", "a\nb", "A/B", "a?b", "../a", "a/../b", "a:", "a@b"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(ImageNotFound):
        check_name(name)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, EngineUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, EngineUnavailable),
        (grpc.StatusCode.NOT_FOUND, ContainerGone),
        (grpc.StatusCode.UNKNOWN, EngineError),
        (grpc.StatusCode.INVALID_ARGUMENT, EngineError),
    ],
)
def test_errors_are_told_by_code(code: grpc.StatusCode, expected: type[HigginsError]) -> None:
    error = engine_error(code, "the\nreason", "container c")
    assert type(error) is expected
    if expected is EngineError:
        assert str(error) == "The container engine refused: the reason."


def test_a_pull_that_fails_names_the_image() -> None:
    assert isinstance(pull_error(grpc.StatusCode.NOT_FOUND, "", "x:1"), ImageNotFound)
    failed = pull_error(grpc.StatusCode.UNKNOWN, "", "x:1")
    assert isinstance(failed, ImagePullFailed)
    assert str(failed) == "Image x:1 could not be fetched: it gave no reason."


def test_the_exit_code_of_a_command_is_in_the_status_that_ends_its_streams() -> None:
    assert exit_code_of(b'{"status": "Success"}') == 0
    cause = {"reason": "ExitCode", "message": "7"}
    assert exit_code_of(json.dumps({"status": "Failure", "details": {"causes": [cause]}}).encode()) == 7
    with pytest.raises(EngineError, match="why"):
        exit_code_of(b'{"status": "Failure", "message": "why"}')


def test_a_percentage_is_of_one_core_between_two_looks() -> None:
    def look(timestamp: int, used: int) -> cri.CpuUsage:
        return cri.CpuUsage(timestamp=timestamp, usage_core_nano_seconds=cri.UInt64Value(value=used))

    assert usage.cpu_percent(look(0, 0), look(1000, 500)) == 50
    assert usage.cpu_percent(look(5, 0), look(5, 500)) == 0
    assert usage.cpu_percent(look(0, 900), look(1000, 500)) == 0, "counters begin anew with a task"


def test_counters_are_read_from_the_kernels_files() -> None:
    devices = "    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 10 1 0 0 0 0 0 0 20 2 0\n eth1:1 0 0 0 0 0 0 0 2 0"
    net = "Inter-| Receive\n face |bytes\n" + devices
    assert usage.network_bytes(net) == (11, 22)
    assert usage.block_bytes_v1("8:0 Read 5\n8:0 Write 6\n8:0 Sync 9\n9:0 Read 1\nTotal 12\n") == (6, 6)
    assert usage.block_bytes_v2("8:0 rbytes=5 wbytes=6 rios=1\n9:0 rbytes=1 wbytes=0 rios=1\n") == (6, 6)
    assert usage.block_bytes_v2("") == (0, 0)


def test_no_arguments_of_ps_show_another_process() -> None:
    assert usage.ps_words(None, {"7", "42"}) == ["-ef", "-q", "7,42"]
    assert usage.ps_words("-o pid,comm", {"7"}) == ["-o", "pid,comm", "-q", "7"]
    for refused in ("-q 1", "q1", "--quick-pid 1", "-o rss=PID,args", "-o 'pid"):
        with pytest.raises(EngineError):
            usage.ps_words(refused, {"7"})


def test_rows_of_other_processes_are_left_out() -> None:
    shown = "  PID CMD\n    1 init\n   42 sleep 9 x\n"
    assert usage.only(shown, {"42"}) == Processes(("PID", "CMD"), (("42", "sleep 9 x"),))
    with pytest.raises(EngineError):
        usage.only("CMD\nsleep\n", {"42"})


def test_a_commit_adds_a_layer_and_keeps_the_rest() -> None:
    before = {"config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ["a"]}}
    after = with_layer(before, "b", datetime(2026, 1, 1, tzinfo=UTC))
    assert after["config"] == before["config"]
    assert after["rootfs"]["diff_ids"] == ["a", "b"]
    assert [one["created"] for one in after["history"]] == ["2026-01-01T00:00:00Z"]
