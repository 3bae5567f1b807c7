"""Images of the image service on their way to hosts: fetched once for the cloud, checked, and handed on by layer.

Who may use an image is decided when a container is made, with its owner's token. Its bytes are fetched when a host asks
for them, which may be long after that: with that token as long as it is good, and then by a trust of the owner's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import sqlalchemy as sa
from msgspec import structs
from sqlalchemy.engine import Connection

from higgins.control import images
from higgins.control.cloud import Actor, Cloud
from higgins.control.image_owners import Owner, Owners
from higgins.control.rows import spec_decoder
from higgins.control.snapshots import Snapshots
from higgins.images.base import ImageService, Parts
from higgins.images.packing import chunks
from higgins.images.shelf import Shelf
from higgins.model.container import ContainerSpec
from higgins.model.errors import ImagePullFailed, ImageRefused, Invalid, NotFound, Unauthorized
from higgins.model.images import FoundImage
from higgins.model.resources import Image
from higgins.openstack.errors import ServiceUnavailable
from higgins.store.schema import container, image, workload
from higgins.store.schema import host as hosts

LOG = logging.getLogger(__name__)

#: Images that one process fetches at once, and of these for one project.
_AT_ONCE, _FOR_ONE = 4, 2
#: Seconds between two looks for trusts that nobody needs any more.
_TIDY = 300.0

_found = msgspec.json.Decoder(FoundImage)


class Depot:
    """Where the control plane has images. ``service`` is the cloud's; ``shelf`` keeps what was fetched."""

    def __init__(self, service: ImageService, shelf: Shelf) -> None:
        self.service = service
        self.shelf = shelf
        self.owners = Owners(service)
        self.snapshots = Snapshots(service, self.owners)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._turns_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by project
        self._fetching: dict[tuple[FoundImage, Owner], asyncio.Task[Parts]] = {}

    async def close(self) -> None:
        """Give up what is being fetched, which is asked for again, and what is being made."""
        await self.snapshots.close()
        for task in self._fetching.values():
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)

    async def find(self, cloud: Cloud, actor: Actor, token: str, reference: str) -> FoundImage:
        """The image that the caller means, who from now on is acted for to read it."""
        found = await self.service.resolve(reference, token, actor.project_id)
        await self.owners.accept(cloud, actor, token)
        return found

    async def parts(self, cloud: Cloud, found: FoundImage, owner: Owner, timeout: float) -> Parts | None:
        """What the image consists of, once all of it is here; None where that takes more than ``timeout`` seconds.

        It is fetched on meanwhile. Raises ImageNotFound, ImageRefused, and ImagePullFailed where trying again may help.
        """
        known = self.shelf.known(found)
        if known is not None:
            return known
        key = (found, owner)
        task = self._fetching.get(key)
        if task is None:
            task = self._fetching[key] = asyncio.create_task(self._fetch(cloud, found, owner))
            task.add_done_callback(lambda done: self._fetched(key, done))
        done, _ = await asyncio.wait({task}, timeout=timeout)
        return task.result() if done else None

    def _fetched(self, key: tuple[FoundImage, Owner], done: "asyncio.Task[Parts]") -> None:
        self._fetching.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            LOG.warning("Image %s could not be fetched: %s", key[0].id, error)

    async def _fetch(self, cloud: Cloud, found: FoundImage, owner: Owner) -> Parts:
        """With the owner's token if that is remembered and good, else by the owner's trust."""
        try:
            return await self.owners.act(cloud, owner, lambda token: self._with(token, found, owner))
        except Unauthorized as over:
            raise ImageRefused(_NOBODY) from over
        except ServiceUnavailable as error:
            raise ImagePullFailed(str(error)) from error
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ImagePullFailed(f"The control plane cannot store the image {found.name} now: {why}.") from error

    async def _with(self, token: str, found: FoundImage, owner: Owner) -> Parts:
        """A project waits for its own turn before it keeps others from the image, and for one of all only to fetch."""
        mine = self._turns_of.setdefault(owner.project_id, asyncio.Semaphore(_FOR_ONE))
        async with mine:
            return await self.shelf.take_in(found, lambda target: self.service.save(found, token, target), self._turns)

    async def run(self, cloud: Cloud) -> None:
        """Until cancelled: tidy once in a while."""
        while True:
            await asyncio.sleep(_TIDY)
            await self.owners.tidy(cloud)


