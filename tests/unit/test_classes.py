"""The agent's runtime classes, and how containerd is told of one."""

import json
import logging
from typing import Any, cast

import pytest
from cri_api.v1 import api_pb2 as cri

from higgins.agent import classes
from higgins.model.errors import EngineError, EngineUnavailable
from higgins.runtimes.base import EngineInfo, Runtime
from higgins.runtimes.cri.archive import running_root
from higgins.runtimes.cri.classes import Handler, handlers, on_its_own, options
from higgins.runtimes.cri.containerd import message
from higgins.runtimes.docker import engine


class Probed:
    """An engine of which ``works`` are the runtimes that run anything."""

    def __init__(self, *works: str, error: type[Exception] = EngineError) -> None:
        self.works = works
        self.error = error
        self.tried: list[str] = []

    async def info(self) -> EngineInfo:
        return EngineInfo("docker", "20.10", ("crun", "runc"))

    async def probe(self, runtime: str) -> None:
        self.tried.append(runtime)
        if runtime not in self.works:
            raise self.error(f"no {runtime} here")


def runtime(probed: Probed) -> Runtime:
    return cast(Runtime, probed)


async def test_classes_that_work_are_offered_and_the_others_are_logged_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    probed = Probed("runsc")
    with caplog.at_level(logging.WARNING):
        offered = await classes.working(runtime(probed), {"gvisor": "runsc", "kata": "kata-qemu"})
    assert offered == {"gvisor": "runsc"}
    assert sorted(probed.tried) == ["kata-qemu", "runsc"]
    assert "kata (kata-qemu) is not offered: no kata-qemu here" in caplog.text


async def test_without_configuration_the_engines_runtimes_are_the_classes_untried() -> None:
    probed = Probed()
    assert await classes.working(runtime(probed), {}) == {"crun": "crun", "runc": "runc"}
    assert not probed.tried


async def test_a_class_that_hangs_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "PATIENCE", 0.0)
    assert await classes.working(runtime(Probed(error=TimeoutError)), {"kata": "kata"}) == {}


async def test_nothing_is_said_of_classes_when_the_engine_goes_away() -> None:
    with pytest.raises(EngineUnavailable):
        await classes.working(runtime(Probed(error=EngineUnavailable)), {"kata": "kata"})


def test_a_class_is_the_engines_name_and_none_is_the_engines_default() -> None:
    held = {"gvisor": "runsc"}
    assert classes.engine_name(held, "gvisor") == "runsc"
    assert classes.engine_name(held, None) is None
    with pytest.raises(EngineError, match="no runtime class kata"):
        classes.engine_name(held, "kata")


def status(**config: Any) -> cri.StatusResponse:
    return cri.StatusResponse(info={"config": json.dumps(config)})


def test_how_containerd_runs_a_class_is_read_from_its_configuration() -> None:
    tables = {
        "runc": {"runtimeType": "io.containerd.runc.v2"},
        "runsc": {"runtimeType": "x", "options": {"Root": "/r"}},
    }
    held = handlers(status(containerd={"defaultRuntimeName": "runc", "runtimes": tables}, sandboxImage="pause:3"))
    assert (held.default, held.pause_image) == ("runc", "pause:3")
    assert held.named["runsc"] == Handler("x", {"Root": "/r"})
    newer = handlers(status(containerd={"runtimes": tables}))
    assert (newer.default, newer.pause_image) == ("runc", "")


def test_a_shim_is_told_what_its_table_says() -> None:
    kind, told = options(Handler("io.containerd.runc.v2", {"BinaryName": "/bin/runsc", "Root": "/run/runsc"}))
    assert kind == "containerd.runc.v1.Options"
    read = message["RuncOptions"].FromString(told)
    assert (read.binary_name, read.root, read.systemd_cgroup) == ("/bin/runsc", "/run/runsc", False)
    kind, told = options(Handler("io.containerd.kata.v2", {"ConfigPath": "/etc/kata.toml"}))
    assert kind == "runtimeoptions.v1.Options"
    assert message["ShimOptions"].FromString(told).config_path == "/etc/kata.toml"
    assert options(Handler("io.containerd.kata.v2")) == ("", b"")


def test_podman_offers_only_what_it_runs_containers_with() -> None:
    said = {"DefaultRuntime": "crun", "Runtimes": {"crun": {}, "kata": {}, "runsc": {}}}
    assert engine.classes("podman", said) == ("crun",)
    assert engine.classes("docker", said) == ("crun", "kata", "runsc")


def test_the_root_of_a_running_container_is_where_the_engine_mounted_it() -> None:
    line = "36 35 0:50 / /run/task/k8s.io/{}/rootfs rw - overlay overlay rw\n"
    text = line.format("abc") + line.format("def")
    assert running_root(text, "def") == "/run/task/k8s.io/def/rootfs"
    assert running_root(text, "de") is None


def test_a_container_on_its_own_is_no_part_of_a_sandbox() -> None:
    annotations = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s", "mine": "kept"}
    spec = json.dumps({"root": {}, "annotations": annotations}).encode()
    assert json.loads(on_its_own(spec, "box")) == {"root": {}, "hostname": "box", "annotations": {"mine": "kept"}}
    assert "hostname" not in json.loads(on_its_own(spec, ""))
