"""Every option, once: for the command line, for oslo.config files, and for the reference in the docs."""

from pathlib import Path

from oslo_config import cfg

from higgins import __version__
from higgins.control.settings import Settings

_SETTINGS = Settings()

COMMAND_LINE: list[cfg.Opt] = [
    cfg.StrOpt("data", default="/var/lib/higgins", help="Directory for the database, credentials, volumes and logs."),
    cfg.StrOpt("listen", default="127.0.0.1:9517", help="Address and port of the API; port 0 takes any free one."),
    cfg.StrOpt(
        "runtime",
        default="auto",
        choices=["auto", "cri", "docker", "podman"],
        help="The container engine. auto takes the first of these that answers and is set up for it.",
    ),
    cfg.StrOpt("docker-url", default="unix:///var/run/docker.sock", help="Where the Docker engine listens."),
    cfg.StrOpt("podman-url", default="unix:///run/podman/podman.sock", help="Where the service of Podman listens."),
    cfg.StrOpt("cri-endpoint", default="unix:///run/containerd/containerd.sock", help="Where containerd listens."),
    cfg.IntOpt("spare-sandboxes", default=2, min=0, max=100, help="Sandboxes made ahead, to start containers faster."),
]

#: Of the commands that serve the API.
CONTROL_PLANE: list[cfg.Opt] = [
    cfg.StrOpt("agent-listen", default="", help="Address and port for agents of other hosts; nothing if empty."),
]

#: Of ``higgins agent``.
AGENT: list[cfg.Opt] = [
    cfg.StrOpt("join", default="", help="The control plane to join, if this machine has not joined yet (https://…)."),
    cfg.StrOpt("token", default="", secret=True, help="The join token; - reads it from standard input."),
    cfg.StrOpt("stream-listen", default="0.0.0.0:9519", help="Address and port for the control plane's streams."),
    cfg.StrOpt(
        "stream-address",
        default="",
        help="How the control plane reaches stream-listen, if that is not the address this machine reaches it from.",
    ),
    cfg.StrOpt(
        "metrics-listen",
        default="",
        help="Address and port for Prometheus, such as 127.0.0.1:9520; nobody is asked who he is. None if empty.",
    ),
]

#: Of ``higgins host``.
HOST: list[cfg.Opt] = [
    cfg.IntOpt("ttl", default=3600, min=1, help="Seconds within which the join token must be used."),
    cfg.StrOpt("certificate", default="", help="File with the certificate of an authority of your own (PEM)."),
    cfg.StrOpt("key", default="", help="File with the key of that authority (PEM, not encrypted)."),
    cfg.BoolOpt("finish", default=False, help="End the change of the authority: the old one is trusted no more."),
    cfg.BoolOpt("force", default=False, help="End it though some hosts have no certificate of the new one yet."),
]

DEFAULT: list[cfg.Opt] = [
    cfg.StrOpt(
        "auth",
        default="http_basic",
        choices=["http_basic", "keystone"],
        help="Who callers are: a users file in data, or Keystone's tokens as [keystone_authtoken] says.",
    ),
    cfg.StrOpt("host", default="", help="The name of this host; the machine's own name if empty."),
    cfg.StrOpt("zone", default="nova", help="The availability zone of this host."),
    cfg.StrOpt(
        "volume",
        default="local",
        choices=["local", "cinder"],
        help="Where new volumes are: on the disk of their container's host, or in Cinder, whose volumes are then found "
        "by name and id as well. For hosts: whether Cinder's volumes can be attached to them.",
    ),
    cfg.StrOpt(
        "public_url",
        default="",
        help="The URL that clients reach the API by, such as https://cloud.example/container/v1; links and terminals "
        "are told with it. What a request came by if empty.",
    ),
    cfg.ListOpt("allowed_origins", default=[], help="Origins (host names) whose pages may open terminals."),
    cfg.BoolOpt(
        "open_metrics",
        default=False,
        help="Whether /metrics answers without credentials, which Prometheus cannot get from Keystone. It tells of all "
        "projects together, so the proxy should keep it from tenants.",
    ),
    cfg.StrOpt(
        "dedicated_cpus",
        default="",
        help="Cores of this host that containers may have to themselves: 2-7,10. Others keep to the rest.",
    ),
    cfg.IntOpt(
        "image_cache",
        default=10,
        min=0,
        help="GiB of images of Glance that are kept for another time: by the control plane, by each host, and by its "
        "engine.",
    ),
    cfg.IntOpt("reserved_memory", default=512, min=0, help="Memory in MiB that containers of this host never get."),
]

