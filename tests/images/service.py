"""An image service that says what it is told to, for what a real one cannot be made to do at will."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from higgins.model.errors import Conflict, ImageNotFound, Unauthorized
from higgins.model.images import FoundImage
from higgins.openstack.errors import ServiceUnavailable
from tests.images.test_archive import parts, tar_of

BASE = tar_of([("base", b"b" * 300_000)])


def archive(word: bytes) -> bytes:
    """An image of two layers, the lower of which all have."""
    return tar_of(parts([BASE, tar_of([("word", word)])]).items())


class ScriptedImages:
    """``images`` by name. A token is good while it is in ``good``; a trust gives one that is called like it."""

    def __init__(self) -> None:
        self.images: dict[str, bytes] = {}
        self.good: set[str] = {"token"}
        self.gives_trusts = True
        self.trusts: list[str] = []
        self.given_back: list[str] = []
        self.saved: list[tuple[str, str]] = []  # image and token
        self.fails: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.loses_answers = False
        self.there: dict[str, str] = {}  # the names of images that were registered, by id
        self.uploaded: dict[str, bytes] = {}  # by name

    def put(self, name: str, data: bytes) -> None:
        self.images[name] = data

    def _check(self, token: str) -> None:
        if token not in self.good:
            raise Unauthorized("The token is none.")

    async def resolve(self, reference: str, token: str, project_id: str) -> FoundImage:
        self._check(token)
        data = self.images.get(reference)
        if data is None:
            raise ImageNotFound(f"There is no image {reference}.")
        return FoundImage(
            id=f"id-{reference}", name=reference, size=len(data), algorithm="sha512",
            digest=hashlib.sha512(data).hexdigest(),
        )  # fmt: skip

    async def save(self, found: FoundImage, token: str, target: Path) -> None:
        self.saved.append((found.name, token))
        await self.gate.wait()
        self._check(token)
        if self.fails is not None:
            raise self.fails
        target.write_bytes(self.images[found.name])

    async def search(self, name: str, token: str, *, exact: bool) -> list[dict[str, Any]]:
        return [{"name": one} for one in self.images if name in one]

    async def register(self, image: str, name: str, token: str) -> None:
        self._check(token)
        if name == "taken":
            raise Conflict("That name is taken.")
        self.there[image] = name
        if self.loses_answers:
            raise ServiceUnavailable("Glance", "no image can be made")

    async def upload(self, image: str, token: str, archive: AsyncIterator[bytes]) -> int:
        data = b""
        async for piece in archive:
            data += piece
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        if image not in self.there:
            raise ServiceUnavailable("Glance", "no image can be made")
        self.uploaded[self.there[image]] = data
        return len(data)

    async def forget(self, image: str, token: str) -> None:
        self._check(token)
        if self.fails is not None:
            raise self.fails
        self.there.pop(image, None)

    async def entrust(self, token: str, *, user_id: str, project_id: str, roles: frozenset[str]) -> str | None:
        if not self.gives_trusts:
            return None
        self.trusts.append(f"trust-{len(self.trusts)}-of-{user_id}")
        self.good.add(self.trusts[-1])
        return self.trusts[-1]

    async def token_by(self, trust: str) -> str:
        self._check(trust)
        return trust

    async def give_back(self, trust: str) -> None:
        self.given_back.append(trust)
        self.good.discard(trust)
