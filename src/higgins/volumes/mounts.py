"""What is mounted in this mount namespace, as the kernel tells it (proc_pid_mountinfo(5))."""

import re
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def mount_points() -> set[Path]:
    """Where something is mounted; the kernel's own, fully resolved paths."""
    return {_target(line) for line in _MOUNTINFO.read_bytes().splitlines()}


def _target(line: bytes) -> Path:
    """The fifth field, in which the kernel writes spaces and the like as octal numbers."""
    escaped = line.split(b" ")[4]
    return Path(_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), escaped).decode(errors="surrogateescape"))
