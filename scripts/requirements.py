"""Does this Python environment hold all that pyproject.toml asks for?

``python scripts/requirements.py client,test`` ends with 0 if so. Asking costs a fraction of a second, where pip takes
several to find that nothing is to be done.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement


def missing(extras: list[str]) -> list[str]:
    """The requirements that are not met, as pyproject.toml writes them."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return [text for text in wanted if not _met(Requirement(text))]


def _met(requirement: Requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(1 if missing(sys.argv[1].split(",")) else 0)
