"""The steps an agent may take for a workload: small, idempotent, and all of them in one registry.

A step is a value; what it does is in ``effects``, what is remembered of it afterwards in ``memory``. ``subject`` is
whom its failure concerns: a container's uuid, a volume's uuid, or the empty string for the workload as a whole.
"""

from typing import ClassVar

from msgspec import Struct, field

from higgins.model.container import TaskState
from higgins.model.images import FoundImage
from higgins.networks.base import PortWire
from higgins.runtimes.base import EngineContainer, RegistryAuth, SandboxSpec
from higgins.volumes.base import VolumeWire


class Step(Struct, frozen=True, kw_only=True):
    """The base of all. ``lasting`` steps may take long, and are given up when the owner wants something else.

    ``final``: an engine's refusal is an answer that will not change by asking again, as for a command not found.
    ``crucial``: where it fails, the container is in error; else it goes on as it is, with a reason.
    """

    lasting: ClassVar[bool] = False
    final: ClassVar[bool] = False
    crucial: ClassVar[bool] = False

    @property
    def subject(self) -> str:
        return ""

    @property
    def announce(self) -> TaskState | None:
        """The task state that its owner sees when the step takes long."""
        return None

    @property
    def slow(self) -> str:
        """What to tell its owner when the step takes so long that something may be wrong."""
        return ""


class ContainerStep(Step, frozen=True, kw_only=True):
    """A step for one container."""

    uuid: str

    @property
    def subject(self) -> str:
        return self.uuid


class PullImage(ContainerStep, frozen=True, kw_only=True):
    image: str
    policy: str
    auth: RegistryAuth | None = None
    found: FoundImage | None = None  # one of the cloud's image service

    lasting: ClassVar[bool] = True
    final: ClassVar[bool] = True
    crucial: ClassVar[bool] = True

    @property
    def announce(self) -> TaskState | None:
        return TaskState.IMAGE_PULLING

    @property
    def slow(self) -> str:
        if self.found is not None:
            return f"The image {self.found.name} is still on its way; the image service is slow, or does not answer."
        return f"The image {self.image} is still being pulled; its registry is slow, or does not answer."


class MakeSandbox(Step, frozen=True, kw_only=True):
    spec: SandboxSpec


class WriteFiles(Step, frozen=True, kw_only=True):
    """The files that name a sandbox and its neighbours. ``names`` maps addresses to names.

    ``servers`` are name servers; the host's if empty.
    """

    workload: str
    hostname: str
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    servers: tuple[str, ...] = ()


class AttachVolume(Step, frozen=True, kw_only=True):
    volume: VolumeWire

    @property
    def subject(self) -> str:
        return self.volume.uuid


class Plug(Step, frozen=True, kw_only=True):
    workload: str
    ports: tuple[PortWire, ...]


class VolumeMount(Struct, frozen=True, kw_only=True):
    """A volume of the host, seen at ``destination`` in the container."""

    volume: VolumeWire
    destination: str
    read_only: bool = False


class CreateContainer(ContainerStep, frozen=True, kw_only=True):
    """``container`` lacks the binds, which are known when the volumes are attached."""

    container: EngineContainer
    mounts: tuple[VolumeMount, ...] = ()

    final: ClassVar[bool] = True
    crucial: ClassVar[bool] = True


class StartContainer(ContainerStep, frozen=True, kw_only=True):
    """``order`` is the order it fulfils; ``restarts`` (ever) and ``streak`` (in a row) count those nobody asked for."""

    order: int = 0
    restarts: int = 0
    streak: int = 0

    final: ClassVar[bool] = True
    crucial: ClassVar[bool] = True


class StopContainer(ContainerStep, frozen=True, kw_only=True):
    timeout: float
    restarting: bool = False

    lasting: ClassVar[bool] = True

    @property
    def announce(self) -> TaskState | None:
        return None if self.restarting else TaskState.STOPPING


class KillContainer(ContainerStep, frozen=True, kw_only=True):
    """A refused signal (no such signal, nothing to send it to) is an answer too: the order is done."""

    signal: str
    order: int

    final: ClassVar[bool] = True


class PauseContainer(ContainerStep, frozen=True, kw_only=True):
    final: ClassVar[bool] = True


class UnpauseContainer(ContainerStep, frozen=True, kw_only=True):
    final: ClassVar[bool] = True


class UpdateLimits(ContainerStep, frozen=True, kw_only=True):
    """``cpu`` in cores, ``memory`` in bytes."""

    cpu: float
    memory: int

    final: ClassVar[bool] = True


class RemoveContainer(ContainerStep, frozen=True, kw_only=True):
    incarnation: int


class Unplug(Step, frozen=True, kw_only=True):
    workload: str
    ports: tuple[str, ...]


class RemoveSandbox(Step, frozen=True, kw_only=True):
    """The sandbox and its files."""

    workload: str


class DetachVolume(Step, frozen=True, kw_only=True):
    volume: str

    @property
    def subject(self) -> str:
        return self.volume


class DeleteVolume(Step, frozen=True, kw_only=True):
    """Its data goes for good. Never planned for a workload: the control plane names the volumes nobody keeps."""

    volume: str

    @property
    def subject(self) -> str:
        return self.volume


#: Every step there is, so that tests can walk a crash before and after each.
STEPS: tuple[type[Step], ...] = (
    PullImage,
    MakeSandbox,
    WriteFiles,
    AttachVolume,
    Plug,
    CreateContainer,
    StartContainer,
    StopContainer,
    KillContainer,
    PauseContainer,
    UnpauseContainer,
    UpdateLimits,
    RemoveContainer,
    Unplug,
    RemoveSandbox,
    DetachVolume,
    DeleteVolume,
)
