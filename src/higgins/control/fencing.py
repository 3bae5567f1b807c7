"""What may be placed elsewhere once its host is lost, and when: the host ends it by itself before that. Pure.

A host is told how long its lease is, and which of its workloads leave it when it is lost. Without an answer for so long
it ends these, and the control plane gives it the time for it. Both count from the same word of the host: it from when
it sent it, the control plane from when it wrote that down, which is at most a part of the lease earlier.

A workload that comes to leave its host after it was placed there is marked ``unheard`` until the host has confirmed, by
asking for what comes after it, that it knows. Until then it may run there for ever, and goes nowhere by itself. So is
one that is to be deleted: its address is no other's before its host knows. So is all that a host holds when an operator
changes the lease or what leaves; what a host was told last is in its row.
"""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row

from higgins.control.rows import CapsuleSpec
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec
from higgins.store.schema import host

#: The part of its lease after which it is written anew that a host is alive.
WORN = 1 / 12

_capsule = msgspec.json.Decoder(CapsuleSpec)


def lease(settings: Settings) -> float | None:
    """Seconds without an answer after which a host takes itself for lost; None where nothing is placed elsewhere."""
    return None if settings.evacuate == "never" else settings.host_lease


def told_all(settings: Settings, row: Any) -> bool:
    """Whether a host, of whose row these columns are, was told the rules that are in force."""
    return bool(row.told_lease == settings.host_lease and row.told_evacuate == settings.evacuate)


def told_enough(settings: Settings) -> sa.ColumnElement[bool]:
    """A host that ends by itself, in time, what leaves it by the rules in force: an earlier end does no harm."""
    same = sa.and_(host.c.told_evacuate == settings.evacuate, host.c.told_lease <= settings.host_lease)
    return sa.or_(host.c.told_evacuate.is_(None), same)


def lost_after(settings: Settings) -> float:
    """Seconds of silence after which what was on a host is placed elsewhere: by then it has ended there."""
    return settings.host_lease * (1 + WORN) + settings.fence_time


def unfit(row: Row[Any], specs: list[ContainerSpec], *, local: str | None, policy: str) -> str | None:
    """Why a workload may not be moved, in words; None if it may.

    ``local`` is a volume of it that lies on the host; ``policy`` what must be so: ``auto_heal``, or ``restart_policy``
    where either that or a restart policy is enough, or ``never``.
    """
    if local is not None:
        return f"its volume {local} lies on this host"
    if specs[0].requested_host is not None:
        return "its owner asked for this host"
    if policy == "never":
        return "the operator lets nothing be moved"
    if any(spec.auto_heal for spec in specs):
        return None
    if policy == "auto_heal":
        return "it is not to be healed (auto_heal)"
    restarts = {spec.restart_policy.name for spec in specs}
    if row.kind == "capsule":
        restarts = {_capsule.decode(row.spec).restart_policy.name}
    return None if restarts - {"no", ""} else "it has no restart policy and is not to be healed (auto_heal)"