CINDER: list[cfg.Opt] = [
    cfg.StrOpt(
        "volume_type", default="", help="The type of volumes that are made for containers; Cinder's own default."
    ),
    cfg.StrOpt("my_ip", default="127.0.0.1", help="The address of this host that storage is to let in."),
    cfg.BoolOpt("multipath", default=False, help="Whether this host reaches volumes by several ways at once."),
    cfg.StrOpt(
        "lock_path",
        default="",
        help="Directory of os-brick's locks, to be shared with Nova on the same host; one in data if empty.",
    ),
]

PLACEMENT: list[cfg.Opt] = [
    cfg.BoolOpt(
        "enabled", default=False, help="Whether hosts are shared with Nova: what is held of them is told to Placement."
    ),
    cfg.IntOpt("step_cpu", default=4, min=1, help="Cores by which what is held of a host grows and shrinks."),
    cfg.IntOpt("step_memory", default=4096, min=1, help="MiB by which it does."),
    cfg.IntOpt("step_disk", default=40, min=1, help="GiB by which it does."),
]

DATABASE: list[cfg.Opt] = [
    cfg.StrOpt("connection", default="", secret=True, help="SQLAlchemy URL; a SQLite file in data if empty."),
]

POLICY: list[cfg.Opt] = [
    cfg.StrOpt("file", default="", help="A policy file (YAML) with rules that differ from the defaults."),
]

QUOTA_DRIVER: list[cfg.Opt] = [
    cfg.StrOpt(
        "driver",
        default="database",
        choices=["database", "unified"],
        help="Who keeps the limits of projects: Higgins' database, or Keystone (unified limits, [oslo_limit]).",
    ),
]

_UNITS = {
    "containers": "How many containers",
    "cpu": "How many cores",
    "memory": "MiB of memory",
    "disk": "GiB of disk",
}

QUOTA: list[cfg.Opt] = [
    cfg.IntOpt(name, default=limit, min=-1, help=f"{_UNITS[name]} a project may use; -1 is no limit.")
    for name, limit in _SETTINGS.quota.items()
]

