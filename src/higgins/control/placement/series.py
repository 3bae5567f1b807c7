"""Workloads that are placed one after the other on one picture of the fleet, each as if those before it were there.

Each goes where ``choosing`` would put it. But all hosts are judged and sorted once for each kind of workload, and
afterwards only those that were taken are judged again. What a workload wants beyond its kind (whose hosts they are, its
group's members, their zones) chooses among *shelves*: hosts that are alike in that stand on one, in order. So rules
cost a look at a few shelves, and the number of hosts hardly matters.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from heapq import heappop, heappush
from itertools import groupby
from typing import Any, cast

import numpy as np
from msgspec import Struct, structs

from higgins.control.placement.filters import Question, isolated, room, sift
from higgins.control.placement.fleet import CHANGED, Fleet, Ints, tenant_code
from higgins.control.placement.needs import Need
from higgins.control.placement.weighers import fullness, image_worth, zone_loads
from higgins.control.settings import Settings

#: Whose a host is: nobody's yet, or anybody's who comes; else it has the ``tenant_code`` of one project.
_NOBODYS, _ANYBODYS = -2, -1

#: What comes first has the least: the load, the rank, and the place that they are of.
_Entry = tuple[float, int, int]
#: By shelf what matters more than the load.
_Order = dict[int, tuple[float, ...]]


class _One(Struct):
    """What ``room`` and ``fullness`` look at, of one host."""

    cpus: float
    cpu_used: float
    memory: float
    memory_used: float
    disk: float
    disk_used: float
    cores: int
    cores_used: int


_SIZES = _One.__struct_fields__


class _Kind:
    """All hosts as workloads of one kind see them, on their shelves; ``rank`` orders those that are alike."""

    def __init__(self, ask: Question, rank: Ints, by_rank: Ints, shelves: Ints) -> None:
        self._ask = ask
        self._judged = 0
        self._rank = rank
        self._worth = image_worth(ask)
        self._fit, _ = sift(ask)
        self._load = fullness(ask) - self._worth
        #: Of hosts that were taken since, how they are now; None for one that can take no more.
        self._taken: dict[int, tuple[int, _Entry] | None] = {}
        self._again: defaultdict[int, list[_Entry]] = defaultdict(list)
        self._sorted = self._on_shelves(shelves, by_rank)

    def _on_shelves(self, shelves: Ints, by_rank: Ints) -> dict[int, list[int]]:
        """By shelf the hosts that fit, the best last."""
        places = by_rank[self._fit[by_rank]]
        if not len(places):
            return {}
        places = places[np.argsort(self._load[places], kind="stable")]
        where = shelves[places]
        few = where.astype(np.min_scalar_type(where.max()))  # small numbers sort much faster
        places = places[np.argsort(few, kind="stable")]
        numbers, starts = np.unique(shelves[places], return_index=True)
        parts = np.split(places, starts[1:])
        return {int(number): part[::-1].tolist() for number, part in zip(numbers, parts, strict=True)}

    def judge_again(self, taken: list[int], closed: Collection[int], shelves: Ints) -> None:
        """Those that were taken since, or closed."""
        for place in taken[self._judged :]:
            sizes = [getattr(self._ask.fleet, name)[place].item() for name in _SIZES]
            ask = structs.replace(self._ask, fleet=cast(Fleet, _One(*sizes)))
            if place in closed or not self._fit[place] or not room(ask):
                self._taken[place] = None
                continue
            entry = float(fullness(ask) - self._worth[place]), int(self._rank[place]), place
            shelf = int(shelves[place])
            self._taken[place] = shelf, entry
            heappush(self._again[shelf], entry)
        self._judged = len(taken)

    def entry(self, place: int) -> _Entry | None:
        """How this host is; None if it can take no more."""
        if place in self._taken:
            taken = self._taken[place]
            return None if taken is None else taken[1]
        if not self._fit[place]:
            return None
        return float(self._load[place]), int(self._rank[place]), place

    def first(self, shelf: int, but: Collection[int]) -> _Entry | None:
        """The best of a shelf, ``but`` those."""
        found = [entry for entry in (self._first_sorted(shelf, but), self._first_again(shelf, but)) if entry]
        return min(found, default=None)

    def _first_sorted(self, shelf: int, but: Collection[int]) -> _Entry | None:
        places = self._sorted.get(shelf)
        while places and places[-1] in self._taken:
            places.pop()
        for place in reversed(places or ()):
            if place not in but and place not in self._taken:
                return self.entry(place)
        return None

    def _first_again(self, shelf: int, but: Collection[int]) -> _Entry | None:
        heap = self._again[shelf]
        found, passed = None, []
        while heap and found is None:
            entry = heap[0]
            if self._taken[entry[2]] != (shelf, entry):  # taken once more since
                heappop(heap)
            elif entry[2] in but:
                passed.append(heappop(heap))
            else:
                found = entry
        for entry in passed:
            heappush(heap, entry)
        return found


class Series:
    """One picture of the fleet, and what is placed on it. Places are those of the hosts in the fleet's arrays.

    For workloads without dedicated cores. ``rank`` says which of hosts that are alike comes first, if not the name.
    """

    def __init__(self, fleet: Fleet, settings: Settings, now: datetime, rank: Ints | None = None) -> None:
        own: dict[str, Any] = {name: getattr(fleet, name).copy() for name in CHANGED}
        self.before = fleet
        self.fleet = replace(fleet, **own)
        self.closed: list[int] = []
        self._settings = settings
        self._anybody = structs.replace(settings, tenant_isolation=())
        self._now = now
        self._rank = fleet.facts.rank if rank is None else rank
        self._by_rank = np.argsort(self._rank)
        self._zone_of: list[int] = fleet.facts.zone_of.tolist()
        self._zones = range(max(self._zone_of, default=-1) + 1)
        alone = set(settings.tenant_isolation) - {"none"}
        self._alone = {tenant_code(one) for one in alone}
        self._all_alone = "all" in alone
        mixed = np.isin(fleet.tenant, list(self._alone), invert=True) & (not self._all_alone)
        whose = np.where(mixed, _ANYBODYS, fleet.tenant)
        if alone:
            whose[fleet.containers == 0] = _NOBODYS
        self._kinds: dict[object, _Kind] = {}
        #: The shelf of each host, where zones do not matter and where they do.
        self._shelves = {False: whose - _NOBODYS, True: self._shelf(whose, fleet.facts.zone_of)}
        self._taken: list[int] = []
        self._groups: dict[tuple[str, str | None], dict[int, int]] = {}
        self._there: defaultdict[int, list[Need]] = defaultdict(list)

    def _shelf(self, whose: Any, zone: Any) -> Any:
        return (whose - _NOBODYS) * len(self._zones) + zone

    def best(self, need: Need) -> int | None:
        """The place of the host that comes first; None where none can take it."""
        members = self._members(need) if need.policy else {}
        policy = need.policy if members or need.companions else ""
        zoned = policy.endswith("anti-affinity") or self._settings.spread_zones
        kind = self._kind(need, zoned)
        shelves = self._order(need, members if policy.endswith("anti-affinity") else {}, zoned)
        if policy.endswith("anti-affinity") or not policy:
            place = self._elsewhere(kind, shelves, members if policy else ())
            if place is None and policy == "soft-anti-affinity":
                place = self._beside(kind, shelves, members, zoned=zoned)
            return place
        place = self._beside(kind, shelves, members, zoned=zoned, many_first=policy == "soft-affinity")
        if place is None and policy == "soft-affinity":
            place = self._elsewhere(kind, shelves, members)
        return place

    def _order(self, need: Need, apart: dict[int, int], zoned: bool) -> _Order:
        """The shelves that it may be on, each with what matters more than the load, as ``weighers.before_load`` says.

        ``apart`` are those of its group, whose zones come last.
        """
        alone = isolated(self._settings, need.project)
        owners = [tenant_code(need.project) if alone else _ANYBODYS, *([_NOBODYS] if self._alone else ())]
        if not zoned:
            return {owner - _NOBODYS: (alone and owner == _NOBODYS,) for owner in owners}
        counts = [0] * len(self._zones)
        for place, count in apart.items():
            counts[self._zone_of[place]] += count
        loads = zone_loads(self.fleet, self._settings).tolist() if self._settings.spread_zones else counts
        return {
            self._shelf(owner, zone): (counts[zone], loads[zone], alone and owner == _NOBODYS)
            for owner in owners
            for zone in self._zones
        }

    def _elsewhere(self, kind: _Kind, shelves: _Order, but: Collection[int]) -> int | None:
        """The first host of all ``but`` those."""
        for _, alike in groupby(sorted(shelves, key=shelves.__getitem__), key=shelves.__getitem__):
            entries = [entry for entry in (kind.first(shelf, but) for shelf in alike) if entry]
            if entries:
                return min(entries)[2]
        return None

    def _beside(
        self, kind: _Kind, shelves: _Order, members: dict[int, int], *, zoned: bool, many_first: bool = False
    ) -> int | None:
        """The first of the hosts with members of its group: of those with the fewest, or the most."""
        found = [
            (-count if many_first else count, shelves[shelf], entry)
            for place, count in members.items()
            if (shelf := int(self._shelves[zoned][place])) in shelves and (entry := kind.entry(place))
        ]
        return min(found)[2][2] if found else None

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
        self._move(place, code if self._all_alone or code in self._alone else _ANYBODYS)
        self._there[place].append(need)
        self._count(need, place, 1)

    def refuse(self, place: int) -> None:
        """The host cannot be had after all: nothing of this series goes there."""
        self.closed.append(place)
        self._taken.append(place)
        for need in self._there.pop(place, ()):
            self._count(need, place, -1)

    def _move(self, place: int, whose: int) -> None:
        """To the shelf of its owner now."""
        self._shelves[False][place] = whose - _NOBODYS
        self._shelves[True][place] = self._shelf(whose, self._zone_of[place])
        self._taken.append(place)

    def _count(self, need: Need, place: int, more: int) -> None:
        if need.group is not None:
            members = self._members(need)
            members[place] = members.get(place, 0) + more
            if not members[place]:
                del members[place]

    def _members(self, need: Need) -> dict[int, int]:
        """How many of its group each host has, with those of this series; only hosts that have any."""
        found = self._groups.get((need.project, need.group))
        if found is None:
            found = self._groups[need.project, need.group] = self.fleet.facts.by_place(need.companions)
        return found

    def _kind(self, need: Need, zoned: bool) -> _Kind:
        labels = tuple(sorted(need.labels.items()))
        key = (zoned, need.cpu, need.memory, need.disk, need.runtimes, need.zone, need.host, labels, need.image_hosts,
               need.beside, need.apart, need.volume_hosts, need.attaches)  # fmt: skip
        found = self._kinds.get(key)
        if found is None:
            anybodys = structs.replace(need, project="", group=None, policy="", companions={})
            ask = Question(fleet=self.fleet, need=anybodys, settings=self._anybody, now=self._now)
            found = self._kinds[key] = _Kind(ask, self._rank, self._by_rank, self._shelves[zoned])
        found.judge_again(self._taken, self.closed, self._shelves[zoned])
        return found
