"""What the Docker driver asks of the engine for a container."""

from typing import Any

from higgins.runtimes.base import Bind, EngineContainer, SandboxSpec
from higgins.runtimes.docker import config


def body(**wish: Any) -> dict[str, Any]:
    return config.container_body(EngineContainer(uuid="c", incarnation=2, sandbox="s", image="busybox", **wish))


def test_a_container_joins_the_network_and_ipc_of_its_sandbox() -> None:
    host = body()["HostConfig"]
    assert host["NetworkMode"] == host["IpcMode"] == "container:higgins-sandbox-s"


def test_the_engine_is_asked_for_no_restart_and_no_health_check() -> None:
    made = body()
    assert made["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert made["Healthcheck"] == {"Test": ["NONE"]}


def test_defaults_drop_every_capability_but_a_few() -> None:
    host = body()["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert not {"NET_RAW", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "MKNOD"} & set(host["CapAdd"])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert "Privileged" not in host


def test_privileged_lifts_the_defaults() -> None:
    host = body(privileged=True)["HostConfig"]
    assert host["Privileged"] is True
    assert not {"CapDrop", "CapAdd", "SecurityOpt"} & set(host)


def test_memory_has_no_swap_on_top_and_cpu_is_a_real_limit() -> None:
    host = body(cpu=1.5, memory=1 << 20, disk=3, pids=7)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (1 << 20, 1 << 20, 1_500_000_000)
    assert (host["StorageOpt"], host["PidsLimit"]) == ({"size": "3G"}, 7)


def test_cores_are_named_one_by_one() -> None:
    assert body(cpuset=(2, 3, 7))["HostConfig"]["CpusetCpus"] == "2,3,7"


def test_no_limit_is_not_mentioned() -> None:
    assert not {"Memory", "MemorySwap", "NanoCpus", "CpusetCpus", "StorageOpt", "Runtime"} & set(body()["HostConfig"])


def test_what_is_not_asked_for_is_left_to_the_image() -> None:
    assert not {"Cmd", "Entrypoint", "WorkingDir", "Hostname"} & set(body())


def test_only_podman_is_told_the_hostname_of_a_member() -> None:
    container = EngineContainer(uuid="c", incarnation=1, sandbox="s", image="busybox", hostname="h")
    assert "Hostname" not in config.container_body(container)
    assert config.container_body(container, podman=True)["Hostname"] == "h"


def test_an_empty_entrypoint_clears_the_images() -> None:
    assert body(entrypoint=())["Entrypoint"] == [""]
    assert body(entrypoint=("a", "b"), command=("c",))["Entrypoint"] == ["a", "b"]


def test_a_bind_with_a_colon_in_its_path_is_one_bind() -> None:
    (mount,) = body(binds=(Bind(source="/a:b", destination="/c:d", read_only=True),))["HostConfig"]["Mounts"]
    assert mount == {"Type": "bind", "Source": "/a:b", "Target": "/c:d", "ReadOnly": True}


def test_a_tenants_label_under_our_prefix_is_dropped() -> None:
    made = body(labels={"org.higgins.project": "other", "org.higgins.new": "x", "mine": "kept"}, project_id="p")
    assert made["Labels"] == {
        "mine": "kept",
        "org.higgins.uuid": "c",
        "org.higgins.sandbox": "s",
        "org.higgins.project": "p",
        "org.higgins.incarnation": "2",
        "org.higgins.kind": "container",
    }


def test_a_sandbox_has_no_network_and_may_do_nothing() -> None:
    spec = SandboxSpec(uuid="s", project_id="p", hostname="h", dns=("10.0.0.2",), runtime="runsc")
    made = config.sandbox_body(spec, "pause:1")
    host = made["HostConfig"]
    assert (host["NetworkMode"], host["IpcMode"], host["CapDrop"]) == ("none", "shareable", ["ALL"])
    assert (host["Dns"], made["Hostname"], "Runtime" in host) == (["10.0.0.2"], "h", False)


def test_a_container_that_only_carries_our_labels_is_not_ours() -> None:
    labels = body()["Labels"]
    assert config.is_ours("higgins-c-2", labels)
    assert not config.is_ours("higgins-c-1", labels)
    assert not config.is_ours("eager_turing", labels)
    assert not config.is_ours("higgins-c-x", labels | {config.INCARNATION: "x"})
    assert not config.is_ours("higgins-sandbox-c", labels)
    assert not config.is_ours("higgins-c-2", {})
