"""gVisor as an OCI runtime for private engines."""

from pathlib import Path


def documented_program() -> str:
    """The program that an operator is told to give the engine in the place of runsc."""
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    return page.split("```sh\n", 1)[1].split("```", 1)[0]


def gvisor(root: Path) -> Path:
    """That program in a file below ``root``."""
    program = root / "runsc-higgins"
    program.write_text(documented_program())
    program.chmod(0o755)
    return program
