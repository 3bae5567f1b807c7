"""Which of the hosts that can take a workload takes it: keys by which they are sorted, the most important first."""

import numpy as np

from higgins.control.placement.cores import near
from higgins.control.placement.filters import Question, cpu_room, isolated
from higgins.control.placement.fleet import Floats, Ints, tenant_code

#: An image that is there already is worth as much as that part of a host's load.
_IMAGE = 0.1


def load(ask: Question) -> Floats:
    """How full each host would be with it, from 0 to 1: of CPU or memory, whichever is scarcer."""
    fleet, need, settings = ask.fleet, ask.need, ask.settings
    cpu = (fleet.cpu_used - fleet.cores_used + need.cpu - need.cores) / np.maximum(cpu_room(fleet, settings), 1e-6)
    memory = (fleet.memory_used + need.memory) / np.maximum(fleet.memory * settings.memory_allocation_ratio, 1e-6)
    fuller: Floats = np.maximum(cpu, memory)
    return fuller


def _by_zone(ask: Question, values: Floats) -> Floats:
    """Of each host the sum of its zone."""
    zones = ask.fleet.facts.zone_of
    sums = np.bincount(zones, weights=values).astype(np.float64)
    return sums[zones]


def order(ask: Question, places: Ints) -> Ints:
    """The places of hosts that fit, best first."""
    fleet, need, settings = ask.fleet, ask.need, ask.settings
    if not len(places):
        return places
    keys: list[Floats | Ints] = []
    if need.policy and need.companions:
        counts = fleet.facts.counts(need.companions)
        if need.policy == "soft-affinity":
            keys.append(-counts)
        elif need.policy.endswith("anti-affinity"):
            keys += [counts, _by_zone(ask, counts)]
    if settings.spread_zones:
        keys.append(_by_zone(ask, fleet.cpu_used) / np.maximum(_by_zone(ask, cpu_room(fleet, settings)), 1e-6))
    if isolated(settings, need.project):
        # Hosts that are empty stay so for other projects.
        keys.append(np.where(fleet.tenant == tenant_code(need.project), 0.0, 1.0))
    if need.cores:
        keys.append(_far(ask, places))
    loads = load(ask) if settings.spread else -load(ask)
    if need.image_hosts:
        loads -= _IMAGE * fleet.facts.those(need.image_hosts)
    keys += [loads, fleet.facts.rank]
    chosen: Ints = places[np.lexsort([key[places] for key in reversed(keys)])]
    return chosen


def _far(ask: Question, places: Ints) -> Floats:
    """0 where one NUMA node has all the cores that it needs, else 1."""
    facts, far = ask.fleet.facts, np.ones(len(ask.fleet))
    for place in places:
        taken = ask.need.taken.get(int(facts.ids[place]), frozenset())
        far[place] = not near(facts.infos[place].cores, taken, ask.need.cores)
    return far
