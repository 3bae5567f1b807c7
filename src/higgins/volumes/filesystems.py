"""File systems on a volume's device, or in its file."""

import os
from pathlib import Path

from higgins.model.errors import EngineError
from higgins.programs import end_of, last_words

#: How much of a device must be zero for it to be blank, where nobody knows who wrote to it before: bytes.
_LOOKED_AT = 4 * 2**20


async def make_ext4(device: Path) -> None:
    """Whatever was there is gone. Raises ``EngineError``."""
    # Nothing is kept for root (-m 0): the whole size is the owner's. The inode tables are zero already.
    quick = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    await _made("mkfs.ext4", "-q", "-F", "-m", "0", "-E", quick, str(device))
    # Databases refuse a data directory that is not empty.
    await _made("debugfs", "-w", "-R", "rmdir lost+found", str(device))


async def content_of(device: Path) -> str | None:
    """The kind of what is on a device (``ext4``, ``dos`` for a partition table …); None where nothing is known there.

    Raises ``EngineError`` where that cannot be found out: whoever formats what is blank must be sure that it is.
    """
    ended = await end_of("blkid", "-p", "-o", "export", str(device))
    if ended.code == 2 and not ended.err.strip():
        return None
    found = dict(line.partition("=")[::2] for line in ended.out.splitlines())
    kind = found.get("TYPE") or found.get("PTTYPE")
    if ended.code != 0 or not kind:
        raise EngineError(f"It cannot be told what is on the volume: {last_words(ended)}.")
    return kind


def is_zero(device: Path) -> bool:
    """Whether the device begins with nothing but zeros. Raises OSError."""
    with device.open("rb") as file:
        return not any(file.read(_LOOKED_AT))


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _made(program: str, *args: str) -> None:
    ended = await end_of(program, *args)
    if ended.code != 0:
        raise EngineError(f"{program}: {last_words(ended)}.")
