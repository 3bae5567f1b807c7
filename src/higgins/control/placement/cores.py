"""Whole cores for a workload, near to one another. Pure."""

Nodes = tuple[tuple[int, ...], ...]


def pick(nodes: Nodes, taken: frozenset[int], count: int) -> tuple[int, ...] | None:
    """So many of the cores that nobody has; None where there are too few.

    From one NUMA node if one has so many, from the fullest such, so that larger gaps stay for larger workloads; else
    from as few nodes as can be.
    """
    free = [sorted(set(node) - taken) for node in nodes]
    if sum(map(len, free)) < count:
        return None
    fitting = [node for node in free if len(node) >= count]
    if fitting:
        return tuple(min(fitting, key=len)[:count])
    chosen: list[int] = []
    for node in sorted(free, key=len, reverse=True):
        chosen += node[: count - len(chosen)]
    return tuple(sorted(chosen))


def near(nodes: Nodes, taken: frozenset[int], count: int) -> bool:
    """Whether one NUMA node has so many cores that nobody has."""
    return any(len(set(node) - taken) >= count for node in nodes)


def share(cores: list[int], members: list[tuple[str, int]]) -> list[tuple[int, ...]]:
    """Which of a workload's cores each of its members gets: members are (role, how many), in order.

    Init containers run before the others, so they use the same cores.
    """
    shares: list[tuple[int, ...]] = []
    used = 0
    for role, count in members:
        if role == "init":
            shares.append(tuple(cores[:count]))
        else:
            shares.append(tuple(cores[used : used + count]))
            used += count
    return shares
