"""From our specifications to CRI's messages. Pure.

Labels say what a thing is, and are all ours: a tenant's labels stay out of the engine's, so that none can make a
container pass for another's, and because containerd takes no label longer than 4096 bytes. The whole specification,
those labels included, travels in an annotation: it is what a stopped container is made again from.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import EngineError
from higgins.runtimes.base import EngineContainer, SandboxSpec
from higgins.runtimes.confinement import MASKED_PATHS, READONLY_PATHS
from higgins.runtimes.cri import users

PREFIX = "org.higgins."
OURS = PREFIX + "managed"
SPEC = PREFIX + "spec"
#: Docker's period; a quota is so many of these microseconds.
CPU_PERIOD = 100_000
#: Bits of CRI's attempt number that count starts; those above hold the incarnation.
_START_BITS = 20

#: What the engine's default set has too much: raw sockets forge packets, device nodes reach devices.
DROPPED_CAPABILITIES = ("MKNOD", "NET_RAW")


def sandbox_config(
    spec: SandboxSpec, *, attempt: int, logs: Path, cgroup_parent: str, first_id: int | None = None
) -> cri.PodSandboxConfig:
    """The sandbox as CRI takes it; the same again for each container that joins it. ``first_id``: see ``users``.

    Its own program waits and runs nothing of a tenant's, so it has no seccomp profile: to make a filter of one is a
    third of what runc takes to make a container.
    """
    security = cri.LinuxSandboxSecurityContext(
        namespace_options=_namespaces(first_id),
        privileged=spec.privileged,
        seccomp=_seccomp(confined=False),
    )
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=spec.uuid, uid=spec.uuid, namespace="higgins", attempt=attempt),
        hostname=spec.hostname,
        log_directory=str(logs / plain(spec.uuid)),
        dns_config=cri.DNSConfig(servers=spec.dns) if spec.dns else None,
        labels={
            OURS: "1",
            PREFIX + "kind": "sandbox",
            PREFIX + "sandbox": spec.uuid,
            PREFIX + "project": spec.project_id,
        },
        annotations={SPEC: msgspec.json.encode(spec).decode()} | users.annotation(first_id),
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent, security_context=security, sysctls=_sysctls(first_id)
        ),
    )


def container_config(spec: EngineContainer, *, attempt: int, first_id: int | None = None) -> cri.ContainerConfig:
    """The container as CRI takes it. ``attempt`` makes CRI's name for it unique: see ``attempt_number``.

    ``first_id`` is its sandbox's. Volumes and files that are bound in belong to the same users inside as outside.
    """
    mapped = [] if first_id is None else users.mapping(first_id)
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=spec.uuid, attempt=attempt),
        image=cri.ImageSpec(image=spec.image),
        command=_command(spec),
        args=spec.command if spec.entrypoint != () else (),
        working_dir=spec.workdir or "",
        envs=[cri.KeyValue(key=key, value=value) for key, value in spec.environment.items()],
        mounts=[
            cri.Mount(
                container_path=bind.destination,
                host_path=bind.source,
                readonly=bind.read_only,
                uidMappings=mapped,
                gidMappings=mapped,
            )
            for bind in spec.binds
        ],
        labels=labels(spec),
        annotations={SPEC: msgspec.json.encode(spec).decode()} | users.annotation(first_id),
        log_path=log_name(spec.uuid, spec.incarnation),
        stdin=spec.interactive,
        tty=spec.tty,
        linux=cri.LinuxContainerConfig(
            resources=resources(spec.cpu, spec.memory, spec.cpuset),
            security_context=_container_security(spec, first_id),
        ),
    )


def labels(spec: EngineContainer) -> dict[str, str]:
    """What a restarted agent finds the container by."""
    return {
        OURS: "1",
        PREFIX + "kind": "container",
        PREFIX + "uuid": spec.uuid,
        PREFIX + "sandbox": spec.sandbox,
        PREFIX + "project": spec.project_id,
        PREFIX + "incarnation": str(spec.incarnation),
    }


def plain(uuid: str) -> str:
    """A uuid that is good for a file's name. Raises ``EngineError``: whatever else is asked for is not one of ours."""
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_-]*", uuid):
        raise EngineError(f"{uuid!r} is no name of a container or sandbox.")
    return uuid