CONTAINERS: list[cfg.Opt] = [
    cfg.FloatOpt("default_cpu", default=_SETTINGS.default_cpu, help="Cores of a container that asks for none."),
    cfg.IntOpt("default_memory", default=_SETTINGS.default_memory, help="MiB of a container that asks for none."),
    cfg.FloatOpt("maximum_cpu", default=_SETTINGS.maximum_cpu, help="The most cores one container may ask for."),
    cfg.IntOpt("maximum_memory", default=_SETTINGS.maximum_memory, help="The most MiB one container may ask for."),
    cfg.IntOpt("maximum_disk", default=_SETTINGS.maximum_disk, help="The most GiB one container or volume may have."),
    cfg.FloatOpt(
        "cpu_allocation_ratio",
        default=_SETTINGS.cpu_allocation_ratio,
        help="Cores that may be claimed for each core of a host.",
    ),
    cfg.FloatOpt(
        "memory_allocation_ratio",
        default=_SETTINGS.memory_allocation_ratio,
        help="MiB that may be claimed for each MiB of a host.",
    ),
    cfg.StrOpt(
        "unique_names",
        default="",
        choices=["", "project", "global"],
        help="Where names of containers must differ; nowhere if empty.",
    ),
    cfg.StrOpt(
        "image_driver",
        default=_SETTINGS.image_driver,
        choices=["docker", "glance"],
        help="Where the image of a container comes from that does not say so: a registry, or Glance.",
    ),
    cfg.FloatOpt(
        "disk_allocation_ratio", default=_SETTINGS.disk_allocation_ratio, help="GiB that may be claimed for each GiB."
    ),
    cfg.BoolOpt("spread", default=True, help="Fill the emptiest host first; otherwise the fullest."),
    cfg.BoolOpt("spread_zones", default=False, help="Fill the emptiest availability zone first."),
    cfg.ListOpt(
        "tenant_isolation",
        default=[],
        help="Projects whose containers share a host with those of no other project: their ids, or all, or none.",
    ),
    cfg.FloatOpt(
        "placement_age",
        default=_SETTINGS.placement_age,
        min=0,
        help="Seconds for which a process may go by what it knows of hosts already. Claims hold whatever it knows; 1 "
        "is good for thousands of hosts.",
    ),
    cfg.StrOpt(
        "evacuate",
        default=_SETTINGS.evacuate,
        choices=["auto_heal", "restart_policy", "never"],
        help="What is placed elsewhere once its host is lost: containers with auto_heal, those with a restart policy "
        "too, or nothing.",
    ),
    cfg.FloatOpt(
        "fence_time",
        default=_SETTINGS.fence_time,
        min=0,
        help="Seconds that a host which nobody hears gets to end what is then placed elsewhere.",
    ),
    cfg.FloatOpt(
        "stuck_after",
        default=_SETTINGS.stuck_after,
        help="Seconds after which higgins status tells of what has not come to rest.",
    ),
    cfg.FloatOpt("execute_timeout", default=_SETTINGS.execute_timeout, help="Seconds an exec may take."),
    cfg.FloatOpt("console_ttl", default=_SETTINGS.console_ttl, help="Seconds within which a terminal's URL is used."),
    cfg.FloatOpt("host_lease", default=_SETTINGS.host_lease, help="Seconds of silence after which a host is down."),
]

GLANCE: list[cfg.Opt] = [
    cfg.BoolOpt("enabled", default=False, help="Whether containers may have images of Glance; needs auth = keystone."),
    cfg.StrOpt("endpoint", default="", help="The URL of Glance, if not the one of Keystone's catalogue."),
    cfg.IntOpt(
        "maximum_size", default=20, min=1, help="The most GiB that one image may have, and its layers unpack to."
    ),
]

NETWORK: list[cfg.Opt] = [
    cfg.StrOpt(
        "driver",
        default="local",
        choices=["local", "neutron"],
        help="Whose networks are: Higgins' own (local), or Neutron's. The same on the control plane and on all hosts.",
    ),
    cfg.StrOpt("pool", default=_SETTINGS.network_pool, help="Addresses that networks of projects are cut from."),
    cfg.IntOpt("prefix", default=_SETTINGS.network_prefix, min=8, max=29, help="Prefix length of each of them."),
    cfg.IntOpt("mtu", default=_SETTINGS.network_mtu, min=576, help="MTU of containers' interfaces."),
    cfg.BoolOpt(
        "overlay", default=False, help="Whether a project's network spans hosts, by VXLAN tunnels between them."
    ),
    cfg.StrOpt(
        "tunnel_address",
        default="",
        help="IPv4 address of this host that tunnels of other hosts come to; if nothing is said, the one that the "
        "control plane sees.",
    ),
    cfg.PortOpt("tunnel_port", default=4789, help="UDP port of the tunnels, the same on all hosts."),
    cfg.IntOpt(
        "security_groups",
        default=_SETTINGS.security_groups,
        min=-1,
        help="How many security groups a project may have beside default; -1 is no limit.",
    ),
    cfg.IntOpt(
        "security_group_rules",
        default=_SETTINGS.security_group_rules,
        min=-1,
        help="How many rules the security groups of a project may have together; -1 is no limit.",
    ),
    cfg.StrOpt("table", default="higgins", help="The name of the nftables tables that are Higgins' own."),
]

