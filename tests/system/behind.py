"""What somebody with the engine's own tools sees, and does behind Higgins' back."""

import os
import signal
from typing import Any, Protocol

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from tests.engines import DEADLINE, Engine
from tests.engines.containerd import ContainerdEngine
from tests.engines.docker import DockerEngine

_UUID = "org.higgins.uuid"


class BehindTheBack(Protocol):
    """An engine as its operator drives it. A container is named by its uuid, as Higgins knows it."""

    @property
    def engine(self) -> Engine: ...

    def containers(self) -> set[str]:
        """All there are in the engine, whatever their state."""

    def remove(self, uuid: str) -> None:
        """Kill and remove a container."""

    def pid(self, uuid: str) -> int:
        """Its first process, as this namespace numbers it; 0 where it does not run or is not there."""

    def sandbox_pid(self, uuid: str) -> int:
        """The process that holds the workload's namespaces."""


def end_process(pid: int) -> None:
    """As the kernel does when memory is short, or an operator by mistake."""
    assert pid > 0, "it does not run"  # 0 would be this process and all its group
    os.kill(pid, signal.SIGKILL)


class BehindDocker:
    """By ``docker``."""

    def __init__(self, engine: DockerEngine) -> None:
        self.engine = engine
        self._command = engine.command

    def containers(self) -> set[str]:
        return set(self._command("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}}").splitlines())

    def remove(self, uuid: str) -> None:
        self._command("rm", "--force", self._one(f"{_UUID}={uuid}", "org.higgins.kind=container"))

    def pid(self, uuid: str) -> int:
        return self._pid(self._one(f"{_UUID}={uuid}", "org.higgins.kind=container"))

    def sandbox_pid(self, uuid: str) -> int:
        return self._pid(self._one(f"{_UUID}={uuid}", "org.higgins.kind=sandbox"))

    def _pid(self, container: str) -> int:
        return int(self._command("inspect", "--format", "{{.State.Pid}}", container)) if container else 0

    def _one(self, *labels: str) -> str:
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return self._command("ps", "--all", "--quiet", "--no-trunc", *filters).strip()


class BehindContainerd:
    """By ``ctr``; what CRI keeps, by CRI."""

    def __init__(self, engine: ContainerdEngine) -> None:
        self.engine = engine
        self._command = engine.command

    def containers(self) -> set[str]:
        return set(self._command("containers", "ls", "--quiet").split())

    def remove(self, uuid: str) -> None:
        found = self._one("uuid", uuid, "container")
        with grpc.insecure_channel(self.engine.endpoint) as channel:
            runtime: Any = api_pb2_grpc.RuntimeServiceStub(channel)  # type: ignore[no-untyped-call]
            runtime.StopContainer(cri.StopContainerRequest(container_id=found, timeout=0), timeout=DEADLINE)
            runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=found), timeout=DEADLINE)

    def pid(self, uuid: str) -> int:
        return self._pid(self._one("uuid", uuid, "container"))

    def sandbox_pid(self, uuid: str) -> int:
        return self._pid(self._one("sandbox", uuid, "sandbox"))

    def _pid(self, container: str) -> int:
        rows = (row.split() for row in self._command("tasks", "ls").splitlines()[1:])
        return next((int(row[1]) for row in rows if row[0] == container and row[2] == "RUNNING"), 0)

    def _one(self, label: str, uuid: str, kind: str) -> str:
        labels = f'labels."org.higgins.{label}"=={uuid},labels."io.cri-containerd.kind"=={kind}'
        return self._command("containers", "ls", "--quiet", labels).strip()
