"""Tables, and the numbers in them."""

import statistics
from collections.abc import Sequence

from msgspec import Struct


class Table(Struct, frozen=True):
    """A table with a title; the cells are text."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """Numbers stand right, names left."""
        lines = [f"### {self.title}", "", _line(self.head), _line(("---",) + ("---:",) * (len(self.head) - 1))]
        return "\n".join([*lines, *(_line(row) for row in self.rows), ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def p50(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def p95(seconds: Sequence[float]) -> float:
    """The smallest value that 95 of 100 do not exceed."""
    return _percentile(seconds, 95)


def p99(seconds: Sequence[float]) -> float:
    """The smallest value that 99 of 100 do not exceed."""
    return _percentile(seconds, 99)


def _percentile(seconds: Sequence[float], share: int) -> float:
    return sorted(seconds)[max(0, -(-len(seconds) * share // 100) - 1)]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