RUNTIMES: list[cfg.Opt] = [
    cfg.DictOpt(
        "classes",
        default={},
        help="Runtime classes of this host, each with what the engine calls it: gvisor:runsc,kata:kata-qemu. "
        "Each is tried once at the start, and those that work are offered.",
    ),
    cfg.StrOpt(
        "user_ids",
        default="",
        help="User ids of this host for containers on containerd, first:count (1000000:65536000): every sandbox has a "
        "user namespace with 65536 of them. None if empty.",
    ),
    cfg.ListOpt("hypervisor", default=[], help="Those of the classes that keep containers apart by a hypervisor."),
    cfg.BoolOpt("hypervisor_only", default=False, help="Whether all containers must run in one of these."),
    cfg.ListOpt("hypervisor_only_projects", default=[], help="Projects whose containers must run in one of these."),
]

NEUTRON: list[cfg.Opt] = [
    cfg.StrOpt("device_owner", default="compute:higgins", help="What ports that Higgins makes are marked with."),
    cfg.FloatOpt(
        "check_every",
        default=60.0,
        min=1,
        help="Seconds between two looks whether a container's port is still there and what it was.",
    ),
    cfg.IntOpt(
        "port_pool",
        default=_SETTINGS.port_pool,
        min=0,
        max=32,
        help="Ports that are made ahead for each project, network, security groups and host of which a container was "
        "lately. They count to the project's quota of ports. None if 0.",
    ),
    cfg.FloatOpt(
        "port_pool_time",
        default=_SETTINGS.port_pool_time,
        min=1,
        help="Seconds after the last such container when ports that were made ahead are removed.",
    ),
    cfg.StrOpt("integration_bridge", default="br-int", help="The bridge of this host that ports are plugged into."),
    cfg.StrOpt("ovsdb", default="", help="Where this host's Open vSwitch database listens, if not at its usual place."),
    cfg.FloatOpt("ready_timeout", default=20.0, min=1, help="Seconds that the switch may take to wire a port."),
]

GROUPS: dict[str, list[cfg.Opt]] = {
    "DEFAULT": DEFAULT,
    "cinder": CINDER,
    "database": DATABASE,
    "placement": PLACEMENT,
    "policy": POLICY,
    "quota": QUOTA_DRIVER + QUOTA,
    "containers": CONTAINERS,
    "glance": GLANCE,
    "network": NETWORK,
    "neutron": NEUTRON,
    "runtimes": RUNTIMES,
}


def read(arguments: list[str], more: list[cfg.Opt] | None = None, command: str = "") -> cfg.ConfigOpts:
    """The configuration of a process, from its command line and the files that it names (``--config-file``).

    ``more`` are the options that only this ``command`` has, which is the word that ``--help`` calls it by.
    """
    conf = cfg.ConfigOpts()
    conf.register_cli_opts([*COMMAND_LINE, *(more or [])])
    for group, options in GROUPS.items():
        conf.register_opts(options, group=None if group == "DEFAULT" else group)
    conf(arguments, project="higgins", prog=f"higgins {command}".rstrip(), version=__version__, default_config_files=[])
    return conf


def settings_of(conf: cfg.ConfigOpts) -> Settings:
    """What of the configuration the control plane goes by."""
    return Settings(
        quota={option.name: conf.quota[option.name] for option in QUOTA},
        network_pool=conf.network.pool,
        network_prefix=conf.network.prefix,
        network_mtu=conf.network.mtu,
        overlay=conf.network.overlay,
        security_groups=conf.network.security_groups,
        security_group_rules=conf.network.security_group_rules,
        hypervisor_classes=tuple(conf.runtimes.hypervisor),
        hypervisor_only=conf.runtimes.hypervisor_only,
        hypervisor_only_projects=tuple(conf.runtimes.hypervisor_only_projects),
        tenant_isolation=tuple(conf.containers.tenant_isolation),
        placement_steps=_steps(conf),
        port_pool=conf.neutron.port_pool,
        port_pool_time=conf.neutron.port_pool_time,
        **{one.name: conf.containers[one.name] for one in CONTAINERS if one.name != "tenant_isolation"},
    )


def _steps(conf: cfg.ConfigOpts) -> tuple[int, int, int] | None:
    steps = conf.placement
    return (steps.step_cpu, steps.step_memory, steps.step_disk) if steps.enabled else None


def database_url(conf: cfg.ConfigOpts) -> str:
    return str(conf.database.connection or f"sqlite:///{Path(conf.data).resolve() / 'higgins.db'}")
