"""What is mounted in this mount namespace, as the kernel tells it (proc_pid_mountinfo(5)), and its end."""

import re
from pathlib import Path

from higgins.model.errors import EngineError
from higgins.programs import end_of, last_words

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def own_directories(root: Path, *names: str) -> list[Path]:
    """Directories below ``root`` that only root may look into, as the kernel names its mount points.

    Raises ``EngineError`` where they cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        directories = [root.resolve() / name for name in names]
        for directory in directories:
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)
    except OSError as error:
        raise EngineError(f"The host cannot keep volumes in {root}: {error.strerror}.") from error
    return directories


def mount_points() -> set[Path]:
    """Where something is mounted; the kernel's own, fully resolved paths."""
    return {_target(line) for line in _MOUNTINFO.read_bytes().splitlines()}


def _target(line: bytes) -> Path:
    """The fifth field, in which the kernel writes spaces and the like as octal numbers."""
    escaped = line.split(b" ")[4]
    return Path(_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), escaped).decode(errors="surrogateescape"))


async def unmount(place: Path) -> None:
    """Nothing is mounted at ``place``, whose name is its volume's uuid, any more, and the place is gone.

    Refuses while a process holds a file of it open: unmounting it lazily would only hide that.
    """
    while place in mount_points():
        ended = await end_of("umount", str(place))
        if ended.code != 0 and place in mount_points():
            raise EngineError(f"Volume {place.name} is still in use on its host: {last_words(ended)}.")
    remove_empty(place)


def remove_empty(place: Path) -> None:
    """A mount point without its mount. Never what is in it: that would be somebody's data."""
    try:
        place.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise EngineError(f"{place.name} cannot be removed as a mount point: {error.strerror}.") from error
