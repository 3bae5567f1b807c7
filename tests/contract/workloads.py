"""Short ways to make a workload and to look into it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import uuid4

from higgins.model.errors import ContainerGone
from higgins.runtimes.base import EngineContainer, LogOptions, Observed, Runtime, SandboxSpec
from tests.engines import DEADLINE

#: The uuid of the container, and of the sandbox, that tests share.
SHARED = "5ba2ed00-0000-4000-8000-000000000000"

SLEEP = ("sleep", "3600")


T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T | None]], what: str = "") -> T:
    """The first answer that is neither None nor False."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await look()
            if found is not None and found is not False:
                return found
            await asyncio.sleep(0.02)


async def observe(runtime: Runtime, uuid: str, incarnation: int | None = None) -> Observed:
    """The container as the engine holds it. Raises ``ContainerGone``."""
    for container in (await runtime.list()).containers:
        if container.uuid == uuid and incarnation in (None, container.incarnation):
            return container
    raise ContainerGone(uuid)


async def ended(runtime: Runtime, uuid: str) -> Observed:
    """The container once it has exited."""

    async def look() -> Observed | None:
        seen = await observe(runtime, uuid)
        return seen if seen.state == "exited" else None

    return await until(look)


async def output(runtime: Runtime, uuid: str, **options: Any) -> tuple[bytes, bytes]:
    """What the container wrote: stdout and stderr."""
    written = {1: b"", 2: b""}
    async for chunk in runtime.logs(uuid, LogOptions(**options)):
        written[chunk.stream] += chunk.data
    return written[1], written[2]


async def run(
    runtime: Runtime, uuid: str, *command: str, stdin: bytes | None = None
) -> tuple[int | None, bytes, bytes]:
    """Execute in the container to the end: exit code, stdout, stderr."""
    terminal = await runtime.exec(uuid, command, stdin=stdin is not None)
    try:
        if stdin is not None:
            await terminal.write(stdin)
            await terminal.close_stdin()
        written = {1: b"", 2: b""}
        while (chunk := await terminal.read()) is not None:
            written[chunk.stream] += chunk.data
        return await terminal.exit_code(), written[1], written[2]
    finally:
        await terminal.close()


async def sh(runtime: Runtime, uuid: str, script: str) -> str:
    """The output of a shell script that must succeed."""
    code, out, err = await run(runtime, uuid, "sh", "-c", script)
    assert code == 0, (code, out, err)
    return out.decode()


class Workloads:
    """Makes sandboxes and containers with names of their own."""

    def __init__(self, runtime: Runtime, image: str) -> None:
        self.runtime = runtime
        self.image = image

    async def sandbox(self, **spec: Any) -> str:
        """A new sandbox's uuid."""
        wish: dict[str, Any] = {"uuid": str(uuid4()), "project_id": "demo"}
        made = await self.runtime.create_sandbox(SandboxSpec(**(wish | spec)))
        return made.uuid

    def spec(self, sandbox: str, *command: str, **spec: Any) -> EngineContainer:
        """A container of a new uuid, not made yet."""
        wish: dict[str, Any] = {
            "uuid": str(uuid4()),
            "incarnation": 1,
            "project_id": "demo",
            "image": self.image,
        } | spec
        return EngineContainer(sandbox=sandbox, command=command, **wish)

    async def create(self, *command: str, **spec: Any) -> str:
        """The uuid of a container that was made in a sandbox of its own, and not started."""
        container = self.spec(spec.pop("sandbox", None) or await self.sandbox(), *(command or SLEEP), **spec)
        await self.runtime.create(container)
        return container.uuid

    async def start(self, *command: str, **spec: Any) -> str:
        """The uuid of a container that was started."""
        uuid = await self.create(*command, **spec)
        await self.runtime.start(uuid)
        return uuid

    async def finish(self, *command: str, **spec: Any) -> Observed:
        """A container that ran to its end."""
        return await ended(self.runtime, await self.start(*command, **spec))

    async def shared(self) -> str:
        """The shared container's uuid, made again where a test broke it."""
        seen = (await self.runtime.list(SHARED)).containers
        if [container.state for container in seen] != ["running"]:
            await self.runtime.remove_sandbox(SHARED)
            await self.runtime.create_sandbox(SandboxSpec(uuid=SHARED, project_id="demo"))
            await self.runtime.create(self.spec(SHARED, *SLEEP, uuid=SHARED))
            await self.runtime.start(SHARED)
        return SHARED
