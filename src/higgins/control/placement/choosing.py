"""The decision: sift, sort, and claim the best host that can still be had."""

from collections import Counter

import numpy as np
from msgspec import Struct
from sqlalchemy.engine import Connection

from higgins.control.cloud import Cloud
from higgins.control.placement.claims import claim, free_cores, need_room, release
from higgins.control.placement.filters import FILTERS, Question, sift
from higgins.control.placement.fleet import Ints
from higgins.control.placement.needs import Need
from higgins.control.placement.weighers import order
from higgins.model.errors import NotFound

NO_HOST = "There are not enough hosts available."
#: So many hosts are told of each by its name.
_TOLD = 5
#: How often a host is tried of which more is held all the time, and claimed by others.
_AGAIN = 5
#: Of so many hosts more is asked for, should none of what is held suffice.
_ASKED = 20


class Chosen(Struct, frozen=True):
    """A host that was claimed, and the cores of it that the workload has to itself."""

    id: int
    name: str
    cores: tuple[int, ...] = ()


class Choice(Struct, frozen=True):
    """Pure: the places of the hosts that can take it, best first, and by which filter each other was left out."""

    ask: Question
    fit: Ints
    by: Ints

    def names(self) -> list[str]:
        return [self.ask.fleet.facts.names[place] for place in self.fit]

    def refused(self) -> dict[str, str]:
        """Why each of the others cannot."""
        (out,) = np.nonzero(self.by >= 0)
        names = self.ask.fleet.facts.names
        return {names[place]: FILTERS[self.by[place]].reason(self.ask, int(place)) for place in out}

    def why(self) -> str:
        """A sentence for the owner: of few hosts each one's reason, of many the reasons and how many each concerns."""
        refused = self.refused()
        if len(refused) <= _TOLD:
            return "; ".join(f"{name}: {reason}" for name, reason in sorted(refused.items()))
        counts = Counter(refused.values()).most_common(_TOLD)
        return "; ".join(f"{count} host{'s' * (count > 1)}: {reason}" for reason, count in counts)


def choose(ask: Question) -> Choice:
    """Pure: judge all hosts."""
    fit, by = sift(ask)
    return Choice(ask, order(ask, np.nonzero(fit)[0]), by)


def place(conn: Connection, cloud: Cloud, need: Need) -> tuple[Chosen | None, str]:
    """Claim a host; without one, why not. Raises NotFound for a host that is asked for by name and is not there, and
    RoomNeeded (see ``sharing``).

    What is known of the hosts may be some seconds old where the operator allows it; nobody is turned away for that.
    """
    ages = (cloud.settings.placement_age, 0.0) if cloud.settings.placement_age else (0.0,)
    reason = ""
    for age in ages:
        fleet = cloud.fleet.get(conn, age)
        choice = choose(Question(fleet=fleet, need=need, settings=cloud.settings, now=cloud.now()))
        for place_ in choice.fit:
            chosen = _claim(conn, cloud, choice, int(place_))
            if chosen is not None:
                if cloud.settings.placement_age:
                    cloud.fleet.note(fleet, int(place_), cpu=need.cpu, memory=need.memory, disk=need.disk)
                return chosen, ""
        facts = fleet.facts
        reasons = [choice.why()]
        if age == 0.0 and cloud.settings.placement_steps is not None:
            chosen, full = _in_shared(conn, cloud, choice)
            if chosen is not None:
                return chosen, ""
            reasons += [f"{name}: Placement has no more room on it" for name in full[:_TOLD]]
        reason = f"{NO_HOST} {'; '.join(filter(None, reasons))}".strip()
        if age == 0.0 and need.host is not None and need.host not in facts.names and need.host not in facts.uuids:
            raise NotFound("requested_host", need.host)
    return None, reason


def _in_shared(conn: Connection, cloud: Cloud, choice: Choice) -> tuple[Chosen | None, list[str]]:
    """A host of which there is more held now than a moment ago, or the names of those that others have all the rest of.

    Raises RoomNeeded where more may be had.
    """
    need, facts = choice.ask.need, choice.ask.fleet.facts
    full: list[str] = []
    for place_ in map(int, choice.fit[:_ASKED]):
        host_id = int(facts.ids[place_])
        for _ in range(_AGAIN):  # others claim what is held meanwhile
            if need_room(
                conn, cloud.settings, choice.ask.now, host_id, cpu=need.cpu, memory=need.memory, disk=need.disk
            ):
                full.append(facts.names[place_])
                break
            chosen = _claim(conn, cloud, choice, place_)
            if chosen is not None:
                return chosen, full
    return None, full


def _claim(conn: Connection, cloud: Cloud, choice: Choice, place_: int) -> Chosen | None:
    facts, need = choice.ask.fleet.facts, choice.ask.need
    host_id = int(facts.ids[place_])
    if not claim(conn, host_id, need, cloud.settings, choice.ask.now):
        return None
    if not need.cores:
        return Chosen(host_id, facts.names[place_])
    cores = free_cores(conn, host_id, facts.infos[place_].cores, need.cores)
    if cores is None:  # it offers fewer than when it was told
        release(conn, host_id, cpu=need.cpu, memory=need.memory, disk=need.disk, cores=need.cores)
        return None
    return Chosen(host_id, facts.names[place_], cores)
