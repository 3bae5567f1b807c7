"""What the control plane tells of the things it keeps: read models, one per noun of the API. Times are UTC, naive."""

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from higgins.model.container import ContainerSpec, RestartPolicy, Status, TaskState

Addresses = dict[str, list[dict[str, Any]]]


class Container(Struct, kw_only=True):
    """A container: a plain one (``role`` plain, ``workload`` its own uuid) or a capsule's member (main or init).

    ``status_detail`` counts from ``since``, where it tells how long ago something was.
    """

    uuid: str
    workload: str
    role: str
    name: str
    project_id: str
    user_id: str
    host: str | None
    spec: ContainerSpec
    status: Status
    status_reason: str | None = None
    status_detail: str | None = None
    since: datetime | None = None
    task_state: TaskState | None = None
    addresses: Addresses = field(default_factory=dict)
    started_at: datetime | None = None
    created_at: datetime
    updated_at: datetime | None = None


class Capsule(Struct, kw_only=True):
    """Several containers in one sandbox. ``cpu`` in cores, ``memory`` in MiB: what its members need together."""

    uuid: str
    name: str
    project_id: str
    user_id: str
    host: str | None
    status: Status
    status_reason: str | None = None
    cpu: float
    memory: int
    labels: dict[str, str]
    annotations: dict[str, str]
    restart_policy: RestartPolicy
    addresses: Addresses = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    init_containers: list[Container] = field(default_factory=list)
    created_at: datetime
    updated_at: datetime | None = None


class HostInfo(Struct, frozen=True, kw_only=True):
    """What a host says of itself when it joins and whenever that changes. ``runtimes`` are runtime classes.

    ``cores`` are the numbers of the cores that containers may have to themselves, by NUMA node; all other containers
    keep to ``shared_cores`` then. ``version`` is the agent's. Other hosts' tunnels reach it at ``tunnel_address``.
    ``connector`` is what Cinder has to know to attach a volume to the host; empty where none can be.
    """

    architecture: str = ""
    os_type: str = "linux"
    os: str = ""
    kernel_version: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ()
    disk_quota: bool = False
    engine: str = ""
    engine_version: str = ""
    cpu_pinning: bool = False
    cores: tuple[tuple[int, ...], ...] = ()
    shared_cores: tuple[int, ...] = ()
    version: str = ""
    tunnel_address: str = ""
    connector: dict[str, Any] = field(default_factory=dict)


class Host(Struct, kw_only=True):
    """A host and what is claimed on it. ``memory`` in MiB, ``disk`` in GiB, ``cpus`` in cores.

    ``cores`` of its ``cpus`` are given away whole, of which ``cores_used`` are.
    """

    id: int
    uuid: str
    name: str
    zone: str
    info: HostInfo
    cpus: float
    cpu_used: float
    memory: int
    memory_used: int
    disk: int
    disk_used: int
    containers: int
    cores: int = 0
    cores_used: int = 0
    disabled: bool
    disabled_reason: str | None
    draining: bool = False
    forced_down: bool
    up: bool
    report_count: int
    seen_at: datetime
    created_at: datetime
    updated_at: datetime | None = None


class Action(Struct, kw_only=True):
    """Something that was asked of a container. ``result`` is Success or Error once it is over."""

    action: str
    container_uuid: str
    request_id: str
    project_id: str
    user_id: str
    start_time: datetime
    finish_time: datetime | None = None
    result: str | None = None
    message: str | None = None


class Registry(Struct, kw_only=True):
    """A registry and who to be there; the password is never told, only whether there is one."""

    uuid: str
    name: str | None
    project_id: str
    user_id: str
    domain: str
    username: str | None
    has_password: bool
    created_at: datetime
    updated_at: datetime | None = None


class Image(Struct, kw_only=True):
    """An image that an administrator had pulled to a host."""

    uuid: str
    image_id: str | None
    repo: str
    tag: str
    size: str | None
    project_id: str
    host: str
    created_at: datetime
    updated_at: datetime | None = None


class Volume(Struct, kw_only=True):
    """A volume that a project keeps; ``size`` in GiB."""

    uuid: str
    name: str | None
    project_id: str
    size: int
    created_at: datetime


class NetworkInfo(Struct, kw_only=True):
    """A network of a project and its subnet."""

    uuid: str
    name: str
    project_id: str
    user_id: str
    cidr: str
    is_default: bool


class SecurityGroupRule(Struct, frozen=True, kw_only=True):
    """Traffic that a security group lets in, under Neutron's names; what is None does not matter.

    Of ICMP ``port_range_min`` is the type and ``port_range_max`` the code. ``remote_group_id`` stands for whoever is in
    that group.
    """

    id: str
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None


class SecurityGroup(Struct, kw_only=True):
    """A security group of a project, with all that it lets in."""

    uuid: str
    name: str
    project_id: str
    rules: tuple[SecurityGroupRule, ...]
    created_at: datetime
    updated_at: datetime | None = None


class ChangeEvent(Struct, kw_only=True):
    """A container changed its status. ``id`` grows."""

    id: int
    project_id: str
    container_uuid: str
    name: str
    status: str
    status_reason: str | None
    at: datetime
