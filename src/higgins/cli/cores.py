"""The cores of this machine: which containers may have to themselves, by NUMA node, and which the others keep to."""

from collections.abc import Iterable
from pathlib import Path

_SYSTEM = Path("/sys/devices/system")


class NoSuchCores(OSError):
    """What was set does not fit this machine."""


def parse(text: str) -> frozenset[int]:
    """Pure: ``{2, 3, 4, 10}`` of ``2-4,10``, as the kernel writes it. Raises NoSuchCores."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first:
            continue
        try:
            numbers |= set(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise NoSuchCores(f"dedicated_cpus: {part.strip()} is no core and no range of cores.") from None
    return frozenset(numbers)


def split(
    dedicated: frozenset[int], online: frozenset[int], nodes: Iterable[frozenset[int]]
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Pure: the dedicated cores by node, and the others. Raises NoSuchCores, also where no core is left to share."""
    if not dedicated:
        return (), ()
    if missing := dedicated - online:
        raise NoSuchCores(f"dedicated_cpus: this machine has no core {min(missing)}.")
    if dedicated == online:
        raise NoSuchCores("dedicated_cpus: at least one core must be left for everything else.")
    by_node = [tuple(sorted(dedicated & node)) for node in nodes]
    rest = tuple(sorted(dedicated - {number for node in by_node for number in node}))
    return tuple(node for node in (*by_node, rest) if node), tuple(sorted(online - dedicated))


def cores(text: str, system: Path = _SYSTEM) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """``split`` for this machine. A kernel without NUMA has one node."""
    if not text.strip():
        return (), ()
    online = parse((system / "cpu" / "online").read_text())
    lists = sorted((system / "node").glob("node[0-9]*/cpulist"), key=lambda path: int(path.parent.name[4:]))
    return split(parse(text), online, [parse(path.read_text()) for path in lists] or [online])
