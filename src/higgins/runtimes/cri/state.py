"""From what CRI tells to what Higgins observes. Pure."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cri_api.v1 import api_pb2 as cri
from msgspec import structs

from higgins.runtimes.base import EngineContainer, Observed, Sandbox
from higgins.runtimes.cri.config import PREFIX, container_spec, sandbox_spec
from higgins.runtimes.cri.errors import sentence
from higgins.runtimes.wording import one_line

#: containerd's reason for a start that failed.
_NOT_STARTED = "StartError"
#: CRI's reason for an end by the kernel, and the exit code of an end by SIGKILL.
_OOM, _SIGKILLED = "OOMKilled", 128 + 9
_STATES = {
    cri.CONTAINER_CREATED: "created",
    cri.CONTAINER_RUNNING: "running",
    cri.CONTAINER_EXITED: "exited",
    cri.CONTAINER_UNKNOWN: "dead",
}


def observed(status: cri.ContainerStatus, *, out_of_memory: bool = False) -> Observed:
    """A container as the engine holds it, but for whether it is paused: CRI does not say.

    ``out_of_memory`` is for what the engine has missed, see ``oom``.
    """
    state = _STATES[status.state]
    if status.reason == _NOT_STARTED and status.started_at == 0:
        state = "created"  # as on other engines: it has never run, and the start has told why
    ended = state == "exited"
    return Observed(
        uuid=status.labels[PREFIX + "uuid"],
        incarnation=int(status.labels[PREFIX + "incarnation"]),
        sandbox=status.labels[PREFIX + "sandbox"],
        project_id=status.labels[PREFIX + "project"],
        state=state,
        exit_code=status.exit_code if ended else None,
        oom_killed=out_of_memory or status.reason == _OOM,
        reason=_reason(status),
        started_at=moment(status.started_at),
        finished_at=moment(status.finished_at),
        image=container_spec(status.annotations).image,
    )


def stays(status: cri.ContainerStatus) -> bool:
    """Whether the engine will tell the same of it for as long as it lists it in that state: none runs twice."""
    return status.state in (cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED)


def may_be_out_of_memory(status: cri.ContainerStatus) -> bool:
    """Whether it ended by SIGKILL, had a limit, and the engine gives no reason."""
    killed = status.state == cri.CONTAINER_EXITED and status.exit_code == _SIGKILLED
    return killed and status.reason != _OOM and container_spec(status.annotations).memory > 0


def moment(nanoseconds: int) -> datetime | None:
    """CRI's time, nanoseconds since 1970 and 0 for never."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC) if nanoseconds > 0 else None


def newest_of_each(containers: Iterable[cri.Container]) -> list[cri.Container]:
    """One for each uuid and incarnation: an older one stands beside the newest while a start replaces it."""
    newest: dict[tuple[str, str], cri.Container] = {}
    for one in containers:
        key = one.labels[PREFIX + "uuid"], one.labels[PREFIX + "incarnation"]
        if key not in newest or newest[key].metadata.attempt < one.metadata.attempt:
            newest[key] = one
    return list(newest.values())


def sandbox(held: cri.PodSandbox | cri.PodSandboxStatus, netns: str) -> Sandbox:
    """A sandbox that is there, ready when it has a network namespace."""
    return Sandbox(
        uuid=held.labels[PREFIX + "sandbox"],
        netns=netns,
        ready=bool(netns),
        project_id=held.labels[PREFIX + "project"],
        hostname=sandbox_spec(held.annotations).hostname,
    )


def netns(status: cri.PodSandboxStatusResponse) -> str:
    """The path of a ready sandbox's network namespace, empty where it has none.

    The OCI specification in the verbose status names it; the pause process' own is the same one where it does not.
    """
    if status.status.state != cri.SANDBOX_READY:
        return ""
    info = details(status.info)
    for namespace in info.get("runtimeSpec", {}).get("linux", {}).get("namespaces", []):
        if namespace.get("type") == "network" and namespace.get("path"):
            return str(namespace["path"])
    return f"/proc/{info['pid']}/ns/net" if info.get("pid") else ""


def details(info: Mapping[str, str]) -> dict[str, Any]:
    """The JSON that a verbose status holds under ``info``."""
    found: dict[str, Any] = json.loads(info.get("info") or "{}")
    return found


def limits_in_force(spec: EngineContainer, oci: Mapping[str, Any]) -> EngineContainer:
    """``spec`` with the limits that the engine's OCI specification has now: an update changes those only."""
    held = oci.get("linux", {}).get("resources")
    if held is None:
        return spec
    quota, period = held.get("cpu", {}).get("quota") or 0, held.get("cpu", {}).get("period") or 0
    memory = held.get("memory", {}).get("limit") or 0
    return structs.replace(
        spec, cpu=quota / period if quota > 0 and period > 0 else 0.0, memory=memory if memory > 0 else 0
    )


def unfit(status: cri.StatusResponse) -> str:
    """Why the engine cannot be used as it is set up, as a sentence for its operator; empty where it can.

    Where the engine tells its CNI configuration (containerd does), that must be one that makes no interface: an
    ``eth0`` of another's would stand where the wiring of ours belongs.
    """
    for condition in status.status.conditions:
        if condition.type in ("RuntimeReady", "NetworkReady") and not condition.status:
            return f"The container engine is not ready: {condition.reason}: {condition.message}".rstrip(": .") + "."
    networks = json.loads(status.info.get("cniconfig") or "{}").get("Networks") or ()
    plugins = {plugin["Network"]["type"] for network in networks for plugin in network["Config"]["Plugins"]}
    if plugins - {"loopback"}:
        return (
            f"The container engine's CNI configuration ({', '.join(sorted(plugins))}) makes interfaces of its own. "
            "Give the engine the one of docs/engines.md."
        )
    return ""


def _reason(status: cri.ContainerStatus) -> str:
    """What the engine tells beyond the exit code and a kill for memory, which are told by themselves."""
    if status.reason == _NOT_STARTED:
        return sentence(status.message)
    word = "" if status.reason in ("Completed", "Error", _OOM) else status.reason
    return ": ".join(part for part in (word, one_line(status.message)) if part)


def word(engine_state: int) -> str:
    """A state of the engine's as ``Observed`` has it."""
    return _STATES[cri.ContainerState.ValueType(engine_state)]


def runtime_classes(status: cri.StatusResponse) -> tuple[str, ...]:
    """The names that a sandbox may ask for: in the message since CRI of Kubernetes 1.30, else in containerd's JSON."""
    named = tuple(sorted(handler.name for handler in status.runtime_handlers if handler.name))
    if named:
        return named
    settings = json.loads(status.info.get("config") or "{}")
    return tuple(sorted(settings.get("containerd", {}).get("runtimes") or ()))
