"""Whether a container was killed for memory where the engine has missed it.

containerd's shim hears of it from the container's control group, and drops what it hears once the group is gone: of
containers that end with it, a few percent are told as a plain exit 137 (seen with 1.6.20 on cgroup v1). The kernel's
log names the group whose limit it was, by the engine's id of the container.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_KMSG = Path("/dev/kmsg")
_RECORD = 8192  # the longest that a read returns: Documentation/ABI/testing/dev-kmsg
_LIMITED_GROUP = re.compile(r"oom-kill:.*\boom_memcg=([^,]*)")


def killed_within(records: Iterable[str], engine_id: str) -> bool:
    """Whether one of the kernel's records tells of a kill for the limit of this container's group."""
    found = (_LIMITED_GROUP.search(record) for record in records)
    return any(match is not None and engine_id in match[1] for match in found)


def killed_for_memory(engine_id: str) -> bool:
    """By the kernel's log as far back as it goes. False where it cannot be read: then nobody knows."""
    try:
        log = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return killed_within(_records(log), engine_id)
    finally:
        os.close(log)


def _records(log: int) -> Iterator[str]:
    while True:
        try:
            yield os.read(log, _RECORD).decode(errors="replace")
        except BlockingIOError:  # that was the last
            return
        except BrokenPipeError:  # overwritten while it was read; the next read goes on behind it
            continue
