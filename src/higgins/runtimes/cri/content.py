"""What an image is made of in containerd's own stores: blobs by digest, and a name that keeps them.

What is made is held by a lease until the image's record points at it: containerd collects what nothing points at.
"""

import asyncio
import hashlib
import json
import uuid as uuids
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as cri

from higgins.images import packing
from higgins.images.base import ImageFiles
from higgins.images.packing import chunks
from higgins.model.errors import ContainerGone, EngineError, ImageNotFound
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.containerd import Containerd, entries, message
from higgins.runtimes.pulls import canonical

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
#: Actions of containerd's Content/Write.
_WRITE, _COMMIT = 1, 2
#: How long the parts of what was interrupted stay, and how long (seconds) CRI may take to see a new image.
_LEASE, _SEEN = timedelta(hours=2), 30


def digest_of(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


async def load(client: Client, image: ImageFiles, name: str) -> None:
    """Let ``name`` (in full) mean the image. Layers are stored as they are, so that equal ones are one blob."""
    containerd = await client.containerd()
    async with lease_of(containerd) as lease:
        for layer, path in zip(image.parts.layers, image.paths, strict=True):
            await _keep(containerd, layer.digest, layer.size, path, lease)
        config = image.parts.config
        await store(containerd, config, {}, lease)
        layers = [{"mediaType": LAYER, "digest": one.digest, "size": one.size} for one in image.parts.layers]
        blob = await store_manifest(
            containerd,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": image.parts.id, "size": len(config)},
                "layers": layers,
            },
            lease,
        )
        await name_image(containerd, name, blob)
    await seen(client, name, image.parts.id)


async def image_of(containerd: Containerd, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
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
    raise EngineError(f"The image {name} is not on this host any more.")


@asynccontextmanager
async def save(client: Client, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """An image as an archive of docker save, layers as they are stored: plain, or compressed by gzip."""
    containerd = await client.containerd()
    try:
        manifest, _ = await image_of(containerd, canonical(name))
    except ContainerGone as error:
        raise ImageNotFound(f"Image {name} is not on this host.") from error
    yield _archive(containerd, manifest, name)


async def _archive(containerd: Containerd, manifest: dict[str, Any], name: str) -> AsyncIterator[bytes]:
    config = await containerd.read(manifest["config"]["digest"])
    named = {f"{one['digest'].removeprefix('sha256:')}/layer.tar": one for one in manifest["layers"]}
    files = [f"{one['digest'].removeprefix('sha256:')}/layer.tar" for one in manifest["layers"]]
    config_name = f"{digest_of(config).removeprefix('sha256:')}.json"
    yield packing.member(config_name, config)
    for file, layer in named.items():
        yield packing.head(file, layer["size"])
        async for piece in containerd.pieces(layer["digest"]):
            yield piece
        yield packing.padding(layer["size"])
    listed = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": files}]).encode()
    yield packing.member("manifest.json", listed) + packing.END


async def store_manifest(containerd: Containerd, manifest: dict[str, Any], lease: str) -> bytes:
    """The manifest as it is stored. What it points at is told to the collector by its labels."""
    blob = json.dumps(manifest).encode()
    kept = {f"containerd.io/gc.ref.content.l.{at}": one["digest"] for at, one in enumerate(manifest["layers"])}
    await store(containerd, blob, kept | {"containerd.io/gc.ref.content.config": manifest["config"]["digest"]}, lease)
    return blob


@asynccontextmanager
async def lease_of(containerd: Containerd) -> AsyncIterator[str]:
    """A lease for what is made inside."""
    lease = f"higgins-{uuids.uuid4()}"
    expires = (datetime.now(UTC) + _LEASE).strftime("%Y-%m-%dT%H:%M:%SZ")
    request = message["Lease"](id=lease, labels=entries({"containerd.io/gc.expire": expires}))
    await containerd.ask("leases.v1.Leases/Create", request, "Empty")
    try:
        yield lease
    finally:
        await containerd.ask("leases.v1.Leases/Delete", message["Lease"](id=lease), "Empty")


async def _keep(containerd: Containerd, digest: str, size: int, path: Path, lease: str) -> None:
    """Have a layer in the content store, for as long as the lease."""
    if await _held(containerd, digest, lease):
        return

    async def parts() -> AsyncIterator[Any]:
        named = {"ref": f"{lease}-{digest}", "total": size, "expected": digest}
        offset = 0
        async for piece in chunks(path):
            yield message["WriteContent"](action=_WRITE, offset=offset, data=piece, **named)
            offset += len(piece)
        yield message["WriteContent"](action=_COMMIT, offset=offset, **named)

    try:
        await containerd.write(parts(), lease)
    except EngineError:
        if not await _held(containerd, digest, lease):  # else somebody else stored it meanwhile
            raise


async def _held(containerd: Containerd, digest: str, lease: str) -> bool:
    """Whether the content store has a blob. From now on the lease keeps it there."""
    resource = message["Resource"](id=digest, type="content")
    await containerd.ask("leases.v1.Leases/AddResource", message["AddResource"](id=lease, resource=resource), "Empty")
    try:
        await containerd.ask("content.v1.Content/Info", message["ContentDigest"](digest=digest), "Empty")
    except ContainerGone:
        return False
    return True


async def store(containerd: Containerd, blob: bytes, labels: dict[str, str], lease: str) -> None:
    """Have a small blob in the content store, with labels if it is new there."""
    if await _held(containerd, digest_of(blob), lease):
        return
    write = message["WriteContent"]
    named = {"ref": f"{lease}-{digest_of(blob)}", "total": len(blob), "expected": digest_of(blob)}
    last = write(action=_COMMIT, offset=len(blob), labels=entries(labels), **named)
    await containerd.write(iter((write(action=_WRITE, data=blob, **named), last)), lease)


async def name_image(containerd: Containerd, name: str, manifest: bytes) -> None:
    """Let ``name`` mean the manifest; an image that had the name loses it."""
    target = message["Descriptor"](media_type=MANIFEST, digest=digest_of(manifest), size=len(manifest))
    request = message["OneImage"](image=message["Image"](name=name, target=target))
    try:
        await containerd.ask("images.v1.Images/Get", message["ImageName"](name=name), "OneImage")
    except ContainerGone:
        await containerd.ask("images.v1.Images/Create", request, "OneImage")
    else:
        await containerd.ask("images.v1.Images/Update", request, "OneImage")


async def seen(client: Client, name: str, image_id: str) -> None:
    """Wait until CRI, which hears of new images by an event, knows it."""
    request = cri.ImageStatusRequest(image=cri.ImageSpec(image=name))
    try:
        async with asyncio.timeout(_SEEN):
            # The engine has nothing to wait on.
            while (await client.ask(client.image.ImageStatus, request, name)).image.id != image_id:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise EngineError(f"The container engine does not show the new image {name}.") from error
