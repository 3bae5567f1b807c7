"""What of ours is on the engine: finding one container, or all, by label."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from higgins.model.errors import ContainerGone
from higgins.runtimes.base import Holdings
from higgins.runtimes.docker import config, state
from higgins.runtimes.docker.client import Client

#: Looks that go on at once; more would only queue in the engine.
AT_ONCE = 16
#: Seconds that a removal is waited for, and between looks at it.
REMOVAL = 10.0
LOOK_EVERY = 0.05


def gone(uuid: str) -> ContainerGone:
    return ContainerGone(f"The container {uuid} is not on this host.")


def by_label(labels: dict[str, str]) -> dict[str, str]:
    """The query of a list call for everything with all of these labels."""
    return {"all": "1", "filters": json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})}


def ours(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those entries of the engine's list that we made."""
    return [entry for entry in entries if config.is_ours(entry["Names"][0].lstrip("/"), entry["Labels"])]


def newest(entries: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The entry of the highest incarnation."""
    return max(entries, key=lambda entry: int(entry["Labels"][config.INCARNATION]), default=None)


async def members(client: Client, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Entries of the engine's list, of containers with these labels."""
    return ours(await client.call("GET", "containers/json", params=by_label({config.KIND: "container"} | labels)))


async def find(client: Client, uuid: str) -> str:
    """The engine's id of the container's newest incarnation. Raises ``ContainerGone``."""
    entry = newest(await members(client, {config.UUID: uuid}))
    if entry is None:
        raise gone(uuid)
    return str(entry["Id"])


async def inspect(client: Client, container: str, missing: ContainerGone) -> dict[str, Any]:
    return dict(await client.call("GET", f"containers/{container}/json", missing=missing))


async def _come_to_rest(client: Client, container: str) -> dict[str, Any]:
    """What the engine holds of it once nobody removes it any more: one that goes away is no container in trouble."""
    patience = asyncio.get_running_loop().time() + REMOVAL
    while True:
        payload = await inspect(client, container, gone(container))
        if payload["State"]["Status"] != "removing" or asyncio.get_running_loop().time() > patience:
            return payload
        await asyncio.sleep(LOOK_EVERY)


async def everything(client: Client, sandbox: str | None) -> Holdings:
    """One list call, and one look at each thing it names: the list knows neither process ids nor exit codes."""
    labels = {config.SANDBOX: sandbox} if sandbox is not None else {}
    params = by_label(labels)
    if sandbox is None:
        params["filters"] = json.dumps({"label": [config.KIND]})
    entries = ours(await client.call("GET", "containers/json", params=params))
    slots = asyncio.Semaphore(AT_ONCE)

    async def look(entry: dict[str, Any]) -> dict[str, Any] | None:
        async with slots:
            try:
                return await _come_to_rest(client, entry["Id"])
            except ContainerGone:  # it went between the two calls
                return None

    found = [payload for payload in await asyncio.gather(*map(look, entries)) if payload is not None]
    kinds = [(state.label(payload, config.KIND), payload) for payload in found]
    return Holdings(
        sandboxes=tuple(state.sandbox(payload) for kind, payload in kinds if kind == "sandbox"),
        containers=tuple(state.observed(payload) for kind, payload in kinds if kind == "container"),
    )
