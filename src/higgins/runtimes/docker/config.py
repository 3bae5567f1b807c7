"""Our specification → the body of the engine's create call. Pure."""

from collections.abc import Mapping
from typing import Any

from higgins.runtimes.base import Bind, EngineContainer, SandboxSpec
from higgins.runtimes.confinement import MASKED_PATHS, READONLY_PATHS

PREFIX = "org.higgins."
UUID = PREFIX + "uuid"
SANDBOX = PREFIX + "sandbox"
PROJECT = PREFIX + "project"
INCARNATION = PREFIX + "incarnation"
KIND = PREFIX + "kind"

#: What a container may do as root: the engine's own default without raw sockets and device nodes.
CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)

#: What the image that holds a sandbox runs.
PAUSE_COMMAND = ("/pause", "-P")

LOGS = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def sandbox_name(uuid: str) -> str:
    return f"higgins-sandbox-{uuid}"


def container_name(uuid: str, incarnation: int) -> str:
    return f"higgins-{uuid}-{incarnation}"


def is_ours(name: str, labels: Mapping[str, str]) -> bool:
    """Whether a container with this name and these labels was made by us.

    An image may carry any labels, and whoever runs it beside us gets them; the name tells such a container from ours.
    """
    uuid, incarnation = labels.get(UUID, ""), labels.get(INCARNATION, "")
    if labels.get(KIND) == "sandbox":
        return name == sandbox_name(uuid)
    return (
        labels.get(KIND) == "container" and incarnation.isdecimal() and name == container_name(uuid, int(incarnation))
    )


def labels(container: EngineContainer) -> dict[str, str]:
    """The tenant's labels with ours over them. What a tenant puts under our prefix is dropped."""
    theirs = {key: value for key, value in container.labels.items() if not key.startswith(PREFIX)}
    return theirs | {
        UUID: container.uuid,
        SANDBOX: container.sandbox,
        PROJECT: container.project_id,
        INCARNATION: str(container.incarnation),
        KIND: "container",
    }


def sandbox_body(spec: SandboxSpec, image: str) -> dict[str, Any]:
    """A container that only holds the namespaces: no network but ``lo``, nothing it may do.

    Without a seccomp profile: its one program waits and runs nothing of a tenant's, and to make a filter of the
    engine's profile is a third of what runc takes to make a container.

    It runs with the engine's default runtime whatever class its members have: each container of a class with a kernel
    of its own has one for itself on this engine, and that of the sandbox would only take the network's addresses away.
    """
    host: dict[str, Any] = {
        "NetworkMode": "none",
        "IpcMode": "shareable",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", "seccomp=unconfined"],
        "ReadonlyRootfs": True,
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no"},
    }
    if spec.dns:
        host["Dns"] = list(spec.dns)
    return {
        "Image": image,
        "Hostname": spec.hostname,
        "Entrypoint": list(PAUSE_COMMAND),
        "Labels": {
            UUID: spec.uuid,
            SANDBOX: spec.uuid,
            PROJECT: spec.project_id,
            INCARNATION: "0",
            KIND: "sandbox",
        },
        "HostConfig": host,
    }


def _mount(bind: Bind) -> dict[str, Any]:
    return {"Type": "bind", "Source": bind.source, "Target": bind.destination, "ReadOnly": bind.read_only}


def limits(cpu: float, memory: int) -> dict[str, Any]:
    """Cores and bytes as the engine counts them; memory has no swap on top. 0 sets no limit."""
    found: dict[str, Any] = {}
    if cpu:
        found["NanoCpus"] = round(cpu * 1_000_000_000)
    if memory:
        found["Memory"] = found["MemorySwap"] = memory
    return found


def host_config(container: EngineContainer) -> dict[str, Any]:
    """Where the container runs and what it may use. Its seccomp profile is the engine's default."""
    sandbox = f"container:{sandbox_name(container.sandbox)}"
    host: dict[str, Any] = {
        "NetworkMode": sandbox,
        "IpcMode": sandbox,
        "PidsLimit": container.pids,
        "LogConfig": LOGS,
        "RestartPolicy": {"Name": "no"},
        "Mounts": [_mount(bind) for bind in container.binds],
        **limits(container.cpu, container.memory),
    }
    if container.privileged:
        # Where the engine has a user namespace for all, it refuses to be privileged in that.
        host |= {"Privileged": True, "UsernsMode": "host"}
    else:
        host |= {
            "CapDrop": ["ALL"],
            "CapAdd": list(CAPABILITIES),
            "SecurityOpt": ["no-new-privileges:true"],
            "MaskedPaths": list(MASKED_PATHS),
            "ReadonlyPaths": list(READONLY_PATHS),
        }
    if container.cpuset:
        host["CpusetCpus"] = ",".join(map(str, container.cpuset))
    if container.disk:
        host["StorageOpt"] = {"size": f"{container.disk}G"}
    if container.runtime:
        host["Runtime"] = container.runtime
    return host


def container_body(container: EngineContainer, *, podman: bool = False) -> dict[str, Any]:
    """What the engine's create call is sent.

    Docker gives a container that joins another's network that one's hostname, and refuses a second; Podman does not.
    """
    body: dict[str, Any] = {
        "Image": container.image,
        "Env": [f"{key}={value}" for key, value in container.environment.items()],
        "Labels": labels(container),
        "Tty": container.tty,
        "OpenStdin": container.interactive,
        "StdinOnce": False,  # who attaches may leave and come back
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host_config(container),
    }
    if podman and container.hostname:
        body["Hostname"] = container.hostname
    if container.command:
        body["Cmd"] = list(container.command)
    if container.entrypoint is not None:
        body["Entrypoint"] = list(container.entrypoint) or [""]  # [""] clears the image's
    if container.workdir:
        body["WorkingDir"] = container.workdir
    return body
