"""All hosts as arrays, kept from one placement to the next: only hosts whose revision rose are read again.

What is kept may be old, since claims are conditional: a host that is fuller than it is thought here refuses.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.model.resources import HostInfo
from higgins.store.mariadb import packed
from higgins.store.schema import host

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_info = msgspec.json.Decoder(HostInfo)
_codes: dict[str | None, int] = {}
_next_code = itertools.count()
#: With more hosts changed than that, all are read again.
_FEW = 200
#: So many are always read again: to ask first which of them changed takes longer.
_FEWEST = 20


def tenant_code(project_id: str | None) -> int:
    """A number for a project (or for several, or none), the same in this process for ever: numbers compare fast."""
    found = _codes.get(project_id)
    return _codes.setdefault(project_id, next(_next_code)) if found is None else found


@dataclass(frozen=True, eq=False)
class Facts:
    """What hosts are and hardly ever change, in the order of their numbers. Masks are made once each."""

    ids: Ints
    uuids: tuple[str, ...]
    names: tuple[str, ...]
    zones: tuple[str, ...]
    texts: tuple[str, ...]
    infos: tuple[HostInfo, ...]
    rank: Ints  # by name
    zone_of: Ints  # the zone's number
    masks: dict[tuple[str, ...], Bools] = field(default_factory=dict)

    def mask(self, key: tuple[str, ...], holds: Callable[[int], bool]) -> Bools:
        """For each host whether something holds of it, by its place."""
        found = self.masks.get(key)
        if found is None:
            if len(self.masks) > 256:  # keys come from tenants
                self.masks.clear()
            found = self.masks[key] = np.fromiter((holds(n) for n in range(len(self.ids))), np.bool_, len(self.ids))
        return found

    def those(self, numbers: Iterable[int]) -> Bools:
        """A mask of the hosts with these numbers."""
        return self.counts(dict.fromkeys(numbers, 1)) > 0

    def by_place(self, by_number: dict[int, int]) -> dict[int, int]:
        """By the place of each host what is counted by its number."""
        if not by_number:
            return {}
        places = np.searchsorted(self.ids, list(by_number)).tolist()
        found = zip(places, by_number.items(), strict=True)
        return {place: count for place, (number, count) in found if place < len(self.ids) and self.ids[place] == number}

    def counts(self, by_number: dict[int, int]) -> Floats:
        """For each host what is counted by its number."""
        counts = np.zeros(len(self.ids))
        found = self.by_place(by_number)
        counts[list(found)] = list(found.values())
        return counts


@dataclass(frozen=True, eq=False)
class Fleet:
    """What is claimed on the hosts and how they are; never changed, but replaced."""

    facts: Facts
    revision: Ints
    seen: NDArray[np.datetime64]
    cpus: Floats
    cpu_used: Floats
    memory: Floats
    memory_used: Floats
    disk: Floats
    disk_used: Floats
    cores: Ints
    cores_used: Ints
    containers: Ints
    disabled: Bools
    draining: Bools
    forced_down: Bools
    tenant: Ints  # see ``tenant_code``

    def __len__(self) -> int:
        return len(self.facts.ids)

    def up(self, now: datetime, lease: float) -> Bools:
        since = np.datetime64(now - timedelta(seconds=lease))
        alive: Bools = ~self.forced_down & (self.seen >= since)
        return alive


_NUMBERS: dict[str, type[Any]] = {
    "revision": np.int64, "cpus": np.float64, "cpu_used": np.float64, "memory": np.float64,
    "memory_used": np.float64, "disk": np.float64, "disk_used": np.float64, "cores": np.int64, "cores_used": np.int64,
    "containers": np.int64, "disabled": np.bool_, "draining": np.bool_, "forced_down": np.bool_, "tenant": np.int64,
}  # fmt: skip
#: What a placement changes.
CHANGED = ("cpu_used", "memory_used", "disk_used", "containers", "tenant")
_FACTS = ("uuid", "name", "zone", "info")
_COLUMNS = [host.c.id, *(host.c[name] for name in (*_FACTS, *_NUMBERS))]
_MARKS = sa.select(host.c.id, host.c.revision, host.c.seen_at).order_by(host.c.id)
_SOME = sa.select(*_COLUMNS).where(host.c.id.in_(sa.bindparam("ids", expanding=True))).order_by(host.c.id)
_ALL = sa.select(*_COLUMNS, host.c.seen_at).order_by(host.c.id)


def _facts(columns: dict[str, tuple[Any, ...]], before: Facts | None) -> Facts:
    """The facts of all hosts; those of before, with their masks, where nothing else is known now."""
    ids = np.array(columns["id"], np.int64)
    uuids, names, zones, texts = (columns[name] for name in _FACTS)
    if before is not None:
        then = before.uuids, before.names, before.zones, before.texts
        if then == (uuids, names, zones, texts) and np.array_equal(before.ids, ids):
            return before
    known = dict(zip(before.texts, before.infos, strict=True)) if before else {}
    numbers: dict[str, int] = {}
    return Facts(
        ids=ids,
        uuids=uuids,
        names=names,
        zones=zones,
        texts=texts,
        infos=tuple(known.get(text) or _info.decode(text) for text in texts),
        rank=np.argsort(np.argsort(np.array(names, np.object_), kind="stable")),
        zone_of=np.array([numbers.setdefault(zone, len(numbers)) for zone in zones], np.int64),
    )


def _array(values: Iterable[Any], name: str) -> NDArray[Any]:
    """A column of ``Fleet`` from that of the table."""
    return np.array(list(map(tenant_code, values) if name == "tenant" else values), _NUMBERS[name])


#: The columns of the rows that ``fleet_of`` takes.
READ = ("id", *_FACTS, *_NUMBERS, "seen_at")


def fleet_of(rows: Sequence[Sequence[Any]], before: Facts | None = None) -> Fleet:
    """All hosts, of rows in the order of their numbers."""
    columns = dict(zip(READ, zip(*rows, strict=True) if rows else [()] * len(READ), strict=True))
    values: dict[str, Any] = {name: _array(columns[name], name) for name in _NUMBERS}
    seen = np.array(columns["seen_at"], "datetime64[us]")
    return Fleet(facts=_facts(columns, before), seen=seen, **values)


def read_again(conn: Connection, fleet: Fleet, places: list[int]) -> None:
    """Put into a fleet whose arrays are the caller's own what others have claimed there meanwhile."""
    places = sorted(places)
    rows = conn.execute(_SOME, {"ids": fleet.facts.ids[places].tolist()}).all()
    if len(rows) == len(places):
        for name in CHANGED:
            getattr(fleet, name)[places] = _array((getattr(row, name) for row in rows), name)


