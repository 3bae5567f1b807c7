"""Which of the hosts that can take a workload takes it: keys by which they are sorted, the most important first."""

import numpy as np

from higgins.control.placement.cores import near
from higgins.control.placement.filters import Question, cpu_room, isolated, members_of
from higgins.control.placement.fleet import Bools, Fleet, Floats, Ints
from higgins.control.settings import Settings

#: An image that is there already is worth as much as that part of a host's load.
_IMAGE = 0.1


#: A value of each host, by which they are sorted: least first, and what does not hold before what does.
Key = Floats | Ints | Bools


def load(ask: Question) -> Floats:
    """How full each host would be with it, from 0 to 1: of CPU or memory, whichever is scarcer."""
    fleet, need, settings = ask.fleet, ask.need, ask.settings
    cpu = (fleet.cpu_used - fleet.cores_used + need.cpu - need.cores) / np.maximum(cpu_room(fleet, settings), 1e-6)
    memory = (fleet.memory_used + need.memory) / np.maximum(fleet.memory * settings.memory_allocation_ratio, 1e-6)
    fuller: Floats = np.maximum(cpu, memory)
    return fuller


def _sums(fleet: Fleet, values: Floats) -> Floats:
    """Of each zone the sum."""
    return np.bincount(fleet.facts.zone_of, weights=values).astype(np.float64, copy=False)


def zone_loads(fleet: Fleet, settings: Settings) -> Floats:
    """How full each zone is, of CPU."""
    loads: Floats = _sums(fleet, fleet.cpu_used) / np.maximum(_sums(fleet, cpu_room(fleet, settings)), 1e-6)
    return loads


def order(ask: Question, places: Ints) -> Ints:
    """The places of hosts that fit, best first."""
    if not len(places):
        return places
    keys = [*before_load(ask, places), fullness(ask) - image_worth(ask), ask.fleet.facts.rank]
    chosen: Ints = places[np.lexsort([key[places] for key in reversed(keys)])]
    return chosen


def before_load(ask: Question, places: Ints) -> list[Key]:
    """The keys that matter more than how full hosts are; of those at ``places`` at least."""
    fleet, need, settings = ask.fleet, ask.need, ask.settings
    keys: list[Key] = []
    if need.policy and need.companions:
        counts = members_of(ask)
        if need.policy == "soft-affinity":
            keys.append(-counts)
        elif need.policy == "soft-anti-affinity":
            keys.append(counts)
        if need.policy.endswith("anti-affinity"):  # with the firm one no host that is left has a member
            keys.append(_sums(fleet, counts)[fleet.facts.zone_of])
    if settings.spread_zones:
        keys.append(zone_loads(fleet, settings)[fleet.facts.zone_of])
    if isolated(settings, need.project):
        # Hosts that are empty stay so for other projects.
        keys.append(fleet.containers == 0)
    if need.cores:
        keys.append(_far(ask, places))
    return keys


def fullness(ask: Question) -> Floats:
    """The load, with the sign by which the host that is wanted comes first."""
    return load(ask) if ask.settings.spread else -load(ask)


def image_worth(ask: Question) -> Floats:
    """What it is worth, in load, that an image is there already."""
    worth: Floats = np.where(ask.fleet.facts.those(ask.need.image_hosts), _IMAGE, 0.0)
    return worth


def _far(ask: Question, places: Ints) -> Floats:
    """0 where one NUMA node has all the cores that it needs, else 1."""
    facts, far = ask.fleet.facts, np.ones(len(ask.fleet))
    for place in places:
        taken = ask.need.taken.get(int(facts.ids[place]), frozenset())
        far[place] = not near(facts.infos[place].cores, taken, ask.need.cores)
    return far
