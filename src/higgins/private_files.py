"""Files that are nobody else's to read."""

import os
from pathlib import Path


def write_private(path: Path, text: str, *, lasts: bool = True) -> None:
    """Write a file that only its owner reads, whole or not at all. Raises OSError.

    Where it need not last the disk is not waited for, and a power cut may leave anything of it.
    """
    temporary = path.with_name(path.name + ".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        if lasts:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
