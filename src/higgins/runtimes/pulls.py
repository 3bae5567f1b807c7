"""What every engine's pulls have in common: who waits for which, and who may use what one has fetched."""

import asyncio
import hmac
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct, field

from higgins.model.errors import EngineError
from higgins.private_files import write_private
from higgins.runtimes.base import Image, RegistryAuth

Fetched = TypeVar("Fetched")

#: How many credentials are kept for one image.
_MOST = 256


class Pulls(Generic[Fetched]):
    """Pulls that go on now. Those who ask for the same image with the same identity wait for one pull.

    The identity is part of the key: who may not read an image must not get it through another's pull. The pull ends
    when the last of those who wait for it has left.
    """

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, RegistryAuth | None], asyncio.Task[Fetched]] = {}
        self._waiting: dict[tuple[str, RegistryAuth | None], int] = {}

    async def join(self, name: str, auth: RegistryAuth | None, fetch: Callable[[], Awaitable[Fetched]]) -> Fetched:
        """Wait for the pull of ``name`` that goes on, else for ``fetch``."""
        key = (name, auth)
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(_of(fetch))
            self._waiting[key] = 0
        self._waiting[key] += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._tasks[key]
                if not task.done():
                    task.cancel()


async def _of(fetch: Callable[[], Awaitable[Fetched]]) -> Fetched:
    return await fetch()


class _Kept(Struct):
    """What the file of ``Readers`` has: digests of credentials, by the image's name."""

    key: str
    readers: dict[str, set[str]] = field(default_factory=dict)


_kept = msgspec.json.Decoder(_Kept)


class Readers:
    """Who has shown their registry that they may read what is on the host.

    An image that was fetched with credentials is for those alone who gave them: all others have to ask its registry,
    although it is here already. One that was here before, or that the registry gives to anybody, is for all.

    What is known is kept in a file, if there is one, before the engine can have the image: credentials by their digest
    under a key of the file's own. Raises EngineError where that cannot be read or written.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._kept = _Kept(key=secrets.token_hex(32))
        if file is not None and file.exists():
            try:
                self._kept = _kept.decode(file.read_bytes())
            except (OSError, msgspec.DecodeError) as error:
                raise EngineError(f"{file}, which says who may use which image, cannot be read: {error}.") from error
        self._readers = self._kept.readers
        self._arriving: Counter[str] = Counter()
        self._new: set[str] = set()  # of those that arrive, what was not known before and the engine has not yet

    def may_use(self, name: str, found: Image, auth: RegistryAuth | None) -> bool:
        """Whether what was found on the host under ``name``, which may be an id or a digest, is for ``auth``."""
        key = canonical(name)
        own = {canonical(one) for one in found.names}
        # Reached by its content, it is for whoever may use one of its names; some are for those alone who know them.
        keys = {key} if key in own or not own else {one for one in own if not private(one)}
        return any(self._open(one, auth) for one in keys)

    @contextmanager
    def fetching(self, name: str, auth: RegistryAuth | None, before: Image | None) -> Iterator[None]:
        """While an image is fetched that was not on the host it is for nobody yet, as the engine may show it early.

        Where the waiting is broken off the engine may have it all the same: it stays nobody's until one asks again.
        """
        if auth is None or before is not None:
            yield
            return
        key = canonical(name)
        self._arriving[key] += 1
        try:
            if key not in self._readers:
                self._readers[key] = set()
                self._new.add(key)
                self._keep()
            yield
        except asyncio.CancelledError:
            self._new.discard(key)
            self._readers.setdefault(key, set())
            raise
        finally:
            self._arriving[key] -= 1
            if not self._arriving[key]:
                del self._arriving[key]
                self._end(key)

    def fetched(self, name: str, auth: RegistryAuth | None, before: Image | None, image: Image) -> None:
        """The registry gave ``image`` to ``auth``, None being anybody; ``before`` is what had the name."""
        key = canonical(name)
        same = before is not None and before.id == image.id
        if auth is None:
            self.forget(name)
        elif key in self._readers and (same or before is None):
            readers = self._readers[key]
            if self._digest(auth) not in readers:
                if len(readers) >= _MOST:
                    readers.pop()  # who that was asks the registry again
                readers.add(self._digest(auth))
                self._keep()
        elif not same:
            self._readers[key] = {self._digest(auth)}
            self._keep()

    def forget(self, name: str) -> None:
        """The image is not on the host any more."""
        if self._readers.pop(canonical(name), None) is not None:
            self._keep()

    def _end(self, key: str) -> None:
        """All who fetched it have ended: if it came to none of them, nothing of it is kept."""
        if key in self._new:
            self._new.discard(key)
            if not self._readers.get(key, True):
                self.forget(key)

    def _keep(self) -> None:
        if self._file is None:
            return
        try:
            write_private(self._file, msgspec.json.encode(self._kept).decode())
        except OSError as error:
            raise EngineError(f"The host cannot keep who may use which image: {error.strerror}.") from error

    def _digest(self, auth: RegistryAuth) -> str:
        return hmac.digest(bytes.fromhex(self._kept.key), msgspec.json.encode(auth), "sha256").hex()

    def _open(self, key: str, auth: RegistryAuth | None) -> bool:
        readers = self._readers.get(key)
        if readers is None:
            return not self._arriving[key]
        return auth is not None and self._digest(auth) in readers


def private(name: str) -> bool:
    """Whether an image has this name for one project only: its registry is in a domain that cannot be (RFC 2606)."""
    return name.partition("/")[0].endswith(".invalid")


def check_free(name: str, pause: str) -> None:
    """Raises ``EngineError`` where an image of a tenant's would take the name of the one that holds sandboxes."""
    if canonical(name.removeprefix("localhost/")) == canonical(pause.removeprefix("localhost/")):
        raise EngineError(f"{name} is the name of an image that this host itself needs; choose another.")


def canonical(image: str) -> str:
    """A name with its registry, and a tag where there is neither tag nor digest."""
    first, slash, rest = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif first in ("docker.io", "index.docker.io"):
        image = f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}"
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
