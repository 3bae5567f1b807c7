"""The page that tells how engines differ, made from what the suite saw: ``python -m tests.engines.differences``."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.engines import seen
from tests.engines.seen import Sight

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engines-differences.md"

HEAD = """\
# How container engines differ

Made by `make differences` from what the contract suite (`tests/contract/`) saw on each engine. A run in which an engine
of the same version does otherwise than is written here fails.
"""
#: Of a claim that was not tried on an engine.
NOT_SEEN = "not tried"


def sights() -> dict[str, Sight]:
    """What is kept of each engine, in the order in which they are shown."""
    return {engine: sight for engine in seen.TITLES if (sight := seen.read(engine)) is not None}


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def table(first: str, engines: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = [first, *engines]
    return row(*heads) + row(*("---" for _ in heads)) + "".join(row(*cells) for cells in rows)


def observed(found: Mapping[str, Sight]) -> tuple[list[tuple[str, ...]], list[tuple[str, str]]]:
    """What is done in different ways, with each engine's; and what all do alike, with how."""
    everything = {what for sight in found.values() for what in sight.observed}
    different, alike = [], []
    for what in sorted(everything, key=lambda what: what.strip("`").lower()):
        ways = [sight.observed.get(what, NOT_SEEN) for sight in found.values()]
        if len(set(ways) - {NOT_SEEN}) > 1:
            different.append((what, *ways))
        else:
            alike.append((what, next(way for way in ways if way != NOT_SEEN)))
    return different, alike


def lacking(found: Mapping[str, Sight]) -> dict[str, dict[str, str]]:
    """By what is not everywhere, the reason of each engine that has it not."""
    parts: dict[str, dict[str, str]] = {}
    for engine, sight in found.items():
        for one in sight.left_out:
            parts.setdefault(one.part, {})[engine] = one.reason
    return dict(sorted(parts.items()))


def resting_on(found: Mapping[str, Sight]) -> dict[str, list[str]]:
    """By what is not everywhere, the claims that were left out for want of it."""
    parts: dict[str, set[str]] = {}
    for sight in found.values():
        for one in sight.left_out:
            parts.setdefault(one.part, set()).add(one.claim)
    return {part: sorted(claims) for part, claims in sorted(parts.items())}


def page() -> str:
    """The whole page."""
    found = sights()
    names = [seen.title(engine, sight) for engine, sight in found.items()]
    different, alike = observed(found)
    ways = table("what", names, different)
    lacks = table("part", names, [(part, *(why.get(e, "yes") for e in found)) for part, why in lacking(found).items()])
    held = table("claims", names, [("that held", *(str(sight.held) for sight in found.values()))])
    same = "".join(f"- {what}: {how}\n" for what, how in alike)
    rests = "".join(
        f"- {part}:\n" + "".join(f"  - {claim}\n" for claim in claims) for part, claims in resting_on(found).items()
    )
    return (
        f"{HEAD}\n{held}\n## Done, but in different ways\n\n{ways}\n"
        f"What was looked at as well, and is the same on all that were asked:\n\n{same}\n## Not everywhere\n\n{lacks}\n"
        f"These claims of the suite rest on them, and are left out where the part is missing:\n\n{rests}"
    )


def needs() -> dict[str, set[str]]:
    """By claim, what the suite as it is says that it needs of an engine."""
    wanted: dict[str, set[str]] = {}
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
                wanted.setdefault(seen.claim(node.name), set()).update(common, _needs(node.decorator_list))
    return wanted


def _needs(nodes: Sequence[ast.expr]) -> Iterator[str]:
    """The arguments of ``pytest.mark.needs`` among these expressions."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "needs":
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))


if __name__ == "__main__":
    PAGE.write_text(page())
