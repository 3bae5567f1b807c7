"""Rules of a port as boxes that do not overlap: a range of remote addresses times a range of ports.

nftables refuses a set whose intervals overlap, while the rules of security groups overlap as their owners please.
"""

import ipaddress
import logging
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from higgins.model.errors import Invalid
from higgins.networks.base import PROTOCOLS, WITH_PORTS, Rule

_log = logging.getLogger(__name__)

Span = tuple[int, int]  # both ends belong to it
Box = tuple[Span, Span]  # remote addresses, ports

ICMP = PROTOCOLS["icmp"]
_ICMP6 = frozenset({"icmpv6", "ipv6-icmp", "58"})
_ALL_ADDRESSES: Span = (0, 2**32 - 1)
_ALL_PORTS: Span = (0, 65535)


def boxes(rules: Iterable[Rule]) -> dict[int | None, list[Box]]:
    """By IP protocol number (None: whatever protocol), in ascending order.

    For ICMP the "ports" are type times 256 plus code, the first two bytes of its header. Rules that speak of IPv6 let
    nothing of IPv4 in and are left out. So is a rule that makes no sense: it lets nothing in either, and one tenant's
    rule must not keep the filters of a whole host as they were. The log names it.
    """
    by_protocol: dict[int | None, list[Box]] = defaultdict(list)
    for rule in rules:
        try:
            found = box(rule)
        except Invalid as error:
            _log.warning("a rule is left out: %s", error)
            continue
        if found is not None:
            by_protocol[found[0]].append(found[1])
    return {protocol: disjoint(found) for protocol, found in by_protocol.items()}


def box(rule: Rule) -> tuple[int | None, Box] | None:
    """The rule's protocol and box; None if it is about IPv6. Raises ``Invalid`` if it makes no sense."""
    remote = _remote(rule)
    if remote is None or rule.protocol in _ICMP6:
        return None
    protocol = _number(rule)
    return protocol, (remote, _ports(rule, protocol))


def disjoint(overlapping: Iterable[Box]) -> list[Box]:
    """The same points as boxes that share none, cut along the remote addresses."""
    given = list(overlapping)
    edges = sorted({edge for (low, high), _ in given for edge in (low, high + 1)})
    result: list[Box] = []
    for low, next_low in pairwise(edges):
        ports = _union(span for (first, last), span in given if first <= low and next_low - 1 <= last)
        result.extend(((low, next_low - 1), span) for span in ports)
    return _joined(result)


def _joined(parts: list[Box]) -> list[Box]:
    """Neighbours along the remote addresses with the same ports made one again."""
    open_ends: dict[Span, Span] = {}
    result: list[Box] = []
    for remote, ports in parts:
        before = open_ends.get(ports)
        if before is not None and before[1] + 1 == remote[0]:
            remote = (before[0], remote[1])
        elif before is not None:
            result.append((before, ports))
        open_ends[ports] = remote
    result.extend((remote, ports) for ports, remote in open_ends.items())
    return sorted(result)


def _union(spans: Iterable[Span]) -> list[Span]:
    result: list[Span] = []
    for low, high in sorted(spans):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return result


def _number(rule: Rule) -> int | None:
    if rule.protocol is None or rule.protocol in ("", "any"):
        return None
    if rule.protocol in PROTOCOLS:
        return PROTOCOLS[rule.protocol]
    if rule.protocol.isdecimal() and 0 <= int(rule.protocol) <= 255:
        return int(rule.protocol)
    raise Invalid(f"The protocol {rule.protocol!r} of a rule is not known.")


def _remote(rule: Rule) -> Span | None:
    if rule.remote is None:
        return _ALL_ADDRESSES
    try:
        network = ipaddress.ip_network(rule.remote, strict=False)
    except ValueError as error:
        raise Invalid(f"The remote {rule.remote!r} of a rule is not a CIDR.") from error
    if not isinstance(network, ipaddress.IPv4Network):
        return None
    return int(network.network_address), int(network.broadcast_address)


def _ports(rule: Rule, protocol: int | None) -> Span:
    if protocol == ICMP:
        return _echoes(rule)
    if protocol not in WITH_PORTS or (rule.port_min is None and rule.port_max is None):
        return _ALL_PORTS
    low = rule.port_min if rule.port_min is not None else rule.port_max
    high = rule.port_max if rule.port_max is not None else rule.port_min
    if low is None or high is None or not 0 <= low <= high <= _ALL_PORTS[1]:
        raise Invalid(f"{low}-{high} is not a range of ports.")
    return low, high


def _echoes(rule: Rule) -> Span:
    """Of an ICMP rule ``port_min`` is the type and ``port_max`` the code, as in Neutron's security groups."""
    kind, code = rule.port_min, rule.port_max
    if kind is None:
        return _ALL_PORTS
    if not 0 <= kind <= 255 or not 0 <= (code or 0) <= 255:
        raise Invalid(f"{kind}/{code} is not an ICMP type and code.")
    return (kind * 256, kind * 256 + 255) if code is None else (kind * 256 + code, kind * 256 + code)
