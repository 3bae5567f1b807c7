"""What each step does to the engine, the network and the volumes. Every one may be done twice."""

import asyncio
from collections.abc import Mapping

from msgspec.structs import replace

from higgins.agent import failpoints, steps
from higgins.agent.classes import engine_name
from higgins.agent.deliveries import Deliveries
from higgins.agent.files import Files
from higgins.agent.filters import Filters
from higgins.agent.observe import Table
from higgins.agent.spares import Spares
from higgins.agent.steps import CreateContainer, Plug, Step
from higgins.model.errors import EngineError, NotImplementedHere
from higgins.networks.base import Network
from higgins.runtimes.base import Bind, Runtime, Sandbox, SandboxSpec
from higgins.volumes.base import Volumes, VolumeWire


class Effects:
    """The host, as steps change it."""

    def __init__(
        self,
        runtime: Runtime,
        network: Network,
        volumes: Volumes,
        *,
        files: Files,
        filters: Filters,
        table: Table,
        spares: Spares,
        classes: Mapping[str, str] | None = None,
        deliveries: Deliveries | None = None,
    ) -> None:
        """``classes``: what the engine calls each runtime class; None where they are its own names.

        ``deliveries`` brings images of the cloud's image service.
        """
        self._runtime = runtime
        self._network = network
        self._volumes = volumes
        self._files = files
        self._filters = filters
        self._table = table
        self._spares = spares
        self._classes = classes
        self._deliveries = deliveries
        self._namespaces: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._failpoint = failpoints.from_environment()

    def found(self, sandbox: Sandbox) -> None:
        """A sandbox was seen: its namespace is where its ports are plugged."""
        self._namespaces[sandbox.uuid] = sandbox.netns

    async def do(self, step: Step) -> None:
        """Do the step. Raises ``EngineUnavailable`` or another ``HigginsError`` with a tenant's sentence."""
        if self._failpoint is None:
            await self._do(step)
            return
        self._failpoint.reach(type(step).__name__, "before")
        await self._do(step)
        self._failpoint.reach(type(step).__name__, "after")

    async def _do(self, step: Step) -> None:
        if isinstance(step, steps.ContainerStep):
            await self._container(step)
            return
        match step:
            case steps.MakeSandbox():
                await self._make(step.spec)
            case steps.WriteFiles():
                self._write(step)
            case steps.RemoveSandbox():
                await self._runtime.remove_sandbox(self._spares.real(step.workload))
                self._spares.forget(step.workload)
                self._namespaces.pop(step.workload, None)
                self._remove_files(step.workload)
            case steps.Plug():
                await self._plug(step)
            case steps.Unplug():
                await self._network.unplug(step.workload, list(step.ports))
                self._table.unplug(step.workload, step.ports)
            case steps.AttachVolume():
                await self._attach(step.volume)
            case steps.DetachVolume():
                await self._detach(step.volume)
            case steps.DeleteVolume():
                if step.volume in self._table.attached:
                    await self._detach(step.volume)
                await self._volumes.delete(step.volume)
            case _:
                raise NotImplementedError(type(step).__name__)

    async def _container(self, step: steps.ContainerStep) -> None:
        runtime = self._runtime
        match step:
            case steps.PullImage() if step.found is not None:
                if self._deliveries is None:
                    raise NotImplementedHere("This host has no way to the cloud's image service.")
                await self._deliveries.bring(step.uuid, step.found, step.policy)
            case steps.PullImage():
                await runtime.pull(step.image, policy=step.policy, auth=step.auth)
            case steps.CreateContainer():
                made = replace(
                    step.container,
                    sandbox=self._spares.real(step.container.sandbox),
                    runtime=self._class(step.container.runtime),
                    binds=await self._binds(step),
                )
                await runtime.create(made)
            case steps.StartContainer():
                await runtime.start(step.uuid)
            case steps.StopContainer():
                await runtime.stop(step.uuid, step.timeout)
            case steps.KillContainer():
                await runtime.kill(step.uuid, step.signal)
            case steps.PauseContainer():
                await runtime.pause(step.uuid)
            case steps.UnpauseContainer():
                await runtime.unpause(step.uuid)
            case steps.UpdateLimits():
                await runtime.update(step.uuid, cpu=step.cpu, memory=step.memory)
            case steps.RemoveContainer():
                await runtime.remove(step.uuid, step.incarnation)
            case _:
                raise NotImplementedError(type(step).__name__)

    async def _make(self, spec: SandboxSpec) -> None:
        """Make the sandbox, or bring back the one that the workload had taken, under the uuid it was made with."""
        asked = replace(spec, uuid=self._spares.real(spec.uuid), runtime=self._class(spec.runtime))
        made = await self._runtime.create_sandbox(asked)
        self.found(replace(made, uuid=spec.uuid))

    def _class(self, name: str | None) -> str | None:
        return name if self._classes is None else engine_name(self._classes, name)

    def _write(self, step: steps.WriteFiles) -> None:
        try:
            self._files.write(step.workload, step.hostname, step.names, step.servers)
        except OSError as error:
            raise EngineError("The host could not write the files of the sandbox.") from error

    def _remove_files(self, workload: str) -> None:
        try:
            self._files.remove(workload)
        except OSError as error:
            raise EngineError("The host could not remove the files of the sandbox.") from error

    async def _plug(self, step: Plug) -> None:
        """Wire the ports; what may reach them is in force before anything runs behind them."""
        netns = self._namespaces.get(step.workload, "")
        if not netns:
            raise EngineError("The sandbox has no network namespace to plug its ports into.")
        await asyncio.gather(self._network.plug(netns, step.workload, list(step.ports)), self._filters.hold())
        self._table.plug(step.workload, (port.uuid for port in step.ports))

    async def _attach(self, volume: VolumeWire) -> str:
        path = await self._volumes.attach(volume)
        self._paths[volume.uuid] = path
        self._table.attach(volume.uuid)
        return path

    async def _detach(self, uuid: str) -> None:
        await self._volumes.detach(uuid)
        self._paths.pop(uuid, None)
        self._table.detach(uuid)

    async def _binds(self, step: CreateContainer) -> tuple[Bind, ...]:
        taken = frozenset(mount.destination for mount in step.mounts)
        paths = self._paths
        volumes = [
            Bind(
                paths.get(mount.volume.uuid) or await self._attach(mount.volume),
                mount.destination,
                mount.read_only,
            )
            for mount in step.mounts
        ]
        return (*self._files.binds(step.container.sandbox, taken), *volumes)
