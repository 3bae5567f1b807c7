"""What an operator may set about the control plane. By itself, so that the options load without what they are for."""

from msgspec import Struct, field


class Settings(Struct, frozen=True, kw_only=True):
    """What an operator may set about containers. Memory in MiB, disk in GiB, times in seconds."""

    default_cpu: float = 1.0
    default_memory: int = 512
    minimum_cpu: float = 0.1
    maximum_cpu: float = 16.0
    minimum_memory: int = 4
    maximum_memory: int = 8192
    minimum_disk: int = 1
    maximum_disk: int = 160
    quota: dict[str, int] = field(default_factory=lambda: {"containers": 40, "memory": 51200, "cpu": 20, "disk": 100})
    cpu_allocation_ratio: float = 16.0
    memory_allocation_ratio: float = 1.5
    disk_allocation_ratio: float = 1.0
    network_pool: str = "10.192.0.0/10"
    network_prefix: int = 20
    network_mtu: int = 1500
    overlay: bool = False  # networks span hosts
    security_groups: int = 50  # of a project, and the rules of all of them together; -1 is no limit
    security_group_rules: int = 100
    unique_names: str = ""  # "" | project | global
    host_lease: float = 60
    console_ttl: float = 60
    execute_timeout: float = 300
    spread: bool = True
    spread_zones: bool = False
    tenant_isolation: tuple[str, ...] = ()  # projects that share their hosts with no other; ("all",) all of them
    placement_age: float = 0.0
    evacuate: str = "auto_heal"  # never | auto_heal | restart_policy
    fence_time: float = 20
    stuck_after: float = 300
    hypervisor_classes: tuple[str, ...] = ()
    hypervisor_only: bool = False
    hypervisor_only_projects: tuple[str, ...] = ()
    port_pool: int = 0  # ports of the cloud's network service made ahead; see ``port_pools``
    port_pool_time: float = 600
    placement_steps: tuple[int, int, int] | None = None  # cores, MiB, GiB; None: hosts are Higgins' own
    image_driver: str = "docker"  # of containers that name none