class FleetCache:
    """The fleet as one process knows it. Transactions in several threads may use it: what they share never changes.

    Asked before a transaction changes a host's row itself, so that nothing is kept that is not committed.
    """

    def __init__(self) -> None:
        self._fleet: Fleet | None = None
        self._read_at = 0.0
        self._ranks: tuple[Facts, Ints] | None = None

    def rank(self, facts: Facts) -> Ints:
        """An order of hosts at random that is this process' own: of hosts that are alike, processes that place at
        the same time take others."""
        if self._ranks is None or self._ranks[0] is not facts:
            self._ranks = facts, np.random.default_rng().permutation(len(facts.ids))
        return self._ranks[1]

    def get(self, conn: Connection, age: float = 0.0) -> Fleet:
        """The hosts as they are, or as they were at most ``age`` seconds ago."""
        fleet = self._fleet
        if fleet is not None and age and time.monotonic() - self._read_at < age:
            return fleet
        at = time.monotonic()
        fleet = self._refreshed(conn, fleet)
        self._fleet, self._read_at = fleet, at
        return fleet

    def note(self, fleet: Fleet, place: int, *, cpu: float, memory: int, disk: int) -> None:
        """A claim of this process, for those who go by an older fleet meanwhile."""
        if self._fleet is fleet:
            one = np.zeros(len(fleet))
            one[place] = 1
            self._fleet = replace(
                fleet,
                cpu_used=fleet.cpu_used + cpu * one,
                memory_used=fleet.memory_used + memory * one,
                disk_used=fleet.disk_used + disk * one,
                containers=fleet.containers + one.astype(np.int64),
            )

    def note_all(self, before: Fleet, after: Fleet, places: list[int]) -> None:
        """Whatever claims were made at these places, by which ``before`` became ``after``."""
        if self._fleet is before:
            columns: dict[str, Any] = {name: getattr(before, name).copy() for name in CHANGED}
            for name, column in columns.items():
                column[places] = getattr(after, name)[places]
            self._fleet = replace(before, **columns)

    def _refreshed(self, conn: Connection, fleet: Fleet | None) -> Fleet:
        if fleet is None or len(fleet) <= _FEWEST:
            return self._whole(conn, fleet)
        marks = conn.execute(_MARKS).all()
        seen = [mark.seen_at for mark in marks]
        ids = np.array([mark.id for mark in marks], np.int64)
        if not np.array_equal(fleet.facts.ids, ids):
            return self._whole(conn, fleet)
        (changed,) = np.nonzero(fleet.revision != np.array([mark.revision for mark in marks], np.int64))
        if len(changed) > _FEW:
            return self._whole(conn, fleet)
        fleet = replace(fleet, seen=np.array(seen, "datetime64[us]"))
        if not len(changed):
            return fleet
        rows = conn.execute(_SOME, {"ids": ids[changed].tolist()}).all()
        if len(rows) != len(changed):
            return self._whole(conn, fleet)
        if any(_differs(fleet.facts, row, int(place)) for row, place in zip(rows, changed, strict=True)):
            return self._whole(conn, fleet)
        values: dict[str, Any] = {name: _with(getattr(fleet, name), changed, rows, name) for name in _NUMBERS}
        return replace(fleet, **values)

    def _whole(self, conn: Connection, before: Fleet | None) -> Fleet:
        return fleet_of(_rows(conn), before.facts if before else None)


def _rows(conn: Connection) -> Sequence[Sequence[Any]]:
    if conn.dialect.name != "mariadb":
        return conn.execute(_ALL).all()
    return [msgspec.json.decode(text) for text in conn.execute(packed(_ALL)).scalars()]


def _differs(facts: Facts, row: Row[Any], place: int) -> bool:
    then = (facts.uuids[place], facts.names[place], facts.zones[place], facts.texts[place])
    return then != (row.uuid, row.name, row.zone, row.info)


def _with(old: NDArray[Any], changed: NDArray[np.intp], rows: Iterable[Row[Any]], name: str) -> NDArray[Any]:
    new = old.copy()
    new[changed] = _array((getattr(row, name) for row in rows), name)
    return new
