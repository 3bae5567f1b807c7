"""What Higgins asks of a container engine: one interface, one contract suite, every engine for real.

The unit is CRI's: a *sandbox* holds the network namespace, *containers* join it. Everything is named and labelled by
uuid, so that a step done twice finds the first one's work and a restarted agent finds everything again by ``list``.

A worked example, with ``runtime`` open::

    await runtime.pull("busybox", policy="ifnotpresent")
    sandbox = await runtime.create_sandbox(SandboxSpec(uuid=w, project_id="demo"))
    # … the network driver wires sandbox.netns …
    await runtime.create(EngineContainer(uuid=c, incarnation=1, sandbox=w, image="busybox", command=("sleep", "9")))
    await runtime.start(c)
    ...
    await runtime.remove(c)
    await runtime.remove_sandbox(w)

Restart policies, health checks and healing are the agent's: no engine is asked for them, so that they are the same on
all. Every verb raises ``EngineUnavailable`` where the engine does not answer, ``ContainerGone`` where it does not know
the container, ``EngineError`` with a tenant's sentence for everything else.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from msgspec import Struct, field

from higgins.images.base import ImageFiles


class RegistryAuth(Struct, frozen=True):
    """Who to be at a registry. Never logged."""

    username: str
    password: str
    domain: str

    def __repr__(self) -> str:
        return f"RegistryAuth({self.domain!r})"


class EngineInfo(Struct, frozen=True):
    """What the engine says of itself. ``classes`` are the OCI runtimes it can start containers with."""

    engine: str
    version: str
    classes: tuple[str, ...]
    disk_quota: bool = False


class Image(Struct, frozen=True):
    """An image on the host. ``size`` in bytes; ``names`` as repository:tag."""

    id: str
    names: tuple[str, ...]
    size: int = 0


class SandboxSpec(Struct, frozen=True, kw_only=True):
    """A network namespace held by a pause process. ``runtime`` is the engine's own name of its members' runtime.

    A driver may hold the namespace by another runtime, where that one's kernel has to come after the wires.
    """

    uuid: str
    project_id: str
    hostname: str = ""
    runtime: str | None = None
    dns: tuple[str, ...] = ()
    privileged: bool = False


class Sandbox(Struct, frozen=True):
    """A sandbox that is there. ``netns`` is a path another process can open; empty while it is not ready."""

    uuid: str
    netns: str
    ready: bool
    project_id: str = ""
    hostname: str = ""


class Bind(Struct, frozen=True):
    """A host path seen inside the container. The source exists already."""

    source: str
    destination: str
    read_only: bool = False


class EngineContainer(Struct, frozen=True, kw_only=True):
    """A container as the engine shall make it. ``memory`` in bytes, ``disk`` in GiB, 0 meaning no limit.

    ``incarnation`` counts rebuilds: the engine may hold an older incarnation of the same uuid beside this one only
    while a rebuild goes on. ``pids`` bounds processes. ``cpuset`` are the cores that it may run on, empty meaning all.
    """

    uuid: str
    incarnation: int
    sandbox: str
    project_id: str = ""
    image: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    workdir: str | None = None
    hostname: str = ""
    interactive: bool = False
    tty: bool = False
    privileged: bool = False
    runtime: str | None = None
    cpu: float = 0.0
    memory: int = 0
    disk: int = 0
    pids: int = 4096
    cpuset: tuple[int, ...] = ()
    binds: tuple[Bind, ...] = ()


class Observed(Struct, frozen=True, kw_only=True):
    """A container as the engine holds it. ``state`` is created | running | paused | exited | dead.

    ``memory`` (bytes) and ``cpu`` (cores) are the limits in force where the engine tells them in a list, else None.
    """

    uuid: str
    incarnation: int
    sandbox: str
    state: str
    project_id: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    reason: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    image: str = ""


class Holdings(Struct, frozen=True):
    """Everything of ours on the engine, by label."""

    sandboxes: tuple[Sandbox, ...]
    containers: tuple[Observed, ...]


class Event(Struct, frozen=True):
    """Something happened to a workload; which thing is found out by looking. ``sandbox`` is its uuid."""

    sandbox: str


class LogOptions(Struct, frozen=True, kw_only=True):
    """``tail`` None means all lines; ``since`` is a moment in time (UTC)."""

    stdout: bool = True
    stderr: bool = True
    timestamps: bool = False
    tail: int | None = None
    since: datetime | None = None
    follow: bool = False


class LogChunk(Struct, frozen=True):
    """A piece of output; ``stream`` is 1 (stdout) or 2 (stderr)."""

    stream: int
    data: bytes


class Terminal(Protocol):
    """A live connection to a process' standard streams."""

    async def read(self) -> LogChunk | None:
        """The next piece of output, None at its end."""

    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    async def resize(self, width: int, height: int) -> None: ...
    async def exit_code(self) -> int | None:
        """Of an exec, once its output has ended. None for an attach."""

    async def close(self) -> None:
        """Leave; an attached container goes on."""


