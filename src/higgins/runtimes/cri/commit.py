"""An image of what a container has become: one layer more on its own image, made by containerd.

What is made is held by a lease until the image's record points at it: containerd collects what nothing points at.
"""

import asyncio
import hashlib
import json
import uuid as uuids
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import ContainerGone, EngineError, NotImplementedHere
from higgins.runtimes.cri import users
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.containerd import Containerd, entries, message
from higgins.runtimes.cri.images import check_name
from higgins.runtimes.pulls import canonical, check_free

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
#: Actions of containerd's Content/Write.
_WRITE, _COMMIT = 1, 2
#: How long an interrupted commit's parts stay, and how long (seconds) CRI may take to see a new image.
_LEASE, _SEEN = timedelta(hours=2), 30


def with_layer(image: dict[str, Any], diff_id: str, now: datetime) -> dict[str, Any]:
    """An image's configuration with one layer more."""
    stamp = now.isoformat().replace("+00:00", "Z")
    return image | {
        "created": stamp,
        "rootfs": {"type": "layers", "diff_ids": [*image["rootfs"]["diff_ids"], diff_id]},
        "history": [*(image.get("history") or ()), {"created": stamp, "created_by": "commit"}],
    }


def digest_of(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


async def commit(client: Client, container: cri.Container, name: str) -> str:
    """Make the image ``name`` of the container's file system as it is now; the image's id."""
    check_name(name)
    check_free(name, await client.pause_image())
    containerd = await client.containerd()
    if users.of(container.annotations) is not None:
        raise NotImplementedHere("No image can be made of a container in a user namespace on this host.")
    record = await containerd.container(container.id)
    manifest, image = await _image_of(containerd, container.image_ref)
    async with _lease(containerd) as lease:
        layer = await _layer(containerd, record, lease)
        config = json.dumps(with_layer(image, layer.digest, datetime.now(UTC))).encode()
        await _store(containerd, config, {}, lease)
        layers = [*manifest["layers"], {"mediaType": _LAYER, "digest": layer.digest, "size": layer.size}]
        manifest = manifest | {
            "mediaType": _MANIFEST,
            "config": manifest["config"] | {"digest": digest_of(config), "size": len(config)},
            "layers": layers,
        }
        blob = json.dumps(manifest).encode()
        # What a manifest points at is told to the collector by its labels.
        kept = {f"containerd.io/gc.ref.content.l.{at}": one["digest"] for at, one in enumerate(layers)}
        await _store(containerd, blob, kept | {"containerd.io/gc.ref.content.config": digest_of(config)}, lease)
        await _name(containerd, canonical(name), blob)
    await _seen(client, canonical(name), digest_of(config))
    return digest_of(config)


async def _image_of(containerd: Containerd, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and configuration of an image on this host. Of several platforms', the one that is here whole.

    CRI keeps each image under its id as well, which goes on meaning it when a tag has moved.
    """
    found = await containerd.ask("images.v1.Images/Get", message["ImageName"](name=name), "OneImage")
    pending = [str(found.image.target.digest)]
    while pending:
        try:
            document: dict[str, Any] = json.loads(await containerd.read(pending.pop(0)))
            if "layers" in document:
                return document, json.loads(await containerd.read(document["config"]["digest"]))
        except ContainerGone:
            continue  # another platform's
        pending.extend(one["digest"] for one in document.get("manifests", ()))
    raise EngineError(f"The image {name} of the container is not on its host any more.")


@asynccontextmanager
async def _lease(containerd: Containerd) -> AsyncIterator[str]:
    lease = f"higgins-commit-{uuids.uuid4()}"
    expires = (datetime.now(UTC) + _LEASE).strftime("%Y-%m-%dT%H:%M:%SZ")
    request = message["Lease"](id=lease, labels=entries({"containerd.io/gc.expire": expires}))
    await containerd.ask("leases.v1.Leases/Create", request, "Empty")
    try:
        yield lease
    finally:
        await containerd.ask("leases.v1.Leases/Delete", message["Lease"](id=lease), "Empty")


async def _layer(containerd: Containerd, record: Any, lease: str) -> Any:
    """The descriptor of what the container's snapshot has beyond its image, as an uncompressed tar."""
    snapshotter, key = record.snapshotter, record.snapshot_key
    named = message["Snapshot"](snapshotter=snapshotter, key=key)
    parent = (await containerd.ask("snapshots.v1.Snapshots/Stat", named, "SnapshotStat")).info.parent
    view = message["Snapshot"](snapshotter=snapshotter, key=lease, parent=parent)
    left = (await containerd.ask("snapshots.v1.Snapshots/View", view, "Mounts", lease=lease)).mounts
    try:
        return await containerd.diff(left, await containerd.mounts(snapshotter, key), _LAYER, lease)
    finally:
        gone = message["Snapshot"](snapshotter=snapshotter, key=lease)
        await containerd.ask("snapshots.v1.Snapshots/Remove", gone, "Empty")


async def _store(containerd: Containerd, blob: bytes, labels: dict[str, str], lease: str) -> None:
    write = message["WriteContent"]
    named = {"ref": f"{lease}-{digest_of(blob)}", "total": len(blob), "expected": digest_of(blob)}
    last = write(action=_COMMIT, offset=len(blob), labels=entries(labels), **named)
    await containerd.write([write(action=_WRITE, data=blob, **named), last], lease)


async def _name(containerd: Containerd, name: str, manifest: bytes) -> None:
    """Let ``name`` mean the manifest; an image that had the name loses it."""
    target = message["Descriptor"](media_type=_MANIFEST, digest=digest_of(manifest), size=len(manifest))
    request = message["OneImage"](image=message["Image"](name=name, target=target))
    try:
        await containerd.ask("images.v1.Images/Get", message["ImageName"](name=name), "OneImage")
    except ContainerGone:
        await containerd.ask("images.v1.Images/Create", request, "OneImage")
    else:
        await containerd.ask("images.v1.Images/Update", request, "OneImage")


async def _seen(client: Client, name: str, image_id: str) -> None:
    """Wait until CRI, which hears of new images by an event, knows it."""
    request = cri.ImageStatusRequest(image=cri.ImageSpec(image=name))
    try:
        async with asyncio.timeout(_SEEN):
            # The engine has nothing to wait on.
            while (await client.ask(client.image.ImageStatus, request, name)).image.id != image_id:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise EngineError(f"The container engine does not show the new image {name}.") from error
