"""Life-cycle events: containerd's own, CRI's from other engines, and where these have none the changes of the lists."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import ContainerGone, EngineUnavailable, NotImplementedHere
from higgins.runtimes.base import Event
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.config import OURS, PREFIX
from higgins.runtimes.cri.errors import translated

#: Of processes run by ``exec``, and of changes that we make ourselves and no list shows.
_UNSEEN = {"/tasks/exec-added", "/tasks/exec-started", "/tasks/create", "/containers/update"}
_GONE, _EXIT = "/containers/delete", "/tasks/exit"
#: Seconds within which CRI's own state follows an exit, and between looks at it.
_SETTLE, _LOOK = 10.0, 0.02
#: Seconds between two lists where they are all there is.
_RELIST = 1.0


async def events(client: Client) -> AsyncIterator[Event]:
    """From now on until the engine goes away, which raises ``EngineUnavailable``."""
    if await client.is_containerd():
        async for event in _from_containerd(client):
            yield event
    else:
        try:
            async for event in _from_cri(client):
                yield event
        except NotImplementedHere:
            async for event in _from_lists(client):
                yield event
    raise EngineUnavailable("The container engine of this host has ended its events.")


async def _from_containerd(client: Client) -> AsyncIterator[Event]:
    """Each event once CRI has seen it too. What one waits for holds up none of the others."""
    told: asyncio.Queue[str | None] = asyncio.Queue()
    settling: set[asyncio.Task[None]] = set()

    async def settle(engine_id: str, topic: str, sandbox: str) -> None:
        await _settled(client, engine_id, topic)
        told.put_nowait(sandbox)

    def done(task: asyncio.Task[None]) -> None:
        settling.discard(task)
        if not task.cancelled() and task.exception() is not None:
            failed.append(task)
            told.put_nowait(None)

    async def listen() -> None:
        async for engine_id, topic, sandbox in _of_ours(client):
            if topic in (_EXIT, _GONE):
                task = asyncio.create_task(settle(engine_id, topic, sandbox))
                settling.add(task)
                task.add_done_callback(done)
            else:
                told.put_nowait(sandbox)

    failed: list[asyncio.Task[None]] = []
    listening = asyncio.create_task(listen())
    listening.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (sandbox := await told.get()) is not None:
            yield Event(sandbox)
        for task in (*failed, listening):
            if task.done():
                await task  # raises what it failed with
    finally:
        for task in (listening, *settling):
            task.cancel()
        await asyncio.gather(listening, *settling, return_exceptions=True)


async def _of_ours(client: Client) -> AsyncIterator[tuple[str, str, str]]:
    """(engine's id, topic, uuid of the sandbox) of what containerd tells of our containers."""
    containerd = await client.containerd()
    # One that is removed can be asked about no more: who they all are is known before.
    sandboxes: dict[str, str] = await _sandboxes_by_id(client)
    async for topic, container_id, process in containerd.life_events():
        if topic in _UNSEEN or (topic == _EXIT and process != container_id):
            continue
        if container_id not in sandboxes:
            with suppress(ContainerGone):
                # CRI's labels are containerd's too, where a new container is seen before CRI tells of it.
                labels = {one.key: one.value for one in (await containerd.container(container_id)).labels}
                if labels.get(OURS):
                    sandboxes[container_id] = labels[PREFIX + "sandbox"]
        sandbox = sandboxes.get(container_id)
        if sandbox is None:
            continue  # not ours
        if topic == _GONE:
            del sandboxes[container_id]
        yield container_id, topic, sandbox


async def _sandboxes_by_id(client: Client) -> dict[str, str]:
    """The uuid of the sandbox that each id of the engine, a sandbox's or a container's, belongs to."""
    sandboxes = {one.id: one.labels[PREFIX + "sandbox"] for one in await client.sandboxes()}
    return sandboxes | {one.id: one.labels[PREFIX + "sandbox"] for one in await client.containers()}


async def _settled(client: Client, engine_id: str, topic: str) -> None:
    """Wait until CRI has seen it too: it learns of it at the same moment as we do, and is looked at next.

    What takes longer than it ever should is found by the agent's regular comparison.
    """
    with suppress(ContainerGone, TimeoutError):
        async with asyncio.timeout(_SETTLE):
            while await _lags(client, engine_id, topic):  # noqa: ASYNC110  there is nothing to wait on
                await asyncio.sleep(_LOOK)


async def _lags(client: Client, engine_id: str, topic: str) -> bool:
    """Whether CRI still tells what was before. Raises ``ContainerGone`` once it knows nothing of the id."""
    try:
        now = (await client.status(engine_id)).status.state
    except ContainerGone:
        status = (await client.sandbox_status(engine_id)).status
        return topic == _GONE or status.state == cri.SANDBOX_READY
    if topic == _GONE:
        return not await _has_record(client, engine_id)
    return now == cri.CONTAINER_RUNNING


async def _has_record(client: Client, engine_id: str) -> bool:
    """Whether a container's record is there again after it went away, as when it is handed over to its class."""
    try:
        await (await client.containerd()).container(engine_id)
    except ContainerGone:
        return False
    return True


async def _from_cri(client: Client) -> AsyncIterator[Event]:
    with translated("the engine"):
        async for event in client.runtime.GetContainerEvents(cri.GetEventsRequest()):
            labels = event.pod_sandbox_status.labels
            if PREFIX + "sandbox" in labels:
                yield Event(labels[PREFIX + "sandbox"])


async def _from_lists(client: Client) -> AsyncIterator[Event]:
    before = await _states(client)
    while True:
        await asyncio.sleep(_RELIST)
        now = await _states(client)
        for sandbox in {sandbox for _, _, sandbox in before ^ now}:
            yield Event(sandbox)
        before = now


async def _states(client: Client) -> set[tuple[str, int, str]]:
    """(engine's id, state, uuid of the sandbox) of all that is held."""
    sandboxes = {(one.id, int(one.state), one.labels[PREFIX + "sandbox"]) for one in await client.sandboxes()}
    return sandboxes | {(one.id, int(one.state), one.labels[PREFIX + "sandbox"]) for one in await client.containers()}
