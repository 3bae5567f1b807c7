"""What passes between the control plane and a host: assignments down, observations up, and streams.

In one process both sides hold each other's objects; with hosts of their own the same verbs travel over HTTPS. The
structs are what travels.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct, field

from higgins.images.base import Parts
from higgins.model.container import ContainerSpec, Goal, RestartPolicy
from higgins.model.errors import HigginsError
from higgins.model.images import FoundImage
from higgins.model.resources import HostInfo
from higgins.networks.base import Neighbour, PortFilter, PortWire
from higgins.runtimes.base import Image, LogChunk, LogOptions, PathStat, Processes, RegistryAuth, Stats, Terminal
from higgins.volumes.base import VolumeWire


class HostReport(Struct, frozen=True, kw_only=True):
    """A host as it introduces itself. ``memory`` MiB, ``disk`` GiB: what containers may use.

    ``address`` is where it serves its streams (host:port); empty in the process of the control plane.
    """

    name: str
    zone: str
    cpus: float
    memory: int
    disk: int
    info: HostInfo
    address: str = ""


class Order(Struct, frozen=True, kw_only=True):
    """Something to do once: restart, or send a signal. Done when the host has reported its ``seq``."""

    seq: int
    verb: str  # restart | kill
    signal: str = ""
    timeout: float = 10


class Known(Struct, frozen=True, kw_only=True):
    """A container as its host last reported it; kept by the control plane and given back after a restart."""

    incarnation: int = 0  # the newest that was ever made
    state: str = ""  # "" | created | running | paused | exited | error | gone
    exit_code: int | None = None
    reason: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    order_done: int = 0
    restarts: int = 0
    health: str = ""  # "" | starting | healthy | unhealthy
    step: str = ""  # what is being done right now: a task state
    ended: bool = False  # it came to its end while it should run, and is to stay so until it is told to start


class Member(Struct, frozen=True, kw_only=True):
    """A container as its host shall have it. ``stop_timeout`` in seconds."""

    uuid: str
    role: str
    position: int
    name: str
    goal: Goal
    incarnation: int
    spec: ContainerSpec
    known: Known
    order: Order | None = None
    stop_timeout: float = 10
    auth: RegistryAuth | None = None
    cpuset: tuple[int, ...] = ()  # the cores that it may run on; empty: all


class Waits(Struct, frozen=True, kw_only=True):
    """What a workload lacks is still being got by the control plane from another service: a port, a volume.

    ``reason`` is a sentence for its owner, once it takes longer than it should. ``refused``: it will not come, and
    ``reason`` says why. While it ``holds``, images are pulled and the sandbox is made, but no container.
    """

    reason: str = ""
    refused: bool = False
    holds: bool = True


class Assignment(Struct, frozen=True, kw_only=True):
    """A workload as its host shall have it. ``names`` maps the addresses of its neighbours to their names.

    An empty ``hostname`` leaves the choice to the host. What it ``waits`` for comes with a later assignment. One that
    ``leaves`` is placed elsewhere once its host is lost.
    """

    uuid: str
    kind: str
    project_id: str
    generation: int
    deleting: bool
    hostname: str
    members: tuple[Member, ...]
    restart_policy: RestartPolicy | None = None
    ports: tuple[PortWire, ...] = ()
    filters: tuple[PortFilter, ...] = ()
    volumes: dict[str, VolumeWire] = field(default_factory=dict)  # by uuid
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    waits: Waits | None = None
    leaves: bool = False


class Assignments(Struct, frozen=True):
    """All that a host holds at ``revision``. ``dead_volumes`` are kept by nobody any more: delete their data.

    ``neighbours`` are the ports that its networks have on other hosts, where networks span hosts. A host that asked and
    had no answer for a ``lease`` (seconds) takes itself for lost, and ends what ``leaves`` it; None: it need not.
    """

    revision: int
    workloads: tuple[Assignment, ...]
    dead_volumes: tuple[str, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    lease: float | None = None


class Observation(Struct, frozen=True, kw_only=True):
    """What a host saw of a workload while it worked on ``generation``. ``gone``: nothing of it is left there."""

    workload: str
    generation: int
    members: dict[str, Known] = field(default_factory=dict)
    gone: bool = False
    settled: bool = False  # nothing is left to do for this generation
    error: str = ""  # why the workload as a whole cannot go on


class ControlUnavailable(HigginsError):
    """The control plane does not answer now. Nothing follows from it for what runs here."""

    status = 503


class ControlLink(Protocol):
    """What an agent may ask of the control plane; all of it speaks of its own host only."""

    async def register(self, report: HostReport) -> int:
        """Introduce the host; the number it goes by."""

    async def assignments(self, host: int, since: int, timeout: float) -> Assignments | None:
        """All that the host holds, as soon as its revision is not ``since``; None after ``timeout`` seconds."""

    async def observe(self, host: int, observations: list[Observation]) -> None:
        """What was seen. Observations of an older generation, or of what the host lost, change nothing."""

    async def volumes_deleted(self, host: int, uuids: list[str]) -> None:
        """The data of these volumes is gone."""

    async def image(self, host: int, uuid: str, timeout: float) -> Parts | None:
        """What an image of the image service consists of: that of a container of the host, or one pulled to it.

        None where the control plane does not have it after ``timeout`` seconds; it goes on fetching it. Raises
        ImageNotFound, ImageRefused, and ImagePullFailed where trying again may help.
        """

    def layer(self, host: int, uuid: str, digest: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A layer of that image, a plain tar, as it comes."""


class HostStreams(Protocol):
    """What the control plane may ask of a host directly: to look into a container, and to hold images."""

    async def logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]: ...
    async def exec(
        self, uuid: str, command: tuple[str, ...], *, tty: bool, stdin: bool, exec_id: str | None = None
    ) -> Terminal:
        """Run a command; by ``exec_id``, if it has one, its terminal can be resized by whoever did not open it."""

    async def attach(self, uuid: str) -> Terminal: ...
    async def resize(self, uuid: str, exec_id: str | None, width: int, height: int) -> bool:
        """Resize the open terminals of an exec, or (None) of the container itself; whether there are any."""

    async def stats(self, uuid: str) -> Stats: ...
    async def top(self, uuid: str, ps_args: str | None) -> Processes: ...
    def get_archive(
        self, uuid: str, path: str
    ) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]: ...
    async def put_archive(self, uuid: str, path: str, data: AsyncIterator[bytes]) -> None: ...
    async def commit(self, uuid: str, name: str) -> str: ...
    def save(self, image: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...
    async def pull(self, image: str, auth: RegistryAuth | None) -> Image: ...
    async def fetch(self, uuid: str, found: FoundImage) -> Image:
        """Have an image of the image service; ``uuid`` is of what the host is given it for (``ControlLink.image``)."""

    async def remove_image(self, name: str) -> None: ...
    async def search(self, term: str) -> list[dict[str, Any]]: ...
