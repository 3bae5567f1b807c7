"""Checked images on a disk: brought once, shared layers once, and let go of when there is too much."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from higgins.images.archive import Bounds
from higgins.images.base import Layer
from higgins.images.shelf import Shelf
from higgins.model.errors import ImageRefused
from higgins.model.images import FoundImage
from tests.images.test_archive import digest, parts, tar_of

BASE, TOPS = tar_of([("base", b"b" * 9000)]), [tar_of([("top", bytes([n]) * 9000)]) for n in range(3)]


def image(number: int) -> FoundImage:
    return FoundImage(id=f"image-{number}", name="web", size=1, algorithm="sha512", digest=str(number) * 128)


class Source:
    """Brings image ``n``, which has the base and its own layer, and counts."""

    def __init__(self) -> None:
        self.brought: list[int] = []

    def image(self, number: int) -> bytes:
        return tar_of(parts([BASE, TOPS[number]]).items())

    async def take(self, shelf: Shelf, number: int) -> None:
        async def save(target: Path) -> None:
            self.brought.append(number)
            await asyncio.sleep(0)
            target.write_bytes(self.image(number))

        await shelf.take_in(image(number), save)


def layers(directory: Path) -> set[str]:
    return {path.name for path in (directory / "layers").iterdir()}


async def test_of_many_who_want_an_image_one_brings_it(tmp_path: Path) -> None:
    source, shelf = Source(), Shelf(tmp_path)
    await asyncio.gather(*(source.take(shelf, 0) for _ in range(5)))
    await source.take(Shelf(tmp_path), 0)
    assert source.brought == [0]
    known = shelf.known(image(0))
    assert known is not None and len(known.layers) == 2


async def test_what_is_larger_than_an_image_may_be_is_not_brought_at_all(tmp_path: Path) -> None:
    brought: list[Path] = []

    async def save(target: Path) -> None:
        brought.append(target)

    with pytest.raises(ImageRefused, match="larger"):
        await Shelf(tmp_path, bounds=Bounds(unpacked=1000)).take_in(structs.replace(image(0), size=1001), save)
    assert not brought


async def test_a_layer_that_two_images_share_lies_there_once(tmp_path: Path) -> None:
    source, shelf = Source(), Shelf(tmp_path)
    for number in (0, 1):
        await source.take(shelf, number)
    assert layers(tmp_path) == {digest(layer) for layer in (BASE, TOPS[0], TOPS[1])}


async def test_what_was_used_longest_ago_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    source, shelf = Source(), Shelf(tmp_path, limit=len(BASE) + len(TOPS[0]))
    await source.take(shelf, 0)
    first = shelf.known(image(0))
    assert first is not None
    with shelf.hold(first):
        for number in (1, 2):
            await source.take(shelf, number)
        assert layers(tmp_path) == {digest(layer) for layer in (BASE, TOPS[0], TOPS[2])}
    assert shelf.known(image(1)) is None
    assert len(layers(tmp_path)) == 2
    await source.take(shelf, 1)
    assert source.brought == [0, 1, 2, 1]


async def test_a_layer_is_brought_once_and_only_as_its_digest_says(tmp_path: Path) -> None:
    shelf, layer, saved = Shelf(tmp_path), Layer(f"sha256:{digest(BASE)}", len(BASE)), []

    async def save(target: Path) -> None:
        saved.append(target)
        target.write_bytes(BASE if len(saved) > 1 else b"something else")

    with pytest.raises(ImageRefused, match="changed on its way"):
        await shelf.bring(layer, save)
    assert layers(tmp_path) == set()
    await asyncio.gather(*(shelf.bring(layer, save) for _ in range(3)))
    assert len(saved) == 2 and layers(tmp_path) == {digest(BASE)}


async def test_what_a_process_that_died_left_half_done_goes(tmp_path: Path) -> None:
    source = Source()
    await source.take(Shelf(tmp_path), 0)
    (tmp_path / "layers" / "x.new").write_bytes(b"half")
    (tmp_path / "images" / "y.json.new-raw").write_bytes(b"half")
    shelf = Shelf(tmp_path)
    assert not list(tmp_path.glob("*/*.new*")) and shelf.known(image(0)) is not None


async def test_the_hosts_other_users_do_not_read_it(tmp_path: Path) -> None:
    Shelf(tmp_path / "shelf")
    assert {place.stat().st_mode & 0o777 for place in (tmp_path / "shelf").iterdir()} == {0o700}