def attempt_number(incarnation: int, starts: int) -> int:
    """CRI's attempt: orders the engine's containers of one uuid, rebuilds before starts. 32 bits."""
    return (incarnation << _START_BITS) % (1 << 32) | starts % (1 << _START_BITS)


def log_name(uuid: str, incarnation: int) -> str:
    """One log for all starts of an incarnation, as a container's output is one stream to its owner."""
    return f"{plain(uuid)}_{incarnation}.log"


def resources(cpu: float, memory: int, cpuset: tuple[int, ...] = ()) -> cri.LinuxContainerResources:
    """Limits for a new container; 0 is none. ``cpu`` in cores, ``memory`` in bytes."""
    return cri.LinuxContainerResources(
        cpu_period=CPU_PERIOD if cpu else 0,
        cpu_quota=_quota(cpu) if cpu else 0,
        cpu_shares=max(2, int(cpu * 1024)) if cpu else 0,
        memory_limit_in_bytes=memory,
        cpuset_cpus=",".join(map(str, cpuset)),
    )


def changed_resources(cpu: float, memory: int) -> cri.LinuxContainerResources:
    """Limits for a running container. CRI reads 0 as "as it was", so that -1 says "none"."""
    return cri.LinuxContainerResources(
        cpu_period=CPU_PERIOD,
        cpu_quota=_quota(cpu) if cpu else -1,
        cpu_shares=max(2, int(cpu * 1024)) if cpu else 1024,
        memory_limit_in_bytes=memory or -1,
    )


def container_spec(annotations: Mapping[str, str]) -> EngineContainer:
    """The specification that a container was made from."""
    return msgspec.json.decode(annotations[SPEC], type=EngineContainer)


def sandbox_spec(annotations: Mapping[str, str]) -> SandboxSpec:
    """The specification that a sandbox was made from."""
    return msgspec.json.decode(annotations[SPEC], type=SandboxSpec)


def _quota(cpu: float) -> int:
    # The kernel takes no quota below a millisecond.
    return max(1000, int(cpu * CPU_PERIOD))


def _command(spec: EngineContainer) -> tuple[str, ...]:
    # An empty entrypoint takes the image's away, which CRI can only say by putting the command in its place.
    return spec.command if spec.entrypoint == () else spec.entrypoint or ()


def _namespaces(first_id: int | None) -> cri.NamespaceOption:
    # A container sees processes of its own only, as in Docker; what a sandbox shares is network, IPC and host name.
    return cri.NamespaceOption(
        network=cri.POD, pid=cri.CONTAINER, ipc=cri.POD, userns_options=users.namespace(first_id)
    )


def _sysctls(first_id: int | None) -> dict[str, str]:
    """As Docker sets them in a namespace of its own: ping and low ports without privileges."""
    return {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": users.ping_group_range(first_id),
    }


def _container_security(spec: EngineContainer, first_id: int | None) -> cri.LinuxContainerSecurityContext:
    namespaces = _namespaces(first_id)
    if spec.privileged:
        return cri.LinuxContainerSecurityContext(
            privileged=True, namespace_options=namespaces, seccomp=_seccomp(confined=False)
        )
    return cri.LinuxContainerSecurityContext(
        namespace_options=namespaces,
        capabilities=cri.Capability(drop_capabilities=DROPPED_CAPABILITIES),
        no_new_privs=True,
        seccomp=_seccomp(confined=True),
        masked_paths=MASKED_PATHS,
        readonly_paths=READONLY_PATHS,
    )


def _seccomp(*, confined: bool) -> cri.SecurityProfile:
    kind = cri.SecurityProfile.RuntimeDefault if confined else cri.SecurityProfile.Unconfined
    return cri.SecurityProfile(profile_type=kind)
