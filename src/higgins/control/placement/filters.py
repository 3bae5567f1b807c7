"""Which hosts can take a workload: each filter is a mask over all hosts, and the words for those that it leaves out."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from higgins.control.placement.fleet import Bools, Fleet, Floats, Ints, tenant_code
from higgins.control.placement.needs import Need
from higgins.control.settings import Settings

#: Sums of cores are floats.
SLACK = 1e-6


class Question(Struct, frozen=True, kw_only=True):
    """What all filters are given."""

    fleet: Fleet
    need: Need
    settings: Settings
    now: datetime


def members_of(ask: Question) -> Floats:
    """How many members of its group each host has."""
    return ask.fleet.facts.counts(ask.need.companions)


class Filter(NamedTuple):
    """``passes`` is a mask of the hosts that will do, or None where there is nothing to ask; ``reason`` by place."""

    passes: Callable[[Question], Bools | None]
    reason: Callable[[Question, int], str]


def isolated(settings: Settings, project_id: str) -> bool:
    """Whether a project shares its hosts with no other."""
    return "all" in settings.tenant_isolation or project_id in settings.tenant_isolation


def _named(ask: Question) -> Bools | None:
    name = ask.need.host
    if name is None:
        return None
    facts = ask.fleet.facts
    return np.array([name in (one, uuid) for one, uuid in zip(facts.names, facts.uuids, strict=True)], np.bool_)


def _zone(ask: Question) -> Bools | None:
    zone, facts = ask.need.zone, ask.fleet.facts
    return None if zone is None else facts.mask(("zone", zone), lambda n: facts.zones[n] == zone)


def _volumes(ask: Question) -> Bools | None:
    hosts = ask.need.volume_hosts
    if not hosts:
        return None
    return ask.fleet.facts.those(hosts) if len(hosts) == 1 else np.zeros(len(ask.fleet), np.bool_)


def _attaches(ask: Question) -> Bools | None:
    facts = ask.fleet.facts
    return facts.mask(("attaches",), lambda n: bool(facts.infos[n].connector)) if ask.need.attaches else None


def _runtimes(ask: Question) -> Bools | None:
    facts = ask.fleet.facts
    if not ask.need.runtimes:
        return None
    mask = np.ones(len(ask.fleet), np.bool_)
    for name in ask.need.runtimes:
        mask &= facts.mask(("runtime", name), lambda n, name=name: name in facts.infos[n].runtimes)  # type: ignore[misc]
    return mask


def _no_runtime(ask: Question, place: int) -> str:
    missing = sorted(ask.need.runtimes - set(ask.fleet.facts.infos[place].runtimes))
    return f"it has no runtime {missing[0]}"


def _labels(ask: Question) -> Bools | None:
    facts = ask.fleet.facts
    if not ask.need.labels:
        return None
    mask = np.ones(len(ask.fleet), np.bool_)
    for key, value in ask.need.labels.items():
        mask &= facts.mask(
            ("label", key, value),
            lambda n, key=key, value=value: facts.infos[n].labels.get(key) == value,  # type: ignore[misc]
        )
    return mask


def _wrong_label(ask: Question, place: int) -> str:
    labels = ask.fleet.facts.infos[place].labels
    key, value = next(one for one in ask.need.labels.items() if labels.get(one[0]) != one[1])
    return f"its label {key} is not {value}"


def _cores(ask: Question) -> Bools | None:
    fleet, count = ask.fleet, ask.need.cores
    return fleet.cores - fleet.cores_used >= count if count else None


def _too_few_cores(ask: Question, place: int) -> str:
    return "it has too few dedicated CPUs left" if ask.fleet.cores[place] else "it gives no dedicated CPUs"


def cpu_room(fleet: Fleet, settings: Settings) -> Floats:
    """What may be claimed of the cores that are shared."""
    room: Floats = (fleet.cpus - fleet.cores) * settings.cpu_allocation_ratio
    return room


def _cpu(ask: Question) -> Bools:
    fleet, need = ask.fleet, ask.need
    shared = need.cpu - need.cores
    fits: Bools = fleet.cpu_used - fleet.cores_used + shared <= cpu_room(fleet, ask.settings) + SLACK
    return fits | (shared <= 0)


def _memory(ask: Question) -> Bools:
    fleet = ask.fleet
    fits: Bools = fleet.memory_used + ask.need.memory <= fleet.memory * ask.settings.memory_allocation_ratio + SLACK
    return fits


def _disk(ask: Question) -> Bools:
    fleet = ask.fleet
    fits: Bools = fleet.disk_used + ask.need.disk <= fleet.disk * ask.settings.disk_allocation_ratio + SLACK
    return fits


def room(ask: Question) -> Bools:
    """The hosts with enough CPU, memory and disk left: all that what is placed takes of a host, but for its cores."""
    return _cpu(ask) & _memory(ask) & _disk(ask)


def _tenants(ask: Question) -> Bools | None:
    """Empty hosts and those of the project will do always; others by who is there and what the operator says."""
    fleet, settings = ask.fleet, ask.settings
    if not set(settings.tenant_isolation) - {"none"}:
        return None
    mine: Bools = (fleet.containers == 0) | (fleet.tenant == tenant_code(ask.need.project))
    if isolated(settings, ask.need.project):
        return mine
    alone = np.isin(fleet.tenant, [tenant_code(one) for one in settings.tenant_isolation])
    return mine | ~alone


def _beside(ask: Question) -> Bools | None:
    return None if ask.need.beside is None else ask.fleet.facts.those(ask.need.beside)


def _apart(ask: Question) -> Bools | None:
    return ~ask.fleet.facts.those(ask.need.apart) if ask.need.apart else None


def _group(ask: Question) -> Bools | None:
    need = ask.need
    if need.policy not in ("affinity", "anti-affinity") or not need.companions:
        return None
    there: Bools = members_of(ask) > 0
    return there if need.policy == "affinity" else ~there


def _wrong_group(ask: Question, place: int) -> str:
    if ask.need.policy == "affinity":
        return f"group {ask.need.group} is on another host"
    return f"it has a member of group {ask.need.group} already"


#: In the order in which they are asked: a host that several would leave out is told the first one's reason.
FILTERS: tuple[Filter, ...] = (
    Filter(lambda ask: ~ask.fleet.disabled, lambda ask, place: "it is disabled"),
    Filter(lambda ask: ~ask.fleet.draining, lambda ask, place: "it is being drained"),
    Filter(lambda ask: ask.fleet.up(ask.now, ask.settings.host_lease), lambda ask, place: "it is down"),
    Filter(_named, lambda ask, place: f"host {ask.need.host} was asked for"),
    Filter(
        _zone,
        lambda ask, place: f"it is in zone {ask.fleet.facts.zones[place]}, and zone {ask.need.zone} was asked for",
    ),
    Filter(_volumes, lambda ask, place: "a volume of the container lies on another host"),
    Filter(_attaches, lambda ask, place: "volumes of Cinder cannot be attached to it"),
    Filter(_runtimes, _no_runtime),
    Filter(_labels, _wrong_label),
    Filter(_beside, lambda ask, place: "a container that it shall be beside is on another host"),
    Filter(_apart, lambda ask, place: "a container that it shall not be beside is there"),
    Filter(_group, _wrong_group),
    Filter(_tenants, lambda ask, place: "it holds containers of another project, which may not be shared with"),
    Filter(_cores, _too_few_cores),
    Filter(_cpu, lambda ask, place: "it has too little CPU left"),
    Filter(_memory, lambda ask, place: "it has too little memory left"),
    Filter(_disk, lambda ask, place: "it has too little disk left"),
)


def sift(ask: Question) -> tuple[Bools, Ints]:
    """The hosts that can take it, and of each other the number of the filter that left it out."""
    fit = np.ones(len(ask.fleet), np.bool_)
    by = np.full(len(ask.fleet), -1, np.int64)
    for number, one in enumerate(FILTERS):
        passes = one.passes(ask)
        if passes is not None:
            by[fit & ~passes] = number
            fit &= passes
    return fit, by
