"""What a container is: what its owner asked for, and the words for the states it goes through.

The words are those of the Zun v1 API (container ``status`` and ``task_state``), so that every client knows them.
"""

from enum import StrEnum

from msgspec import Struct, field

from higgins.model.images import FoundImage


class Status(StrEnum):
    """What the container is seen to be."""

    CREATING = "Creating"
    CREATED = "Created"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    RESTARTING = "Restarting"
    REBUILDING = "Rebuilding"
    DELETING = "Deleting"
    DELETED = "Deleted"
    DEAD = "Dead"
    ERROR = "Error"
    UNKNOWN = "Unknown"


class TaskState(StrEnum):
    """What is being done to it right now."""

    IMAGE_PULLING = "image_pulling"
    CREATING = "container_creating"
    STARTING = "container_starting"
    DELETING = "container_deleting"
    STOPPING = "container_stopping"
    REBOOTING = "container_rebooting"
    PAUSING = "container_pausing"
    UNPAUSING = "container_unpausing"
    KILLING = "container_killing"
    REBUILDING = "container_rebuilding"
    NETWORK_ATTACHING = "network_attaching"
    NETWORK_DETACHING = "network_detaching"
    GROUP_ADDING = "sg_adding"
    GROUP_REMOVING = "sg_removing"


class Goal(StrEnum):
    """What a container should be, as its owner last said. Its host works towards it until it is so."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


class RestartPolicy(Struct, frozen=True):
    """When a container that ended is started again. ``maximum_retry_count`` 0 means without limit."""

    name: str = "no"  # no | always | on-failure | unless-stopped
    maximum_retry_count: int = 0


class Healthcheck(Struct, frozen=True):
    """A command run inside the container; times in seconds. Unhealthy after ``retries`` failures in a row."""

    test: str
    interval: float = 30
    timeout: float = 30
    retries: int = 3


class Mount(Struct, frozen=True):
    """A volume (or a file's content, ``type`` bind) seen at ``destination``.

    ``volume`` is the uuid of the volume once the control plane has resolved or made it; ``size`` is in GiB.
    """

    destination: str
    type: str = "volume"
    source: str | None = None
    size: int | None = None
    volume: str | None = None
    read_only: bool = False


class ContainerSpec(Struct, frozen=True, kw_only=True):
    """All that the owner asked for. ``cpu`` in cores, ``memory`` in MiB, ``disk`` in GiB (0: the engine's default)."""

    image: str
    image_driver: str = "docker"
    found: FoundImage | None = None  # of the driver glance: what the image was when it was asked for
    image_pull_policy: str = "ifnotpresent"  # always | ifnotpresent | never
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    workdir: str | None = None
    hostname: str | None = None
    interactive: bool = False
    tty: bool = False
    privileged: bool = False
    runtime: str | None = None
    cpu: float = 1.0
    cpu_policy: str = "shared"
    memory: int = 512
    disk: int = 0
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    auto_heal: bool = False
    healthcheck: Healthcheck | None = None
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    mounts: tuple[Mount, ...] = ()
    security_groups: tuple[str, ...] = ()
    registry_id: str | None = None
    hints: dict[str, str] = field(default_factory=dict)
    requested_host: str | None = None
    availability_zone: str | None = None


#: Security groups that a container may be in.
MOST_GROUPS = 64

#: Statuses from which the owner may ask for an action; any other status answers 409 (Zun's table, with delete
#: allowed always: an owner can get rid of a container in any state).
ALLOWED: dict[str, frozenset[Status]] = {
    "start": frozenset({Status.CREATED, Status.STOPPED, Status.ERROR}),
    # A container that fails again and again is between two starts when its owner stops it, or reads why.
    "stop": frozenset({Status.RUNNING, Status.RESTARTING}),
    "reboot": frozenset({Status.CREATED, Status.RUNNING, Status.STOPPED, Status.ERROR}),
    "rebuild": frozenset({Status.CREATED, Status.RUNNING, Status.STOPPED, Status.ERROR}),
    "pause": frozenset({Status.RUNNING}),
    "unpause": frozenset({Status.PAUSED}),
    "kill": frozenset({Status.RUNNING}),
    "execute": frozenset({Status.RUNNING}),
    "execute_resize": frozenset({Status.RUNNING}),
    "attach": frozenset({Status.RUNNING}),
    "resize": frozenset({Status.RUNNING}),
    "top": frozenset({Status.RUNNING}),
    "stats": frozenset({Status.RUNNING}),
    "update": frozenset({Status.CREATED, Status.RUNNING, Status.STOPPED, Status.PAUSED}),
    "resize_container": frozenset({Status.CREATED, Status.RUNNING, Status.STOPPED, Status.PAUSED}),
    "get_archive": frozenset({Status.CREATED, Status.PAUSED, Status.RUNNING, Status.STOPPED}),
    "put_archive": frozenset({Status.CREATED, Status.PAUSED, Status.RUNNING, Status.STOPPED}),
    "logs": frozenset(
        {
            Status.CREATED,
            Status.ERROR,
            Status.PAUSED,
            Status.RUNNING,
            Status.RESTARTING,
            Status.STOPPED,
            Status.UNKNOWN,
            Status.DEAD,
        }
    ),
    "commit": frozenset({Status.RUNNING, Status.STOPPED, Status.PAUSED}),
    "network_attach": frozenset({Status.CREATED, Status.RUNNING, Status.STOPPED, Status.PAUSED}),
    "network_detach": frozenset({Status.CREATED, Status.RUNNING, Status.STOPPED, Status.PAUSED}),
    "add_security_group": frozenset({Status.CREATED, Status.RUNNING, Status.STOPPED, Status.PAUSED}),
    "remove_security_group": frozenset({Status.CREATED, Status.RUNNING, Status.STOPPED, Status.PAUSED}),
    # An owner who runs `delete` without --stop on a running container is told to stop it first, as in Zun.
    "delete": frozenset(set(Status) - {Status.RUNNING, Status.PAUSED, Status.RESTARTING}),
    "delete_stop": frozenset(Status),
    "delete_force": frozenset(Status),
}
