"""Looking into a container: what needs its host now. Nothing here is written down but the action of a commit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import Connection

from higgins.control import images
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import require
from higgins.control.link import HostStreams
from higgins.control.lookup import container_row
from higgins.control.recording import record_action
from higgins.control.rows import container_of
from higgins.model.errors import Conflict, HostUnavailable
from higgins.model.resources import Container
from higgins.runtimes.base import LogChunk, LogOptions, PathStat, Processes, Stats

#: The most that the output of a command may take in an answer, in bytes.
_OUTPUT = 16 * 2**20


async def reach(cloud: Cloud, actor: Actor, ident: str, verb: str) -> tuple[Container, HostStreams]:
    """The container and the way to its host. Raises NotFound, InvalidState, HostUnavailable."""

    def work(conn: Connection) -> Container:
        row = container_row(conn, actor, ident, members=True)
        require(row, verb)
        return container_of(row, row.workload_uuid, cloud.now())

    found = await cloud.store.read(work)
    if found.host is None:
        raise HostUnavailable(f"Container {found.uuid} is on no host: {found.status_reason or found.status}")
    return found, await cloud.streams(found.host)


async def logs(cloud: Cloud, actor: Actor, ident: str, options: LogOptions) -> AsyncIterator[LogChunk]:
    found, host = await reach(cloud, actor, ident, "logs")
    return await host.logs(found.uuid, options)


async def execute(cloud: Cloud, actor: Actor, ident: str, command: tuple[str, ...]) -> tuple[str, int]:
    """Run a command to its end; what it wrote on both streams (the last 16 MiB) and its exit code.

    Raises Conflict when it runs longer than the operator allows.
    """
    found, host = await reach(cloud, actor, ident, "execute")
    terminal = await host.exec(found.uuid, command, tty=False, stdin=False)
    try:
        async with asyncio.timeout(cloud.settings.execute_timeout):
            output = bytearray()
            while (chunk := await terminal.read()) is not None:
                output += chunk.data
                if len(output) > 2 * _OUTPUT:
                    del output[:-_OUTPUT]
            code = await terminal.exit_code()
    except TimeoutError:
        raise Conflict(
            f"The command did not end within {cloud.settings.execute_timeout:g} seconds; it is left running."
        ) from None
    finally:
        await terminal.close()
    return bytes(output[-_OUTPUT:]).decode(errors="replace"), -1 if code is None else code


async def stats(cloud: Cloud, actor: Actor, ident: str) -> tuple[Container, Stats]:
    """The container and one sample of what it uses."""
    found, host = await reach(cloud, actor, ident, "stats")
    return found, await host.stats(found.uuid)


async def top(cloud: Cloud, actor: Actor, ident: str, ps_args: str | None) -> Processes:
    found, host = await reach(cloud, actor, ident, "top")
    return await host.top(found.uuid, ps_args)


@asynccontextmanager
async def get_archive(
    cloud: Cloud, actor: Actor, ident: str, path: str
) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
    """A tar of a path in the container, as it comes."""
    found, host = await reach(cloud, actor, ident, "get_archive")
    async with host.get_archive(found.uuid, path) as archive:
        yield archive


async def put_archive(cloud: Cloud, actor: Actor, ident: str, path: str, data: AsyncIterator[bytes]) -> None:
    """Unpack a tar into a directory of the container."""
    found, host = await reach(cloud, actor, ident, "put_archive")
    await host.put_archive(found.uuid, path, data)


async def commit(cloud: Cloud, actor: Actor, ident: str, repository: str, tag: str, token: str = "") -> str:
    """Make an image of the container on its host; the image's uuid here.

    The container's project alone has it by that name, on that host. Raises Invalid for a name that is reserved. In a
    cloud with an image service it becomes an image there, in the name of the owner of ``token``; its id there.
    """
    images.check_image(repository)
    found, host = await reach(cloud, actor, ident, "commit")
    if cloud.depot is not None:
        name = repository if tag == "latest" else f"{repository}:{tag}"
        return await cloud.depot.snapshots.begin(cloud, actor, token, found, host, name)
    reference = images.committed_name(found.project_id, repository, tag)
    image_id = await host.commit(found.uuid, reference)
    image = await images.record(
        cloud, found.project_id, repo=repository, tag=tag, host=found.host or "", reference=reference,
        image_id=image_id,
    )  # fmt: skip
    await cloud.store.write(lambda conn: record_action(conn, cloud, actor, found.uuid, "commit"))
    return image.uuid
