"""Life-cycle events: containerd's own from 1.6 on, CRI's from other engines."""

import asyncio
from collections.abc import AsyncIterator

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import ContainerGone, EngineUnavailable
from higgins.runtimes.base import Event
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.config import PREFIX
from higgins.runtimes.cri.errors import translated

#: Of processes run by ``exec``: nothing that a list shows.
_UNSEEN = {"/tasks/exec-added", "/tasks/exec-started", "/tasks/create"}
#: Seconds within which CRI's own state follows an exit, and between looks at it.
_SETTLE, _LOOK = 10.0, 0.02


async def events(client: Client) -> AsyncIterator[Event]:
    """From now on until the engine goes away, which raises ``EngineUnavailable``."""
    if await client.is_containerd():
        async for event in _from_containerd(client):
            yield event
    else:
        async for event in _from_cri(client):
            yield event
    raise EngineUnavailable("The container engine of this host has ended its events.")


async def _from_containerd(client: Client) -> AsyncIterator[Event]:
    containerd = await client.containerd()
    sandboxes = await _sandboxes_by_id(client)
    async for topic, container_id, process in containerd.task_events():
        if topic in _UNSEEN or (topic == "/tasks/exit" and process != container_id):
            continue
        if container_id not in sandboxes:
            sandboxes = await _sandboxes_by_id(client)
        sandbox = sandboxes.get(container_id)
        if sandbox is None:
            continue  # not ours
        if topic == "/tasks/exit":
            await _settled(client, container_id)
        yield Event(sandbox)


async def _sandboxes_by_id(client: Client) -> dict[str, str]:
    """The uuid of the sandbox that each id of the engine, a sandbox's or a container's, belongs to."""
    held = [*await client.sandboxes(), *await client.containers()]
    return {one.id: one.labels[PREFIX + "sandbox"] for one in held}


async def _settled(client: Client, container_id: str) -> None:
    """Wait until CRI has seen the exit too: it learns of it at the same moment as we do, and is looked at next."""
    try:
        async with asyncio.timeout(_SETTLE):
            while (await client.status(container_id)).status.state == cri.CONTAINER_RUNNING:
                await asyncio.sleep(_LOOK)
    except ContainerGone:
        return  # removed already, or a sandbox's own process
    except TimeoutError:
        return  # the agent's regular comparison finds it


async def _from_cri(client: Client) -> AsyncIterator[Event]:
    with translated("the engine"):
        async for event in client.runtime.GetContainerEvents(cri.GetEventsRequest()):
            labels = event.pod_sandbox_status.labels
            if PREFIX + "sandbox" in labels:
                yield Event(labels[PREFIX + "sandbox"])
