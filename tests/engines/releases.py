"""The engines of other Debian releases than this machine's, as ``scripts/debian-engines`` has unpacked them."""

import os
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[2] / "var" / "engines"


def path_with(programs: Path | None) -> dict[str, str] | None:
    """An environment in which the programs of that directory come before all others; None where none is given."""
    return None if programs is None else {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def programs_of(release: str) -> Path:
    """The directory of a release's programs. Skips where they are not here."""
    found = PLACE / release / "bin"
    if not found.is_dir():
        pytest.skip(f"the engines of Debian {release} are not here: scripts/debian-engines {release} fetches them")
    return found
