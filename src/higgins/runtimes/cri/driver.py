"""``Runtime`` of base.py over CRI. Each verb is short: messages come from ``config``, meanings from ``state``."""

import asyncio
import itertools
import math
import signal as signals
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

from cri_api.v1 import api_pb2 as cri
from msgspec.structs import replace

from higgins.images.base import ImageFiles
from higgins.model.errors import ContainerGone, EngineError, ImageNotFound, NotImplementedHere, SandboxGone
from higgins.runtimes import probing
from higgins.runtimes.base import (
    OWN_KERNEL,
    EngineContainer,
    EngineInfo,
    Event,
    Holdings,
    Image,
    LogChunk,
    LogOptions,
    Observed,
    PathStat,
    Processes,
    RegistryAuth,
    Sandbox,
    SandboxSpec,
    Stats,
    Terminal,
)
from higgins.runtimes.cri import (
    archive,
    classes,
    commit,
    config,
    content,
    events,
    execs,
    logs,
    oom,
    restart,
    state,
    streams,
    usage,
    users,
)
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.fresh import Fresh
from higgins.runtimes.cri.images import Images
from higgins.runtimes.cri.sandboxes import Sandboxes

#: How many questions about single containers are asked of the engine at once.
_AT_ONCE = 16


class CriRuntime:
    """A CRI engine. Names of the engine's are ids; names of ours are uuids, found again by label."""

    name = "cri"

    def __init__(
        self,
        client: Client,
        *,
        logs: Path,
        log_bytes: int,
        cgroup_parent: str,
        ids: users.Ids | None = None,
        readers: Path | None = None,
    ) -> None:
        self._client = client
        self._images = Images(client, readers)
        self._logs, self._log_bytes = logs, log_bytes
        self._ids = ids
        self._sandboxes = Sandboxes(client, logs=logs, cgroup_parent=cgroup_parent, ids=ids)
        self._fresh = Fresh(client, self._sandboxes)
        self._told: dict[str, tuple[int, Observed]] = {}  # by the engine's id, what stays so in a state of CRI's
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def close(self) -> None:
        await self._client.close()

    async def info(self) -> EngineInfo:
        """Raises ``EngineError`` as well where the engine is not set up for Higgins."""
        version = await self._client.version()
        status = await self._client.engine_status()
        if problem := state.unfit(status):
            raise EngineError(problem)
        if self._ids is not None and "" not in (await self._client.handlers()).user_namespaces:
            raise EngineError("user_ids is set, and the container engine, its runtime or the kernel has no use for it.")
        return EngineInfo(version.runtime_name, version.runtime_version, state.runtime_classes(status))

    async def probe(self, runtime: str) -> None:
        await probing.probe(self, runtime, await self._client.pause_image())

    # images

    async def pull(self, image: str, *, policy: str = "ifnotpresent", auth: RegistryAuth | None = None) -> Image:
        return await self._images.pull(image, policy, auth)

    async def load(self, image: ImageFiles, name: str) -> Image:
        return await self._images.load(image, name)

    def save(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return content.save(self._client, name)

    async def images(self) -> list[Image]:
        return await self._images.all()

    async def remove_image(self, name: str) -> None:
        used = {one.image_ref for one in await self._client.containers()}
        await self._images.remove(name, used)

    async def search(self, term: str) -> list[dict[str, object]]:
        raise NotImplementedHere("The container engine of this host cannot search registries.")

    # sandboxes

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        await classes.wanted(self._client, spec.runtime)  # raises for one that the engine has not
        async with self._turn(spec.uuid):
            return await self._sandboxes.create(spec)

    async def remove_sandbox(self, uuid: str) -> None:
        async with self._turn(uuid):
            for container in await self._client.containers(sandbox=uuid):
                await self._make_removable(container)
            await self._sandboxes.remove(uuid)
            self._fresh.sandbox_removed(uuid)

    # containers

    async def create(self, container: EngineContainer) -> None:
        async with self._turn(container.uuid):
            if await self._fresh.make(container):
                return
            held = await self._client.containers(uuid=container.uuid, incarnation=str(container.incarnation))
            if not held:
                attempt = config.attempt_number(container.incarnation, 0)
                await self._make(container, attempt, container.image)

    async def start(self, uuid: str) -> None:
        async with self._turn(uuid):
            if await self._fresh.start(uuid):
                return
            held = await self._of_newest_incarnation(uuid)
            newest = held[-1]
            if newest.state == cri.CONTAINER_RUNNING:
                return
            spec = config.container_spec(newest.annotations)
            if newest.state == cri.CONTAINER_UNKNOWN:  # what it holds must not be written to by two
                request = cri.StopContainerRequest(container_id=newest.id)
                await self._client.ask(self._client.runtime.StopContainer, request, f"container {uuid}", timeout=None)
            if newest.state == cri.CONTAINER_CREATED:
                if await classes.mend(self._client, newest):
                    remains = cri.RemoveContainerRequest(container_id=newest.id)
                    await self._client.ask(self._client.runtime.RemoveContainer, remains, timeout=None)
                    await self._make(spec, newest.metadata.attempt + 1, newest.image_ref)
                    held = await self._of_newest_incarnation(uuid)
            else:
                now = (await self._client.status(newest.id, verbose=True)).info
                spec = state.limits_in_force(spec, state.details(now).get("runtimeSpec", {}))
                try:
                    await self._make(spec, newest.metadata.attempt + 1, newest.image_ref)
                except SandboxGone as error:
                    # Bound to none: it starts, with its files, once there is another sandbox of that uuid.
                    raise EngineError(str(error)) from error
                held = await self._of_newest_incarnation(uuid)
            await restart.start(self._client, held[-1], held[:-1], spec)
            if held[-1].metadata.attempt != config.attempt_number(spec.incarnation, 0):  # it may have moved
                await self._sandboxes.remove_emptied(spec.sandbox)

    async def stop(self, uuid: str, timeout: float) -> None:
        container = await self._client.newest(uuid)
        await self._thaw(container)
        if container.state == cri.CONTAINER_RUNNING:
            request = cri.StopContainerRequest(container_id=container.id, timeout=math.ceil(timeout))
            await self._client.ask(self._client.runtime.StopContainer, request, f"container {uuid}", timeout=None)

    async def kill(self, uuid: str, signal: str) -> None:
        container = await self._running(uuid, "kill")
        await (await self._client.containerd()).kill(container.id, signal_number(signal))

    async def pause(self, uuid: str) -> None:
        container = await self._running(uuid, "pause")
        containerd = await self._client.containerd()
        if not await containerd.is_paused(container.id):
            await containerd.pause(container.id)

    async def unpause(self, uuid: str) -> None:
        await self._thaw(await self._running(uuid, "unpause"))

    async def update(self, uuid: str, *, cpu: float, memory: int) -> None:
        container = await self._client.newest(uuid)
        limits = config.changed_resources(cpu, memory)
        if container.state == cri.CONTAINER_RUNNING:
            request = cri.UpdateContainerResourcesRequest(container_id=container.id, linux=limits)
            await self._client.ask(self._client.runtime.UpdateContainerResources, request, f"container {uuid}")
        else:
            await restart.limit_next_task(await self._client.containerd(), container.id, limits)

    async def remove(self, uuid: str, incarnation: int | None = None) -> None:
        async with self._turn(uuid):
            self._fresh.changed(uuid)
            only = {} if incarnation is None else {"incarnation": str(incarnation)}
            for container in await self._client.containers(uuid=uuid, **only):
                await self._make_removable(container)
                with suppress(ContainerGone):
                    request = cri.RemoveContainerRequest(container_id=container.id)
                    await self._client.remove(self._client.runtime.RemoveContainer, request, container.id)
                self._told.pop(container.id, None)
                logs.remove(self._log(container))

    async def list(self, sandbox: str | None = None) -> Holdings:
        only = {} if sandbox is None else {"sandbox": sandbox}
        # Sandboxes first: a container seen without its sandbox would be taken for a leftover.
        newest = {one.metadata.name: one for one in await self._client.sandboxes(**only)}
        containers = state.newest_of_each(await self._client.containers(**only))
        turn = asyncio.Semaphore(_AT_ONCE)

        async def look(container: cri.Container) -> Observed | None:
            try:
                async with turn:
                    return await self._observed(container)
            except ContainerGone:
                return None

        asked = self._paused(containers, all_of_them=sandbox is None)
        paused, looks = await asyncio.gather(asked, asyncio.gather(*map(look, containers)))
        seen = [
            replace(one, state="paused") if container.id in paused and one and one.state == "running" else one
            for container, one in zip(containers, looks, strict=True)
        ]
        await self._turn_over_logs(containers)
        if sandbox is None:
            self._told = {one.id: self._told[one.id] for one in containers if one.id in self._told}
        return Holdings(
            tuple([await self._sandboxes.observed(one) for one in newest.values()]),
            tuple(one for one in seen if one is not None),
        )

    def events(self) -> AsyncIterator[Event]:
        return events.events(self._client)

    # streams and looks inside

    async def logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]:
        container = await self._client.newest(uuid)

        async def ended() -> bool:
            try:
                now = await self._client.status(container.id)
            except ContainerGone:
                return True
            return now.status.state not in (cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING)

        tty = config.container_spec(container.annotations).tty
        async for chunk in logs.read(self._log(container), options, ended, tty=tty):
            yield chunk

    async def exec(self, uuid: str, command: tuple[str, ...], *, tty: bool = False, stdin: bool = False) -> Terminal:
        container = await self._running(uuid, "execute a command in")
        if not await self._client.is_containerd():
            return await streams.execute(self._client, container.id, command, tty=tty, stdin=stdin)
        # In the sandbox's directory of logs: the engine sees it by the same name, and it goes with the sandbox.
        place = self._logs / container.labels[config.PREFIX + "sandbox"] / f"exec-{uuid4().hex}"
        containerd = await self._client.containerd()
        return await execs.execute(containerd, container.id, command, place, tty=tty, stdin=stdin)

    async def attach(self, uuid: str) -> Terminal:
        container = await self._running(uuid, "attach to")
        spec = config.container_spec(container.annotations)
        return await streams.attach(self._client, container.id, tty=spec.tty, stdin=spec.interactive)

    async def stats(self, uuid: str) -> Stats:
        container = await self._running(uuid, "measure")
        status = state.details((await self._client.status(container.id, verbose=True)).info)
        request = cri.ContainerStatsRequest(container_id=container.id)
        before = await self._client.ask(self._client.runtime.ContainerStats, request, f"container {uuid}")
        await usage.window()
        after = await self._client.ask(self._client.runtime.ContainerStats, request, f"container {uuid}")
        spec = state.limits_in_force(config.container_spec(container.annotations), status.get("runtimeSpec", {}))
        with usage.gone_means_ended(uuid):
            return usage.sample(status["pid"], before.stats, after.stats, spec.memory)

    async def top(self, uuid: str, ps_args: str | None) -> Processes:
        container = await self._running(uuid, "show the processes of")
        if await classes.wanted(self._client, config.container_spec(container.annotations).runtime) is not None:
            raise NotImplementedHere(OWN_KERNEL)
        status = state.details((await self._client.status(container.id, verbose=True)).info)
        with usage.gone_means_ended(uuid):
            return await usage.processes(status["pid"], ps_args)

    def get_archive(self, uuid: str, path: str) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        return archive.get(self._client, uuid, path)

    async def put_archive(self, uuid: str, path: str, data: AsyncIterator[bytes]) -> None:
        await archive.put(self._client, uuid, path, data)

    async def commit(self, uuid: str, name: str) -> str:
        return await commit.commit(self._client, await self._client.newest(uuid), name)

    # what several verbs need

    def _turn(self, uuid: str) -> asyncio.Lock:
        """One at a time of the verbs that look first and act then, for each sandbox or container."""
        return self._turns.setdefault(uuid, asyncio.Lock())

    async def _make(self, spec: EngineContainer, attempt: int, image: str) -> None:
        """A container of the engine in the ready sandbox, of an image that is on the host by that name or id."""
        (sandbox, sandbox_config), found = await asyncio.gather(
            self._sandboxes.ready(spec.sandbox), self._images.find(image)
        )
        if found is None:
            raise ImageNotFound(f"Image {spec.image} is not on the host.")
        first_id = users.of(sandbox_config.annotations)
        wanted = config.container_config(spec, attempt=attempt, first_id=first_id)
        wanted.image.image = image
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=wanted, sandbox_config=sandbox_config)
        await classes.wanted(self._client, spec.runtime)  # raises for one that the engine has not
        made = await self._client.ask(
            self._client.runtime.CreateContainer, request, f"image {spec.image}", timeout=None
        )
        await restart.bound(self._client, made.container_id, spec)

    async def _of_newest_incarnation(self, uuid: str) -> tuple[cri.Container, ...]:
        held = await self._client.containers(uuid=uuid)
        if not held:
            raise ContainerGone(f"The container engine does not know container {uuid}.")
        key = config.PREFIX + "incarnation"
        return tuple(one for one in held if one.labels[key] == held[-1].labels[key])

    async def _running(self, uuid: str, action: str) -> cri.Container:
        container = await self._client.newest(uuid)
        if container.state != cri.CONTAINER_RUNNING:
            raise EngineError(f"Cannot {action} container {uuid} while it is {state.word(container.state)}.")
        return container

    async def _paused(self, containers: Sequence[cri.Container], *, all_of_them: bool = False) -> frozenset[str]:
        """Which of these are, by the engine's ids. ``all_of_them``: they are all that the engine holds."""
        running = [one.id for one in containers if one.state == cri.CONTAINER_RUNNING]
        if not running or not await self._client.is_containerd():
            return frozenset()
        containerd = await self._client.containerd()
        if all_of_them:
            return await containerd.paused()
        are = await asyncio.gather(*map(containerd.is_paused, running))
        return frozenset(itertools.compress(running, are))

    async def _make_removable(self, container: cri.Container) -> None:
        await self._thaw(container)
        await classes.mend(self._client, container)

    async def _thaw(self, container: cri.Container) -> None:
        """Let a paused container go on: a frozen one hears no signal, and cannot be removed."""
        if await self._paused([container]):
            await (await self._client.containerd()).resume(container.id)

    async def _observed(self, container: cri.Container) -> Observed:
        """What the engine tells of it, asked once where that stays so. Raises ``ContainerGone``."""
        known = self._told.get(container.id)
        if known is not None and known[0] == container.state:
            return known[1]
        status = (await self._client.status(container.id)).status
        # What the engine may have missed.
        suspect = state.may_be_out_of_memory(status)
        killed = suspect and await asyncio.to_thread(oom.killed_for_memory, status.id)
        one = state.observed(status, out_of_memory=killed)
        if state.stays(status):
            self._told[container.id] = status.state, one
        return one

    async def _turn_over_logs(self, containers: Iterable[cri.Container]) -> None:
        """Where the regular look comes by, logs that have grown too long are cut: engines leave that to others."""
        for container in containers:
            if container.state == cri.CONTAINER_RUNNING and logs.turn_over(self._log(container), self._log_bytes):
                with suppress(ContainerGone):
                    request = cri.ReopenContainerLogRequest(container_id=container.id)
                    await self._client.ask(self._client.runtime.ReopenContainerLog, request, "the container")

    def _log(self, container: cri.Container) -> Path:
        spec = config.container_spec(container.annotations)
        return self._logs / spec.sandbox / config.log_name(spec.uuid, spec.incarnation)


def signal_number(name: str) -> int:
    """``SIGTERM``, ``TERM`` or ``15``. Raises ``EngineError``."""
    try:
        if name.isdigit():
            return int(signals.Signals(int(name)))
        return int(signals.Signals[name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"])
    except (KeyError, ValueError) as error:
        raise EngineError(f"There is no signal {name}.") from error
