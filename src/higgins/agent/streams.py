"""What the control plane asks of this host directly: to look into a container, and to hold images."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from higgins.agent.deliveries import Deliveries
from higgins.control.terminals import OpenTerminals, held
from higgins.model.errors import HostUnavailable
from higgins.model.images import FoundImage
from higgins.runtimes.base import (
    Image,
    LogChunk,
    LogOptions,
    PathStat,
    Processes,
    RegistryAuth,
    Runtime,
    Stats,
    Terminal,
)


class LocalStreams:
    """``HostStreams`` over the engine of this host. Raises what the engine's driver raises.

    ``deliveries`` bring images of the image service, as soon as the host has joined.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.deliveries: Deliveries | None = None
        self._open = OpenTerminals()

    async def logs(self, uuid: str, options: LogOptions) -> AsyncIterator[LogChunk]:
        return self._runtime.logs(uuid, options)

    async def exec(
        self, uuid: str, command: tuple[str, ...], *, tty: bool, stdin: bool, exec_id: str | None = None
    ) -> Terminal:
        terminal = await self._runtime.exec(uuid, command, tty=tty, stdin=stdin)
        return terminal if exec_id is None else await held(self._open, f"{uuid}/{exec_id}", terminal)

    async def attach(self, uuid: str) -> Terminal:
        return await held(self._open, uuid, await self._runtime.attach(uuid))

    async def resize(self, uuid: str, exec_id: str | None, width: int, height: int) -> bool:
        key = uuid if exec_id is None else f"{uuid}/{exec_id}"
        await self._open.resize(key, width, height)
        return key in self._open.terminals

    async def stats(self, uuid: str) -> Stats:
        return await self._runtime.stats(uuid)

    async def top(self, uuid: str, ps_args: str | None) -> Processes:
        return await self._runtime.top(uuid, ps_args)

    def get_archive(self, uuid: str, path: str) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        return self._runtime.get_archive(uuid, path)

    async def put_archive(self, uuid: str, path: str, data: AsyncIterator[bytes]) -> None:
        await self._runtime.put_archive(uuid, path, data)

    async def commit(self, uuid: str, name: str) -> str:
        return await self._runtime.commit(uuid, name)

    def save(self, image: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._runtime.save(image)

    async def pull(self, image: str, auth: RegistryAuth | None) -> Image:
        """The image as its registry has it now."""
        return await self._runtime.pull(image, policy="always", auth=auth)

    async def fetch(self, uuid: str, found: FoundImage) -> Image:
        if self.deliveries is None:
            raise HostUnavailable("The host is starting; try again later.")
        await self.deliveries.bring(uuid, found, "ifnotpresent")
        return await self._runtime.pull(found.engine_name, policy="never")

    async def remove_image(self, name: str) -> None:
        await self._runtime.remove_image(name)

    async def search(self, term: str) -> list[dict[str, Any]]:
        return await self._runtime.search(term)