_NOBODY = "it cannot be read in its owner's name any more; rebuild the container"


def of(cloud: Cloud) -> Depot:
    """Raises Invalid where the cloud has no image service."""
    if cloud.depot is None:
        raise Invalid("image_driver: glance is not set up in this cloud; leave it out, or ask for docker.")
    return cloud.depot


async def pinned(cloud: Cloud, actor: Actor, token: str, spec: ContainerSpec) -> ContainerSpec:
    """The spec with what its image is now, where that is one of the cloud's image service, found with ``token``.

    No transaction is open meanwhile: another service is waited for. Raises Invalid, ImageNotFound (404 …), Conflict,
    ImageRefused, Unauthorized, ServiceUnavailable.
    """
    images.check_image(spec.image)
    if spec.image_driver != "glance":
        return structs.replace(spec, found=None)
    depot = of(cloud)
    if spec.registry_id is not None:
        raise Invalid("registry: an image of the image service comes from no registry.")
    return structs.replace(spec, found=await depot.find(cloud, actor, token, spec.image))


async def pull(cloud: Cloud, actor: Actor, token: str, reference: str, host_name: str) -> Image:
    """Have a host fetch an image that the caller may use, by the host's name or uuid. It is there when this returns."""
    name = await images.host_named(cloud, host_name)
    images.check_image(reference)
    streams = await cloud.streams(name)
    found = await of(cloud).find(cloud, actor, token, reference)
    row: dict[str, Any] = {
        "repo": reference, "tag": "", "host": name, "reference": found.engine_name, "found": found,
        "user_id": actor.user_id,
    }  # fmt: skip
    begun = await images.record(cloud, actor.project_id, **row)
    try:
        fetched = await streams.fetch(begun.uuid, found)
    except BaseException:
        await asyncio.shield(images.forget(cloud, begun.uuid, unless_there=True))
        raise
    return await images.record(cloud, actor.project_id, **row, image_id=fetched.id, size=fetched.size)


async def contents(cloud: Cloud, host: int, uuid: str, timeout: float) -> Parts | None:
    """What the image of a container of this host, or one pulled to it, consists of; see ``Depot.parts``.

    Raises NotFound.
    """
    found, owner = await _wanted(cloud, host, uuid)
    return await of(cloud).parts(cloud, found, owner, timeout)


def layer(cloud: Cloud, host: int, uuid: str, digest: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    """A layer of that image. Raises ImagePullFailed where it was let go of meanwhile."""
    return _layer(cloud, host, uuid, digest)


@asynccontextmanager
async def _layer(cloud: Cloud, host: int, uuid: str, digest: str) -> AsyncIterator[AsyncIterator[bytes]]:
    found, _ = await _wanted(cloud, host, uuid)
    depot = of(cloud)
    parts = depot.shelf.known(found)
    if parts is None:
        raise ImagePullFailed(f"The image {found.name} is not at hand any more; it is fetched again.")
    if digest not in {one.digest for one in parts.layers}:
        raise NotFound("layer", digest)
    with depot.shelf.hold(parts):
        yield chunks(depot.shelf.place(digest))


async def _wanted(cloud: Cloud, host: int, uuid: str) -> tuple[FoundImage, Owner]:
    """Which image a container of this host has, or was pulled to it as ``uuid``, and whose it is."""
    of_container = (
        sa.select(container.c.spec, container.c.project_id, container.c.user_id)
        .join(workload, workload.c.id == container.c.workload_id)
        .where(container.c.uuid == uuid, workload.c.host_id == host)
    )
    pulled = (
        sa.select(image.c.found, image.c.project_id, image.c.user_id)
        .join(hosts, hosts.c.name == image.c.host)
        .where(image.c.uuid == uuid, hosts.c.id == host, image.c.found.is_not(None))
    )

    def look(conn: Connection) -> tuple[FoundImage | None, Any]:
        row = conn.execute(of_container).one_or_none()
        if row is not None:
            return spec_decoder.decode(row.spec).found, row
        row = conn.execute(pulled).one_or_none()
        return (None if row is None else _found.decode(row.found)), row

    found, row = await cloud.store.read(look)
    if found is None:
        raise NotFound("container", uuid)
    return found, Owner(row.project_id, row.user_id)
