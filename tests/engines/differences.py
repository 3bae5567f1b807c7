"""The page that tells how engines differ, made from what they declare: ``python -m tests.engines.differences``."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.engines import Engine
from tests.engines.containerd import ContainerdEngine
from tests.engines.docker import DockerEngine
from tests.engines.podman import PodmanEngine

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engines-differences.md"
ENGINES: Sequence[type[Engine]] = (ContainerdEngine, DockerEngine, PodmanEngine)

HEAD = """\
# How container engines differ

Made by `make differences` from what the engines of the contract suite declare (`tests/engines/`, `tests/contract/`).
"""


def names_of(engine: type[Engine]) -> str:
    return {"containerd": "containerd", "docker": "Docker", "podman": "Podman"}[engine.name]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def table(first: str, rows: Sequence[Sequence[str]]) -> str:
    heads = [first, *(names_of(engine) for engine in ENGINES)]
    return row(*heads) + row(*("---" for _ in heads)) + "".join(row(*cells) for cells in rows)


def _needs(nodes: Sequence[ast.expr]) -> Iterator[str]:
    """The arguments of ``pytest.mark.needs`` among these expressions."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "needs":
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))


def claims() -> dict[str, list[str]]:
    """What the engine must be able to do, and the claims of the suite that need it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests" / "contract").glob("test_*.py")):
        module = ast.parse(path.read_text())
        common = [
            need
            for node in module.body
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == "pytestmark" for target in node.targets)
            for need in _needs(node.value.elts if isinstance(node.value, ast.List) else [node.value])
        ]
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for need in (*common, *_needs(node.decorator_list)):
                    found.setdefault(need, []).append(node.name.removeprefix("test_").replace("_", " "))
    return found


def page() -> str:
    """The whole page."""
    lacking = sorted({need for engine in ENGINES for need in engine.cannot})
    differing = sorted({what for engine in ENGINES for what in engine.differs}, key=lambda what: what.strip("`"))
    held = claims()
    means = table("what", [(what, *(e.differs.get(what, "the same") for e in ENGINES)) for what in differing])
    lacks = table("part", [(need, *(e.cannot.get(need, "yes") for e in ENGINES)) for need in lacking])
    said = "".join(f"- {need}:\n" + "".join(f"  - {claim}\n" for claim in held.get(need, ())) for need in lacking)
    return (
        f"{HEAD}\n## Done, but in different ways\n\n{means}\n## Not everywhere\n\n{lacks}\n"
        f"These claims of the suite rest on them, and are skipped where the part is missing:\n\n{said}"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
