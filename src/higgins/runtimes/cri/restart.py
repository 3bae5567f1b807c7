"""Starting a container, again if need be, with the files that it has written.

CRI knows no way from exited back to running. So an exited container is made anew from its specification, image and
limits, as the same incarnation under the next attempt number, and before its first task the two containers' records
in containerd swap snapshots: the new one has the files, the old one is removed with the empty snapshot that the new
one was born with. Each step can be found half-done and is finished by the next ``start``:

* made anew, not swapped: the new record still has the snapshot named after itself, and the old container is there;
* swapped in one record only: both records name one snapshot, and the old one gets the other;
* swapped, but for the volumes of the image: those are moved one by one, each at once;
* swapped, not removed: the old container has nothing worth keeping.

The new one's sandbox is the newest: after a reboot of the host the old sandbox has ended and another has been made,
and the container moves there. An engine that is not containerd keeps no files over a stop.
"""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as cri

from higgins.runtimes.base import EngineContainer
from higgins.runtimes.cri import classes
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.containerd import Containerd


async def adopt_files(containerd: Containerd, new: str, old: str) -> None:
    """Let the container ``new``, which has had no task yet, have the snapshot of ``old``. Engine's ids."""
    record, older = await containerd.container(new), await containerd.container(old)
    if record.snapshot_key == new:  # still the one that it was born with
        record.snapshot_key = older.snapshot_key
        await containerd.change_container(record, "snapshotkey")
    if older.snapshot_key == record.snapshot_key:
        older.snapshot_key = new
        await containerd.change_container(older, "snapshotkey")


async def adopt_volumes(containerd: Containerd, new: str, old: str) -> None:
    """Let ``new`` have what ``old`` keeps for the ``VOLUME`` places of their image. Done already is done.

    CRI keeps each in a directory of the container's own, below ``containers/<id>/volumes``, and removes them with it.
    """
    fresh, kept = _volumes(await containerd.container(new)), _volumes(await containerd.container(old))
    for destination, source in kept.items():
        if source.exists() and destination in fresh:
            await asyncio.to_thread(_replace, source, fresh[destination])


def _volumes(record: Any) -> dict[str, Path]:
    mounts = json.loads(record.spec.value).get("mounts") or ()
    own = f"/containers/{record.id}/volumes/"
    return {one["destination"]: Path(one["source"]) for one in mounts if own in one.get("source", "")}


def _replace(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    source.rename(target)


async def limit_processes(containerd: Containerd, engine_id: str, limit: int) -> None:
    """Bound the processes of the next task. CRI has no field for it."""
    record = await containerd.container(engine_id)
    oci: dict[str, Any] = json.loads(record.spec.value)
    resources = oci.setdefault("linux", {}).setdefault("resources", {})
    if resources.get("pids") != {"limit": limit}:
        resources["pids"] = {"limit": limit}
        await _write_spec(containerd, record, oci)


async def limit_next_task(containerd: Containerd, engine_id: str, limits: cri.LinuxContainerResources) -> None:
    """New limits for a container that has no task now: CRI changes only those that have one."""
    record = await containerd.container(engine_id)
    oci: dict[str, Any] = json.loads(record.spec.value)
    resources = oci.setdefault("linux", {}).setdefault("resources", {})
    resources["cpu"] = resources.get("cpu", {}) | {
        "period": limits.cpu_period,
        "quota": limits.cpu_quota,
        "shares": limits.cpu_shares,
    }
    resources["memory"] = resources.get("memory", {}) | {"limit": limits.memory_limit_in_bytes}
    resources["memory"].pop("swap", None)
    await _write_spec(containerd, record, oci)


async def start(client: Client, new: cri.Container, older: Sequence[cri.Container], spec: EngineContainer) -> None:
    """The last steps: hand the container over to its class, take over the files of the newest of ``older``, remove
    those, bound processes, start."""
    if await client.is_containerd():
        containerd = await client.containerd()
        await classes.hand_over(client, new.id, spec)
        if older:
            await adopt_files(containerd, new.id, older[-1].id)
            await adopt_volumes(containerd, new.id, older[-1].id)
        if spec.pids:
            await limit_processes(containerd, new.id, spec.pids)
    for one in older:
        await client.ask(client.runtime.RemoveContainer, cri.RemoveContainerRequest(container_id=one.id))
    await run(client, new.id, spec)


async def bound(client: Client, engine_id: str, spec: EngineContainer) -> None:
    """Bound the processes of a container that was just made, since its start has nothing beside it to wait for."""
    if spec.pids and await client.is_containerd():
        await limit_processes(await client.containerd(), engine_id, spec.pids)


async def run(client: Client, engine_id: str, spec: EngineContainer) -> None:
    """CRI's own start. Raises ``EngineError`` with a sentence about the command where it could not be started."""
    words = " ".join((*(spec.entrypoint or ()), *spec.command)) or "of the image"
    await client.ask(
        client.runtime.StartContainer,
        cri.StartContainerRequest(container_id=engine_id),
        f"container {spec.uuid}",
        timeout=None,
        failed=f"The command {words} could not be started",
    )


async def _write_spec(containerd: Containerd, record: Any, oci: dict[str, Any]) -> None:
    record.spec.value = json.dumps(oci).encode()
    await containerd.change_container(record, "spec")
