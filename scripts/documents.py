"""Check the documents against the tree.

Every relative link leads to a file; every path in backquotes that starts with one of the tree's own directories is
there; and every package of ``src/higgins`` is in the architecture.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
TREE = re.compile(r"`((?:src|tests|scripts|docs|benchmarks|systemd|\.ci)/[\w./-]*)`")


def kept_files() -> list[Path]:
    """What git keeps, or would keep."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive: everything but what is made here
        made = {".venv", "var", "build"}
        return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.relative_to(ROOT).parts)]
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def faults_of(document: Path) -> Iterator[str]:
    """Links and paths of a document that lead nowhere."""
    text = document.read_text()
    name = document.relative_to(ROOT)
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith("mailto:") and not (document.parent / target).exists():
            yield f"{name}: the link to {target} leads nowhere"
    for path in TREE.findall(text):
        if not (ROOT / path).exists():
            yield f"{name}: there is no {path}"


def undescribed() -> Iterator[str]:
    """Packages that the architecture does not mention."""
    architecture = ROOT / "docs" / "architecture.md"
    text = architecture.read_text()
    for package in sorted(path.parent for path in (ROOT / "src" / "higgins").glob("*/__init__.py")):
        if f"{package.name}/" not in text:
            yield f"docs/architecture.md: src/higgins/{package.name}/ is not described"


def main() -> int:
    """Print what is wrong; the exit status is 1 if there is anything."""
    faults = [fault for path in kept_files() if path.suffix == ".md" for fault in faults_of(path)]
    faults += undescribed()
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
