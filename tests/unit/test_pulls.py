"""Pulls that several wait for, and whom the image is for then."""

import asyncio
from pathlib import Path

import pytest

from higgins.model.errors import EngineError
from higgins.runtimes.base import Image, RegistryAuth
from higgins.runtimes.pulls import Pulls, Readers, canonical, check_free

ALICE, BOB = (RegistryAuth(username=name, password="p", domain="d") for name in ("alice", "bob"))
NAME = "registry.example/private:1"
IMAGE = Image(id="sha256:1", names=(NAME,))
NEWER = Image(id="sha256:2", names=(NAME,))
EVERYONE = (None, ALICE, BOB)


async def test_pulls_of_one_image_by_one_caller_are_one() -> None:
    begun: list[RegistryAuth | None] = []
    go = asyncio.Event()

    async def fetch(auth: RegistryAuth | None) -> str:
        begun.append(auth)
        await go.wait()
        return "fetched"

    pulls: Pulls[str] = Pulls()
    waiting = [
        asyncio.create_task(pulls.join("a:1", auth, lambda auth=auth: fetch(auth)))  # type: ignore[misc]
        for auth in (None, None, ALICE)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun == [None, ALICE]
    waiting[0].cancel()  # one leaves; the other still gets it
    go.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["fetched", "fetched"]


async def test_a_pull_that_nobody_waits_for_ends() -> None:
    ended = asyncio.Event()

    async def fetch() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    pulls: Pulls[None] = Pulls()
    waiting = asyncio.create_task(pulls.join("a:1", None, fetch))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    async with asyncio.timeout(30):
        await ended.wait()


def users(readers: Readers, name: str = NAME, found: Image = IMAGE) -> list[RegistryAuth | None]:
    return [one for one in EVERYONE if readers.may_use(name, found, one)]


def test_what_was_fetched_with_credentials_is_for_those_alone_who_gave_them() -> None:
    readers = Readers()
    readers.fetched(NAME, ALICE, None, IMAGE)
    assert users(readers) == [ALICE]
    assert users(readers, IMAGE.id) == [ALICE]
    readers.fetched(NAME, BOB, IMAGE, IMAGE)
    assert users(readers) == [ALICE, BOB]


def test_of_those_who_may_read_an_image_no_more_are_kept_than_a_file_can_take(tmp_path: Path) -> None:
    """Some registries take any credentials, and tokens are others each time."""
    file = tmp_path / "readers.json"
    readers = Readers(file)
    readers.fetched(NAME, ALICE, None, IMAGE)
    for number in range(300):
        last = RegistryAuth(username="bob", password=str(number), domain="d")
        readers.fetched(NAME, last, IMAGE, IMAGE)
        assert readers.may_use(NAME, IMAGE, last)
    assert not readers.may_use(NAME, IMAGE, None)
    assert file.stat().st_size < 70 * 256 + 200


def test_an_image_that_anybody_gets_or_that_was_here_before_is_for_all() -> None:
    readers = Readers()
    readers.fetched(NAME, ALICE, IMAGE, IMAGE)
    assert users(readers) == list(EVERYONE)
    readers.fetched(NAME, ALICE, None, IMAGE)
    readers.fetched(NAME, None, IMAGE, IMAGE)
    assert users(readers) == list(EVERYONE)


def test_who_may_use_an_image_is_known_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "readers.json"
    readers = Readers(file)
    with readers.fetching(NAME, ALICE, None):
        assert users(Readers(file)) == [], "the engine may have it, whatever becomes of this process"
        readers.fetched(NAME, ALICE, None, IMAGE)
    assert users(Readers(file)) == [ALICE]
    assert "alice" not in file.read_text() and file.stat().st_mode & 0o077 == 0
    Readers(file).forget(NAME)
    assert users(Readers(file)) == list(EVERYONE)


def test_a_fetch_that_failed_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "readers.json"
    with pytest.raises(ValueError), Readers(file).fetching(NAME, ALICE, None):
        raise ValueError
    assert users(Readers(file)) == list(EVERYONE)


def test_a_file_that_cannot_be_read_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "readers.json"
    file.write_text("{")
    with pytest.raises(EngineError, match="cannot be read"):
        Readers(file)


def test_another_image_under_the_name_is_for_who_fetched_it() -> None:
    readers = Readers()
    readers.fetched(NAME, ALICE, None, IMAGE)
    readers.fetched(NAME, BOB, IMAGE, NEWER)
    assert users(readers, found=NEWER) == [BOB]


def test_an_image_with_a_public_name_is_for_all_by_its_id() -> None:
    readers = Readers()
    readers.fetched(NAME, ALICE, None, IMAGE)
    both = Image(id=IMAGE.id, names=(NAME, "public:1"))
    assert users(readers, IMAGE.id, both) == users(readers, "public:1", both) == list(EVERYONE)
    assert users(readers, NAME, both) == [ALICE]


def test_a_name_that_is_one_projects_own_opens_no_image_by_its_id() -> None:
    own = Image(id=IMAGE.id, names=("glance.invalid/some:1", "higgins.invalid/other:1"))
    assert users(Readers(), IMAGE.id, own) == []
    assert users(Readers(), "glance.invalid/some:1", own) == list(EVERYONE)  # only the control plane knows it
    both = Image(id=IMAGE.id, names=(*own.names, "public:1"))
    assert users(Readers(), IMAGE.id, both) == list(EVERYONE)


def test_while_it_arrives_it_is_for_nobody_and_a_failure_leaves_nothing() -> None:
    readers = Readers()
    with pytest.raises(ValueError), readers.fetching(NAME, ALICE, None):
        assert users(readers) == []
        raise ValueError
    assert users(readers) == list(EVERYONE)


@pytest.mark.parametrize("first", [ValueError, asyncio.CancelledError])
def test_of_two_who_fetch_it_one_that_is_broken_off_leaves_it_nobodys(
    tmp_path: Path, first: type[BaseException]
) -> None:
    file = tmp_path / "readers.json"
    readers = Readers(file)
    other = readers.fetching(NAME, BOB, None)
    with pytest.raises(first), readers.fetching(NAME, ALICE, None):
        other.__enter__()
        raise first
    assert users(Readers(file)) == [], "the engine may have it by the one that goes on"
    second = asyncio.CancelledError() if first is ValueError else ValueError()
    assert not other.__exit__(type(second), second, None)
    assert users(readers) == users(Readers(file)) == []


def test_of_two_who_fetch_it_and_fail_nothing_is_left(tmp_path: Path) -> None:
    file = tmp_path / "readers.json"
    readers = Readers(file)
    with pytest.raises(ValueError), readers.fetching(NAME, BOB, None), readers.fetching(NAME, ALICE, None):
        raise ValueError
    assert users(readers) == users(Readers(file)) == list(EVERYONE)


def test_broken_off_it_stays_nobodys_until_it_is_removed() -> None:
    readers = Readers()
    with pytest.raises(asyncio.CancelledError), readers.fetching(NAME, ALICE, None):
        raise asyncio.CancelledError
    assert users(readers) == []
    readers.forget(NAME)
    assert users(readers) == list(EVERYONE)


def test_removed_while_it_arrives_and_then_broken_off_it_is_nobodys_too() -> None:
    readers = Readers()
    with pytest.raises(asyncio.CancelledError), readers.fetching(NAME, ALICE, None):
        readers.forget(NAME)
        raise asyncio.CancelledError
    assert users(readers) == []


@pytest.mark.parametrize("name", ["me/box", "docker.io/me/box", "index.docker.io/me/box:latest"])
def test_ways_to_write_a_name_are_one(name: str) -> None:
    assert canonical(name) == "docker.io/me/box:latest"


@pytest.mark.parametrize("name", ["higgins-pause:1", "docker.io/library/higgins-pause:1", "localhost/higgins-pause:1"])
def test_the_name_of_the_image_that_holds_sandboxes_is_taken(name: str) -> None:
    with pytest.raises(EngineError, match="choose another"):
        check_free(name, "higgins-pause:1")
    check_free("higgins-pause:2", "higgins-pause:1")
