"""Workloads that are placed one after the other on one picture of the fleet, each as if those before it were there.

Each goes where ``choosing`` would put it. But all hosts are judged once for each kind of workload, and afterwards only
those that were taken: of a hundred workloads that are alike, each but the first costs a small part of the first.
"""

from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from msgspec import structs

from higgins.control.cloud import Settings
from higgins.control.placement.filters import Question, company, room, sift
from higgins.control.placement.fleet import CHANGED, Bools, Fleet, Floats, Ints, tenant_code
from higgins.control.placement.needs import Need
from higgins.control.placement.weighers import Key, before_load, fullness, image_worth

#: What ``room`` and ``fullness`` look at.
_SIZES = ("cpus", "cpu_used", "memory", "memory_used", "disk", "disk_used", "cores", "cores_used")

#: For keys of workloads with dedicated cores, which there are none of here.
_NO_PLACES = np.empty(0, np.int64)

#: Says that a group has members; where they are is told otherwise.
_SOME = {0: 1}


class _Kind:
    """All hosts as workloads of one kind see them, whoever's they are and whatever their group.

    ``fit`` are those that can take one; of these the one with the least ``load`` comes first.
    """

    def __init__(self, ask: Question, taken: int) -> None:
        self._ask = ask
        self._caught_up = taken
        self._worth = image_worth(ask)
        self.fit, _ = sift(ask)
        self.load = fullness(ask) - self._worth

    def catch_up(self, taken: list[int]) -> None:
        """Judge those hosts again that were taken since."""
        if self._caught_up < len(taken):
            places = np.array(taken[self._caught_up :], np.int64)
            self._caught_up = len(taken)
            sizes: dict[str, Any] = {name: getattr(self._ask.fleet, name)[places] for name in _SIZES}
            few = structs.replace(self._ask, fleet=replace(self._ask.fleet, **sizes))
            self.fit[places] &= room(few)
            self.load[places] = fullness(few) - self._worth[places]


def _first(fit: Bools, key: Key) -> Bools:
    """Those of the hosts that fit which have the least of ``key``."""
    if key.dtype == np.bool_:
        without = fit & ~key.astype(np.bool_, copy=False)
        return without if without.any() else fit
    first: Bools = fit & (key == np.where(fit, key, np.inf).min(initial=np.inf))
    return first


class Series:
    """One picture of the fleet, and what is placed on it. Places are those of the hosts in the fleet's arrays.

    For workloads without dedicated cores. ``rank`` says which of hosts that are alike comes first, if not the name.
    """

    def __init__(self, fleet: Fleet, settings: Settings, now: datetime, rank: Ints | None = None) -> None:
        own: dict[str, Any] = {name: getattr(fleet, name).copy() for name in CHANGED}
        self.before = fleet
        self.fleet = replace(fleet, **own)
        self._settings = settings
        self._anybody = structs.replace(settings, tenant_isolation=())
        self._now = now
        self._rank = fleet.facts.rank if rank is None else rank
        self.closed: list[int] = []
        self._kinds: dict[object, _Kind] = {}
        self._taken: list[int] = []
        self._groups: dict[tuple[str, str | None], Floats] = {}
        self._there: defaultdict[int, list[Need]] = defaultdict(list)

    def best(self, need: Need) -> int | None:
        """The place of the host that comes first; None where none can take it."""
        ask = self._question(need)
        kind, allowed = self._kind(need), company(ask)
        fit = kind.fit if allowed is None else kind.fit & allowed
        if self.closed:
            fit = fit.copy()
            fit[self.closed] = False
        for key in before_load(ask, _NO_PLACES):
            fit = _first(fit, key)
        score = np.where(fit, kind.load, np.inf)
        least = score.min(initial=np.inf)
        if not np.isfinite(least):
            return None
        (places,) = np.nonzero(score == least)
        return int(places[self._rank[places].argmin()])

    def take(self, place: int, need: Need) -> None:
        """It goes there."""
        fleet, code = self.fleet, tenant_code(need.project)
        if fleet.containers[place] and fleet.tenant[place] != code:
            code = tenant_code("")
        fleet.tenant[place] = code
        fleet.containers[place] += 1
        fleet.cpu_used[place] += need.cpu
        fleet.memory_used[place] += need.memory
        fleet.disk_used[place] += need.disk
        self._taken.append(place)
        self._there[place].append(need)
        self._count(need, place, 1)

    def refuse(self, place: int) -> None:
        """The host cannot be had after all: nothing of this series goes there."""
        self.closed.append(place)
        for need in self._there.pop(place, ()):
            self._count(need, place, -1)

    def _count(self, need: Need, place: int, more: int) -> None:
        if need.group is not None:
            self._members(need)[place] += more

    def _members(self, need: Need) -> Floats:
        """How many of its group each host has, with those of this series."""
        found = self._groups.get((need.project, need.group))
        if found is None:
            found = self._groups[need.project, need.group] = self.fleet.facts.counts(need.companions)
        return found

    def _question(self, need: Need) -> Question:
        members = None
        if need.policy:
            members = self._members(need)
            if not need.companions and members.any():
                need = structs.replace(need, companions=_SOME)
        return Question(fleet=self.fleet, need=need, settings=self._settings, now=self._now, members=members)

    def _kind(self, need: Need) -> _Kind:
        labels = tuple(sorted(need.labels.items()))
        key = (need.cpu, need.memory, need.disk, need.runtimes, need.zone, need.host, labels, need.image_hosts,
               need.beside, need.apart, need.volume_hosts, need.attaches)  # fmt: skip
        found = self._kinds.get(key)
        if found is None:
            anybodys = structs.replace(need, project="", group=None, policy="", companions={})
            ask = Question(fleet=self.fleet, need=anybodys, settings=self._anybody, now=self._now)
            found = self._kinds[key] = _Kind(ask, len(self._taken))
        else:
            found.catch_up(self._taken)
        return found
