"""A sandbox's network namespace, held while it is wired."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from higgins.model.errors import EngineError


@contextmanager
def held_namespace(netns: str, workload: str) -> Iterator[tuple[int, int]]:
    """A descriptor of the sandbox's network namespace, which keeps meaning it, and its inode. Raises EngineError.

    The engine's path goes by the number of a process. That one may have ended and its number be another's, of the
    host's own namespace: wiring that would give the host the addresses and routes of a tenant's port.
    """
    missing = f"The sandbox {workload} has no network namespace to wire."
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EngineError(missing) from error
    try:
        found, own = os.fstat(descriptor), Path("/proc/self/ns/net").stat()
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
            raise EngineError(missing)
        yield descriptor, found.st_ino
    finally:
        os.close(descriptor)
