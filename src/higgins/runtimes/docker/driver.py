"""The verbs of ``Runtime`` on a Docker Engine."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from higgins.images.base import ImageFiles
from higgins.model.errors import EngineError, EngineUnavailable, ImageNotFound, NotImplementedHere, SandboxGone
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
    PathStat,
    Processes,
    RegistryAuth,
    Sandbox,
    SandboxSpec,
    Stats,
    Terminal,
)
from higgins.runtimes.docker import archive, config, engine, holdings, lifecycle, state, streams
from higgins.runtimes.docker.client import Client
from higgins.runtimes.docker.images import Images, full_name, split_name

#: What changes a workload's state, in the words of Docker and of Podman. Others (exec, attach, resize …) come often and
#: say nothing.
EVENTS = frozenset(
    ("create", "start", "die", "died", "oom", "pause", "unpause", "destroy", "remove", "update", "cleanup")
)


class DockerRuntime:
    """One Docker Engine. See ``higgins.runtimes.base.Runtime``."""

    name = "docker"

    def __init__(self, client: Client, images: Images) -> None:
        self._client = client
        self._images = images
        self._made: dict[str, str] = {}  # uuid → name of what was made just now, and so is the newest

    async def close(self) -> None:
        await self._client.close()

    async def info(self) -> EngineInfo:
        version = await self._client.version()
        return engine.info(version, await self._client.call("GET", "info"), Path("/proc/self/mountinfo").read_text())

    async def probe(self, runtime: str) -> None:
        await probing.probe(self, runtime, await self._images.pause(), config.PAUSE_COMMAND)

    # images

    async def pull(self, image: str, *, policy: str = "ifnotpresent", auth: RegistryAuth | None = None) -> Image:
        return await self._images.pull(image, policy, auth)

    async def load(self, image: ImageFiles, name: str) -> Image:
        return await self._images.load(image, name)

    def save(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._images.save(name)

    async def images(self) -> list[Image]:
        return await self._images.all()

    async def remove_image(self, name: str) -> None:
        await self._images.remove(name)

    async def search(self, term: str) -> list[dict[str, object]]:
        return await self._images.search(term)

    # sandboxes

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """One that has ended is started again, with a new network namespace."""
        name = config.sandbox_name(spec.uuid)
        body = config.sandbox_body(spec, await self._images.pause())
        missing = EngineError("The image that holds a sandbox went away while the sandbox was made.")
        await lifecycle.make(self._client, name, body, missing)
        await lifecycle.start(self._client, name, spec.uuid)
        return state.sandbox(await holdings.inspect(self._client, name, holdings.gone(spec.uuid)))

    async def remove_sandbox(self, uuid: str) -> None:
        inside = await holdings.members(self._client, {config.SANDBOX: uuid})
        for entry in inside:
            self._made.pop(entry["Labels"][config.UUID], None)
        await asyncio.gather(*(lifecycle.remove(self._client, entry["Id"]) for entry in inside))
        await lifecycle.remove(self._client, config.sandbox_name(uuid))

    # containers

    async def create(self, container: EngineContainer) -> None:
        name = config.container_name(container.uuid, container.incarnation)
        podman = await self._client.is_podman()
        if podman and container.runtime:
            await self._check_runtime(container.runtime)
        body = config.container_body(container, podman=podman)
        missing = ImageNotFound(f"The image {full_name(container.image)} is not on this host.")
        try:
            new = await lifecycle.make(self._client, name, body, missing)
        except ImageNotFound as error:
            await self._images.inspect(container.image)
            raise SandboxGone(f"The sandbox {container.sandbox} is not on this host.") from error
        if new:
            self._made[container.uuid] = name

    async def start(self, uuid: str) -> None:
        container = self._made.pop(uuid, None) or await self._find(uuid)
        await lifecycle.start(self._client, container, uuid)

    async def stop(self, uuid: str, timeout: float) -> None:
        await lifecycle.stop(self._client, await self._find(uuid), uuid, timeout)

    async def kill(self, uuid: str, signal: str) -> None:
        """Raises ``EngineError`` where nothing runs that could be sent a signal, or no such signal exists."""
        await self._post(uuid, "kill", {"signal": signal})

    async def pause(self, uuid: str) -> None:
        await lifecycle.pause(self._client, await self._find(uuid), uuid)

    async def unpause(self, uuid: str) -> None:
        await lifecycle.unpause(self._client, await self._find(uuid), uuid)

    async def update(self, uuid: str, *, cpu: float, memory: int) -> None:
        """The engine cannot lift a limit in place: 0 where there is one raises ``NotImplementedHere``."""
        container = await self._find(uuid)
        host = (await holdings.inspect(self._client, container, holdings.gone(uuid)))["HostConfig"]
        if (host["NanoCpus"] and not cpu) or (host["Memory"] and not memory):
            raise NotImplementedHere("This engine can change a limit of a container, but not take it away.")
        await self._post(uuid, "update", body=config.limits(cpu, memory))

    async def remove(self, uuid: str, incarnation: int | None = None) -> None:
        self._made.pop(uuid, None)
        labels = {config.UUID: uuid} | ({} if incarnation is None else {config.INCARNATION: str(incarnation)})
        found = await holdings.members(self._client, labels)
        await asyncio.gather(*(lifecycle.remove(self._client, entry["Id"]) for entry in found))

    async def list(self, sandbox: str | None = None) -> Holdings:
        return await holdings.everything(self._client, sandbox)

    def events(self) -> AsyncIterator[Event]:
        """Whatever happens after this call is told, however late the reading begins."""
        return self._events(since=f"{time.time():.6f}")

    async def _events(self, since: str) -> AsyncIterator[Event]:
        # Chosen here and not by the engine: Podman knows no filter by a label's name.
        params = {"since": since, "filters": json.dumps({"type": ["container"]})}
        async with self._client.open("GET", "events", params=params) as answer:
            async for said in self._client.objects(answer):
                sandbox = said.get("Actor", {}).get("Attributes", {}).get(config.SANDBOX)
                if sandbox and said.get("Action") in EVENTS:
                    yield Event(sandbox=sandbox)
        raise EngineUnavailable("The container engine of this host went away.")

    # streams and looks inside

    async def logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]:
        if not (options.stdout or options.stderr):
            return
        container = await self._find(uuid)
        missing = holdings.gone(uuid)
        tty = bool((await holdings.inspect(self._client, container, missing))["Config"]["Tty"])
        params = streams.log_params(options)
        async with self._client.open("GET", f"containers/{container}/logs", params=params, missing=missing) as answer:
            async for chunk in streams.unframed(self._client.chunks(answer), tty=tty):
                yield chunk

    async def exec(self, uuid: str, command: tuple[str, ...], *, tty: bool = False, stdin: bool = False) -> Terminal:
        missing = holdings.gone(uuid)
        wish = {"Cmd": list(command), "Tty": tty, "AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True}
        made = await self._post(uuid, "exec", body=wish)
        path = f"exec/{made['Id']}"
        start = {"Detach": False, "Tty": tty}
        stream = await self._client.upgrade(f"{path}/start", body=start, tty=tty, missing=missing)

        async def ended() -> int | None:
            said = await self._client.call("GET", f"{path}/json", missing=missing)
            return None if said["Running"] else said["ExitCode"]

        return streams.DockerTerminal(stream, self._resizer(path), ended)

    async def attach(self, uuid: str) -> Terminal:
        container = await self._find(uuid)
        payload = await self._running(container, uuid)
        settings = payload["Config"]
        params = {"stream": "1", "stdout": "1", "stderr": "1", "stdin": str(int(settings["OpenStdin"]))}
        path = f"containers/{container}"
        stream = await self._client.upgrade(
            f"{path}/attach", params=params, tty=settings["Tty"], missing=holdings.gone(uuid)
        )
        return streams.DockerTerminal(stream, self._resizer(path))

    async def stats(self, uuid: str) -> Stats:
        container = await self._find(uuid)
        payload = await self._running(container, uuid)
        path = f"containers/{container}/stats"
        sample = await self._client.call("GET", path, params={"stream": "0"}, missing=holdings.gone(uuid))
        return state.stats(sample, engine.net_dev(payload["State"]["Pid"]))

    async def top(self, uuid: str, ps_args: str | None) -> Processes:
        params = {"ps_args": ps_args} if ps_args else {}
        container = await self._find(uuid)
        await self._check_seen(container, uuid)
        said = await self._client.call("GET", f"containers/{container}/top", params=params, missing=holdings.gone(uuid))
        return Processes(titles=tuple(said["Titles"]), rows=tuple(tuple(row) for row in said["Processes"] or ()))

    @asynccontextmanager
    async def get_archive(self, uuid: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        async with archive.get(self._client, await self._find(uuid), path) as found:
            yield found

    async def put_archive(self, uuid: str, path: str, data: AsyncIterator[bytes]) -> None:
        await archive.put(self._client, await self._find(uuid), path, data)

    async def commit(self, uuid: str, name: str) -> str:
        """The image keeps the owner's labels, but none that would make a container of it look like one of ours."""
        repository, tag = split_name(name)
        self._images.check_free(f"{repository}:{tag}")
        ours = (config.UUID, config.SANDBOX, config.PROJECT, config.INCARNATION, config.KIND)
        changes = "\n".join(f'LABEL {key}=""' for key in ours)
        params = {"container": await self._find(uuid), "repo": repository, "tag": tag, "changes": changes}
        missing = holdings.gone(uuid)
        await self._client.call("POST", "commit", params=params, body={}, missing=missing, patience=3600)
        return (await self._images.inspect(name)).id

    # what they share

    async def _find(self, uuid: str) -> str:
        return await holdings.find(self._client, uuid)

    async def _running(self, container: str, uuid: str) -> dict[str, Any]:
        payload = await holdings.inspect(self._client, container, holdings.gone(uuid))
        if not payload["State"]["Running"]:
            raise EngineError(f"The container {uuid} is not running.")
        return payload

    async def _check_seen(self, container: str, uuid: str) -> None:
        """Raises ``NotImplementedHere`` where processes in the container may have numbers of another kernel's.

        The engine would show whatever has these numbers on the host.
        """
        host = (await holdings.inspect(self._client, container, holdings.gone(uuid)))["HostConfig"]
        if host.get("Runtime") and not await self._client.is_podman():
            default = (await self._client.call("GET", "info"))["DefaultRuntime"]
            if host["Runtime"] != default:
                raise NotImplementedHere(OWN_KERNEL)

    async def _check_runtime(self, runtime: str) -> None:
        """Raises ``EngineError`` for another than Podman's default, which it would use without a word."""
        known = engine.classes("podman", await self._client.call("GET", "info"))
        if runtime not in known:
            raise EngineError(f"This engine runs containers with {', '.join(known) or 'its default'}, not {runtime}.")

    async def _post(
        self, uuid: str, verb: str, params: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> Any:
        path = f"containers/{await self._find(uuid)}/{verb}"
        return await self._client.call("POST", path, params=params, body=body, missing=holdings.gone(uuid))

    def _resizer(self, path: str) -> streams.Resize:
        async def resize(width: int, height: int) -> None:
            await self._client.call("POST", f"{path}/resize", params={"w": str(width), "h": str(height)})

        return resize
