"""Images of the cloud's image service, brought to this host from the control plane: each layer once, by its digest.

What was brought stays on a shelf, and what was loaded stays in the engine, each up to a limit. What was used longest
ago goes first, and nothing that a container is made of.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from higgins.control.link import ControlLink, ControlUnavailable
from higgins.images.base import Layer, Parts
from higgins.images.shelf import Shelf
from higgins.model.errors import EngineError, ImageNotFound, ImagePullFailed
from higgins.model.images import DOMAIN, FoundImage
from higgins.runtimes.base import Image, Runtime

LOG = logging.getLogger(__name__)

#: Seconds of one question whether the control plane has an image by now.
_POLL = 20.0


class Deliveries:
    """``host`` tells the number that this host goes by; ``limit`` is how many bytes of images stay in the engine."""

    def __init__(
        self, link: ControlLink, host: Callable[[], int], runtime: Runtime, shelf: Shelf, *, limit: int
    ) -> None:
        self._link = link
        self._host = host
        self._runtime = runtime
        self._shelf = shelf
        self._limit = limit
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loading: set[str] = set()

    async def bring(self, uuid: str, found: FoundImage, policy: str) -> None:
        """Make an image be on the engine as ``found.engine_name``; policy as for a pull. ``uuid`` is of the container,
        or of the pull, that it is for.

        Raises ImageNotFound, ImageRefused, ImagePullFailed where trying again may help, and what the engine raises.
        """
        name = found.engine_name
        async with self._turns.setdefault(name, asyncio.Lock()):
            if policy != "always" and await self._loaded(name):
                self._shelf.touch(found)
                return
            if policy == "never":
                raise ImageNotFound(f"The image {found.name} is not on this host, and the policy is never to fetch it.")
            self._loading.add(name)
            try:
                parts = await self._parts(uuid)
                with self._shelf.hold(parts):
                    for layer in dict.fromkeys(parts.layers):
                        await self._shelf.bring(layer, lambda target, one=layer: self._save(uuid, one, target))  # type: ignore[misc]
                    await self._runtime.load(self._shelf.files(parts), name)
                self._shelf.record(found, parts)
            except ControlUnavailable as error:
                raise ImagePullFailed(f"The image {found.name} cannot be fetched now. {error}") from error
            except OSError as error:
                why = error.strerror or type(error).__name__
                raise ImagePullFailed(f"The host cannot store the image {found.name} now: {why}.") from error
            finally:
                self._loading.discard(name)
        await self._tidy(name)

    async def _loaded(self, name: str) -> bool:
        try:
            await self._runtime.pull(name, policy="never")
        except ImageNotFound:
            return False
        return True

    async def _parts(self, uuid: str) -> Parts:
        """As the control plane has them, however long it takes to fetch them."""
        while True:
            parts = await self._link.image(self._host(), uuid, _POLL)
            if parts is not None:
                return parts

    async def _save(self, uuid: str, layer: Layer, target: Path) -> None:
        size = 0
        async with self._link.layer(self._host(), uuid, layer.digest) as pieces:
            with target.open("wb") as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > layer.size:
                        raise ImagePullFailed("A layer is longer than the control plane said.")
                    await asyncio.to_thread(file.write, piece)

    async def _tidy(self, keep: str) -> None:
        """Let the engine have no more of these images than fit, if they can be spared."""
        ours = [(name, image) for image in await self._runtime.images() for name in image.names if _is_ours(name)]
        ours.sort(key=lambda one: self._shelf.used_at(one[0].rpartition("/")[2]), reverse=True)
        size, seen = 0, set[str]()
        for name, image in ours:
            size += _size(image, seen)
            if size <= self._limit or name == keep or name in self._loading:
                continue
            try:
                await self._runtime.remove_image(name)
            except EngineError as error:
                LOG.debug("Image %s stays: %s", name, error)  # a container is made of it


def _is_ours(name: str) -> bool:
    return name.startswith(f"{DOMAIN}/")


def _size(image: Image, seen: set[str]) -> int:
    """What an image adds to the others: nothing for another name of one that was counted."""
    if image.id in seen:
        return 0
    seen.add(image.id)
    return image.size
