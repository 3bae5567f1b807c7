"""Making containers be there and be gone, so that each may be asked for twice, or by two at once."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from higgins.model.errors import ContainerGone, EngineError, EngineUnavailable, HigginsError, SandboxGone
from higgins.runtimes.docker import holdings
from higgins.runtimes.docker.client import PATIENCE, Client
from higgins.runtimes.docker.state import moment

#: Seconds between looks at a container that another call is making or removing.
LOOK_EVERY = 0.05

#: How often Podman is asked to make or remove a container before its error is believed.
PODMAN_TRIES = 20


@asynccontextmanager
async def in_time(sentence: str) -> AsyncIterator[None]:
    """Give up on another call's work, with this sentence, when it takes longer than any call should."""
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError as error:
        raise EngineError(sentence) from error


async def make(client: Client, name: str, body: dict[str, Any], missing: HigginsError) -> bool:
    """Create the container unless one of that name is there; whether that was to do.

    ``missing`` says that its image is not on the host.
    """
    tries = PODMAN_TRIES if await client.is_podman() else 1
    async with in_time(f"The container engine is still busy with {name}."):
        while True:
            try:
                await client.call("POST", "containers/create", params={"name": name}, body=body, missing=missing)
            except EngineUnavailable:
                raise
            except EngineError as error:
                if await exists(client, name):  # whatever has become of its image meanwhile
                    return False
                # 409: the name is taken, perhaps by a call that is not through yet. Then it appears, or this one may
                # try again. Podman says 500 to that, as to much else.
                tries -= status_of(error) != 409
                if error is missing or not tries:
                    raise
                await asyncio.sleep(LOOK_EVERY)
            else:
                return True


def status_of(error: HigginsError) -> int | None:
    """The HTTP status of the engine's answer behind the error."""
    return getattr(error.__cause__, "status", None)


async def exists(client: Client, name: str) -> bool:
    try:
        await holdings.inspect(client, name, holdings.gone(name))
    except ContainerGone:
        return False
    return True


async def start(client: Client, container: str, uuid: str, *, anew: bool = True) -> None:
    """Start it; running already is done. Raises with a sentence about the command where that is at fault.

    An engine that was killed in the middle of a start may refuse every later one of the same container ("task already
    exists"). ``anew``: one that never ran, so that nothing in it is lost, is then made once more and started.
    """
    try:
        await client.call("POST", f"containers/{container}/start", missing=holdings.gone(uuid))
    except EngineUnavailable:
        raise
    except EngineError as error:
        payload = await holdings.inspect(client, container, holdings.gone(uuid))
        if isinstance(error, ContainerGone):  # but it is here, so what is missing is what it joins
            raise SandboxGone(f"The sandbox of the container {uuid} is not on this host.") from error
        sentence = command_fault(payload)
        if sentence is not None:
            raise EngineError(sentence) from error
        if not anew or status_of(error) != 500 or moment(payload["State"].get("StartedAt")):
            raise
        await make_anew(client, payload)
        await start(client, payload["Name"].lstrip("/"), uuid, anew=False)


async def make_anew(client: Client, payload: dict[str, Any]) -> None:
    """Replace a container, known by its inspect payload, with one just like it under another id of the engine's."""
    settings = dict(payload["Config"])
    if payload["HostConfig"]["NetworkMode"].startswith("container:"):
        del settings["Hostname"], settings["Domainname"]  # it has the other's, and the engine refuses to be told so
    missing = ContainerGone(f"The image {settings['Image']} went away from this host.")
    await remove(client, payload["Id"])
    await make(client, payload["Name"].lstrip("/"), {**settings, "HostConfig": payload["HostConfig"]}, missing)


def command_fault(payload: dict[str, Any]) -> str | None:
    """Why the command could not run, by the exit code that shells use for it too: 127 not found, 126 not runnable."""
    what = {126: "cannot be executed", 127: "was not found"}.get(payload["State"]["ExitCode"])
    if what is None:
        return None
    return f"The command {payload['Path']!r} {what} in the image {payload['Config']['Image']}."


async def stop(client: Client, container: str, uuid: str, timeout: float) -> None:
    """Let it end by itself for ``timeout`` seconds. A paused one could not, so it goes on first."""
    missing = holdings.gone(uuid)
    await unpause(client, container, uuid)
    seconds = max(0, math.ceil(timeout))
    params = {"t": str(seconds)}
    await client.call(
        "POST", f"containers/{container}/stop", params=params, missing=missing, patience=PATIENCE + seconds
    )


async def pause(client: Client, container: str, uuid: str) -> None:
    """Freeze its processes. Paused already is done."""
    payload = await holdings.inspect(client, container, holdings.gone(uuid))
    if not payload["State"]["Paused"]:
        await client.call("POST", f"containers/{container}/pause", missing=holdings.gone(uuid))


async def unpause(client: Client, container: str, uuid: str) -> None:
    """Let its processes go on. Not paused is done."""
    payload = await holdings.inspect(client, container, holdings.gone(uuid))
    if payload["State"]["Paused"]:
        await client.call("POST", f"containers/{container}/unpause", missing=holdings.gone(uuid))


async def remove(client: Client, container: str) -> None:
    """Kill and remove it with its anonymous volumes, and see it gone. Gone already is done."""
    missing = holdings.gone(container)
    params = {"force": "1", "v": "1"}
    tries = PODMAN_TRIES if await client.is_podman() else 1
    async with in_time(f"The container engine is still busy with the removal of {container}."):
        while True:
            try:
                await client.call("DELETE", f"containers/{container}", params=params, missing=missing)
            except ContainerGone:
                return
            except EngineError as error:
                # 409: another call is removing it. Podman says 500 to a container that ends just now, too.
                tries -= status_of(error) != 409
                if not tries:
                    raise
                await asyncio.sleep(LOOK_EVERY)
            else:
                return
