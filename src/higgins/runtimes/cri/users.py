"""User namespaces: root of a container is nobody on the host, and each sandbox nobody else. Pure.

A sandbox has 65536 of the host's user and group ids for itself, out of those that the operator sets aside for it. Which
ones, is an annotation of its own and of its containers: whatever takes its place, after a boot of the host, gets the
same, as its containers' files belong to them.
"""

from collections.abc import Collection, Mapping

from cri_api.v1 import api_pb2 as cri
from msgspec import Struct

from higgins.model.errors import EngineError

#: How many a sandbox gets, as on every host that has user namespaces: an image's users are below.
EACH = 1 << 16
ANNOTATION = "org.higgins.users"


class Ids(Struct, frozen=True):
    """The host's ids that sandboxes may have: ``count`` of them from ``first`` on."""

    first: int
    count: int

    def free(self, taken: Collection[int]) -> int:
        """The first id of the lowest part that no sandbox has. Raises ``EngineError`` where there is none."""
        for first in range(self.first, self.first + self.count - EACH + 1, EACH):
            if first not in taken:
                return first
        raise EngineError("This host has no user ids left for another sandbox: the range of user_ids is too short.")


def parse(text: str) -> Ids | None:
    """``first:count``; None where nothing is set. Raises ``EngineError`` for what gives no sandbox its ids."""
    if not text:
        return None
    first, _, count = text.partition(":")
    if not (first.isdecimal() and count.isdecimal()):
        raise EngineError(
            f"user_ids is {text}, and should be two numbers: the first id, and how many (1000000:65536000)."
        )
    ids = Ids(int(first), int(count))
    if ids.first < EACH or ids.count < EACH or ids.first + ids.count > 1 << 32:
        raise EngineError(f"user_ids is {text}: the first must be {EACH} or more, and {EACH} the least of them.")
    return ids


def of(annotations: Mapping[str, str]) -> int | None:
    """The first id of a sandbox or container, None where it has the host's."""
    told = annotations.get(ANNOTATION)
    return None if told is None else int(told)


def annotation(first: int | None) -> dict[str, str]:
    return {} if first is None else {ANNOTATION: str(first)}


def mapping(first: int) -> list[cri.IDMapping]:
    """The container's ids from 0 on as the host numbers them."""
    return [cri.IDMapping(host_id=first, container_id=0, length=EACH)]


def namespace(first: int | None) -> cri.UserNamespace | None:
    """As CRI is asked for it."""
    if first is None:
        return None
    return cri.UserNamespace(mode=cri.POD, uids=mapping(first), gids=mapping(first))


def ping_group_range(first: int | None) -> str:
    """The sysctl that lets everybody ping: all groups that there are."""
    return f"0 {(1 << 31 if first is None else EACH) - 1}"
