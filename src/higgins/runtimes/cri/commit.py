"""An image of what a container has become: one layer more on its own image, made by containerd."""

import json
from datetime import UTC, datetime
from typing import Any

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import NotImplementedHere
from higgins.runtimes.cri import users
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.containerd import Containerd, message
from higgins.runtimes.cri.content import (
    LAYER,
    MANIFEST,
    digest_of,
    image_of,
    lease_of,
    name_image,
    seen,
    store,
    store_manifest,
)
from higgins.runtimes.cri.images import check_name
from higgins.runtimes.pulls import canonical, check_free


def with_layer(image: dict[str, Any], diff_id: str, now: datetime) -> dict[str, Any]:
    """An image's configuration with one layer more."""
    stamp = now.isoformat().replace("+00:00", "Z")
    return image | {
        "created": stamp,
        "rootfs": {"type": "layers", "diff_ids": [*image["rootfs"]["diff_ids"], diff_id]},
        "history": [*(image.get("history") or ()), {"created": stamp, "created_by": "commit"}],
    }


async def commit(client: Client, container: cri.Container, name: str) -> str:
    """Make the image ``name`` of the container's file system as it is now; the image's id."""
    check_name(name)
    check_free(name, await client.pause_image())
    containerd = await client.containerd()
    if users.of(container.annotations) is not None:
        raise NotImplementedHere("No image can be made of a container in a user namespace on this host.")
    record = await containerd.container(container.id)
    manifest, image = await image_of(containerd, container.image_ref)
    async with lease_of(containerd) as lease:
        layer = await _layer(containerd, record, lease)
        config = json.dumps(with_layer(image, layer.digest, datetime.now(UTC))).encode()
        await store(containerd, config, {}, lease)
        layers = [*manifest["layers"], {"mediaType": LAYER, "digest": layer.digest, "size": layer.size}]
        manifest = manifest | {
            "mediaType": MANIFEST,
            "config": manifest["config"] | {"digest": digest_of(config), "size": len(config)},
            "layers": layers,
        }
        blob = await store_manifest(containerd, manifest, lease)
        await name_image(containerd, canonical(name), blob)
    await seen(client, canonical(name), digest_of(config))
    return digest_of(config)


async def _layer(containerd: Containerd, record: Any, lease: str) -> Any:
    """The descriptor of what the container's snapshot has beyond its image, as an uncompressed tar."""
    snapshotter, key = record.snapshotter, record.snapshot_key
    named = message["Snapshot"](snapshotter=snapshotter, key=key)
    parent = (await containerd.ask("snapshots.v1.Snapshots/Stat", named, "SnapshotStat")).info.parent
    view = message["Snapshot"](snapshotter=snapshotter, key=lease, parent=parent)
    left = (await containerd.ask("snapshots.v1.Snapshots/View", view, "Mounts", lease=lease)).mounts
    try:
        return await containerd.diff(left, await containerd.mounts(snapshotter, key), LAYER, lease)
    finally:
        gone = message["Snapshot"](snapshotter=snapshotter, key=lease)
        await containerd.ask("snapshots.v1.Snapshots/Remove", gone, "Empty")