class Stats(Struct, frozen=True, kw_only=True):
    """One sample. Bytes, and ``cpu_percent`` of one core over a short window."""

    cpu_percent: float
    memory_used: int
    memory_limit: int
    block_read: int = 0
    block_write: int = 0
    net_rx: int = 0
    net_tx: int = 0


#: Why there is no ``top`` of a container in another runtime than the engine's default: what the host would show for it
#: is a process of that runtime's, or, by the number that a process has in there, another's altogether.
OWN_KERNEL = "The processes of a container of this runtime class are not seen from its host: run ps in the container."


class Processes(Struct, frozen=True):
    """What ``ps`` shows of the container's processes, as seen from the host."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class PathStat(Struct, frozen=True):
    """Docker's description of a path in a container; ``mode`` as Go's os.FileMode, ``mtime`` RFC 3339."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str = ""


class Runtime(Protocol):
    """A container engine. See the module for a worked example and the errors."""

    name: str

    async def close(self) -> None: ...
    async def info(self) -> EngineInfo: ...
    async def probe(self, runtime: str) -> None:
        """Start and remove a container with this runtime, by the engine's own name.

        Raises ``EngineError`` with the reason where it does not run.
        """

    # images
    async def pull(self, image: str, *, policy: str = "ifnotpresent", auth: RegistryAuth | None = None) -> Image:
        """Make the image be on the host; policy is always, ifnotpresent or never.

        Raises ``ImageNotFound`` and ``ImagePullFailed``. Several pulls of one image are one.
        """

    async def load(self, image: ImageFiles, name: str) -> Image:
        """Make a checked image of this machine be on the engine as ``name``, which whatever had it loses.

        Loaded already is done, and a layer that the engine has is not stored again. It is not for ``pull`` to give to
        anybody by its id, unless it has another name too that is. Raises ``ImagePullFailed`` where the engine refuses
        it, as it does where a layer is not what its digest says.
        """

    def save(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """An image on the host as an archive of ``docker save``, as it is read. Raises ``ImageNotFound``."""

    async def images(self) -> list[Image]: ...
    async def remove_image(self, name: str) -> None: ...
    async def search(self, term: str) -> list[dict[str, object]]: ...

    # sandboxes
    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """Make it, or find the one that is there; ready and with a network namespace of its own, only ``lo`` in it."""

    async def remove_sandbox(self, uuid: str) -> None:
        """Remove it with whatever containers are in it. Done already is done."""

    # containers
    async def create(self, container: EngineContainer) -> None:
        """Make the container in its sandbox. If this uuid and incarnation are there already, do nothing."""

    async def start(self, uuid: str) -> None:
        """Start the newest incarnation. Running already is done.

        Raises ``SandboxGone`` where the sandbox that it is bound to is no more, so that it can never start again.
        """

    async def stop(self, uuid: str, timeout: float) -> None:
        """SIGTERM (or the image's stop signal), after ``timeout`` seconds SIGKILL. Stopped already is done."""

    async def kill(self, uuid: str, signal: str) -> None:
        """``signal`` as SIGTERM."""

    async def pause(self, uuid: str) -> None: ...
    async def unpause(self, uuid: str) -> None: ...
    async def update(self, uuid: str, *, cpu: float, memory: int) -> None:
        """New limits in place (cores, bytes)."""

    async def remove(self, uuid: str, incarnation: int | None = None) -> None:
        """Kill and remove the container (only that incarnation if given). Gone already is done."""

    async def list(self, sandbox: str | None = None) -> Holdings:
        """All of ours, or what belongs to one sandbox."""

    def events(self) -> AsyncIterator[Event]:
        """Life-cycle events from now on, until the engine goes away (EngineUnavailable)."""

    # streams and looks inside
    def logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]: ...
    async def exec(
        self, uuid: str, command: tuple[str, ...], *, tty: bool = False, stdin: bool = False
    ) -> Terminal: ...
    async def attach(self, uuid: str) -> Terminal: ...
    async def stats(self, uuid: str) -> Stats: ...
    async def top(self, uuid: str, ps_args: str | None) -> Processes: ...
    def get_archive(self, uuid: str, path: str) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        """A tar of the path as Docker's archive call makes it. Raises ``PathNotFound``."""

    async def put_archive(self, uuid: str, path: str, data: AsyncIterator[bytes]) -> None:
        """Unpack a tar into the directory ``path``, never outside the container's root."""

    async def commit(self, uuid: str, name: str) -> str:
        """Make an image ``repository:tag`` of the container's file system on this host; its id."""
