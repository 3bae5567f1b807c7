"""Orders and questions to the kernel over rtnetlink: as pyroute2 words them, over a plain socket.

pyroute2's own calls (``IPRoute``) run an event loop for each message and take all of each answer apart, which is ten
times the work. Here several messages go at once, and of an answer only what is asked for is read. All of it blocks.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, Self

from msgspec import Struct
from pyroute2 import NetlinkError
from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

#: Attributes that are read: linux/if_link.h, linux/if_addr.h.
IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, IFLA_IFALIAS = 3, 5, 10, 20
IFA_ADDRESS, IFA_LOCAL = 1, 2
_UP = 1  # IFF_UP
_SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS: without the counters, most of an answer
_PROTO_STATIC, _UNICAST, _MAIN = 4, 1, 254  # RTPROT_STATIC, RTN_UNICAST, RT_TABLE_MAIN
#: The longest datagram that the kernel answers with.
_LONGEST = 1 << 16
#: How often is looked before what was seen has to do, on a host whose interfaces come and go all the time.
_LOOKS = 5
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")

Attributes = dict[int, bytes]


class HeldLink(Struct, frozen=True):
    """An interface as the kernel tells it."""

    index: int
    up: bool
    attributes: Attributes

    def text(self, attribute: int) -> str:
        return self.attributes.get(attribute, b"").rstrip(b"\0").decode(errors="replace")

    def number(self, attribute: int) -> int | None:
        value = self.attributes.get(attribute)
        return None if value is None else int.from_bytes(value, sys.byteorder)


class HeldAddress(Struct, frozen=True):
    """An address of an interface, packed; ``length`` is its prefix's."""

    index: int
    address: bytes
    length: int


class Kernel:
    """A socket in the network namespace of the thread that opens it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def do(self, *orders: Any) -> None:
        """Have all of these done, one after the other, whatever becomes of each.

        Raises NetlinkError for the first that was refused.
        """
        self._socket.send(b"".join(_encoded(order, NLM_F_ACK) for order in orders))
        codes: list[int] = []
        while len(codes) < len(orders):
            codes += [_code(body) for kind, _, body in self._received() if kind == NLMSG_ERROR]
        refused = next((code for code in codes if code), 0)
        if refused:
            raise NetlinkError(refused, os.strerror(refused))

    def links(self) -> list[HeldLink]:
        """All interfaces."""
        held = []
        for body in self._all(_link_message(RTM_GETLINK, (("IFLA_EXT_MASK", _SKIP_STATS),))):
            _, _, index, flags, _ = _LINK.unpack_from(body)
            held.append(HeldLink(index, bool(flags & _UP), _attributes(body[_LINK.size :])))
        return held

    def addresses(self) -> list[HeldAddress]:
        """All IPv4 addresses."""
        question = ifaddrmsg()
        question["header"] = {"type": RTM_GETADDR}
        question["family"] = socket.AF_INET
        held = []
        for body in self._all(question):
            _, length, _, _, index = _ADDRESS.unpack_from(body)
            found = _attributes(body[_ADDRESS.size :])
            held.append(HeldAddress(index, found.get(IFA_LOCAL) or found[IFA_ADDRESS], length))
        return held

    def _all(self, question: Any) -> list[bytes]:
        """The answers. The kernel marks those in which something was missed because it changed meanwhile."""
        asked = _encoded(question, NLM_F_DUMP)
        for _ in range(_LOOKS):
            self._socket.send(asked)
            answers, whole = self._answers()
            if whole:
                break
        return answers

    def _answers(self) -> tuple[list[bytes], bool]:
        """Until the last one, and whether nothing was missed. Raises NetlinkError where the kernel breaks off."""
        answers: list[bytes] = []
        whole = True
        while True:
            for kind, flags, body in self._received():
                whole = whole and not flags & NLM_F_DUMP_INTR
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    if code := _code(body):  # the last one may say as well that the others are not all
                        raise NetlinkError(code, os.strerror(code))
                    return answers, whole
                answers.append(body)

    def _received(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and body of each message of a datagram."""
        datagram = self._socket.recv(_LONGEST)
        place = 0
        while place < len(datagram):
            length, kind, flags, *_ = _HEADER.unpack_from(datagram, place)
            yield kind, flags, datagram[place + _HEADER.size : place + length]
            place += _aligned(length)


def new_link(
    *attributes: tuple[str, Any], kind: str, about: tuple[tuple[str, Any], ...] = (), up: bool | None = None
) -> Any:
    """An order: make an interface. ``about`` are attributes of its kind. Refused with EEXIST where one has its name."""
    told = {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": list(about)})]}
    attributes = (*attributes, ("IFLA_LINKINFO", told))
    return _link_message(RTM_NEWLINK, attributes, flags=NLM_F_CREATE | NLM_F_EXCL, up=up)


def change_link(index: int, *attributes: tuple[str, Any], up: bool | None = None) -> Any:
    """An order: change an interface; ``up`` switches it on or off."""
    return _link_message(RTM_NEWLINK, attributes, index=index, up=up)


def delete_link(index: int) -> Any:
    return _link_message(RTM_DELLINK, (), index=index)


def look_at(index: int) -> Any:
    """A question about one interface, whose answer nobody reads."""
    return _link_message(RTM_GETLINK, (), index=index)


def hold_address(index: int, address: str, length: int, broadcast: str) -> Any:
    """An order: let the interface have the address, as it may have it already."""
    made = ifaddrmsg()
    made["header"] = {"type": RTM_NEWADDR, "flags": NLM_F_CREATE | NLM_F_REPLACE}
    made["family"], made["prefixlen"], made["index"] = socket.AF_INET, length, index
    made["attrs"] = [("IFA_LOCAL", address), ("IFA_ADDRESS", address), ("IFA_BROADCAST", broadcast)]
    return made


def lead_out(index: int, gateway: str) -> Any:
    """An order: let the default route be by that gateway, as it may be already."""
    made = rtmsg()
    made["header"] = {"type": RTM_NEWROUTE, "flags": NLM_F_CREATE | NLM_F_REPLACE}
    made["family"], made["table"], made["proto"], made["type"] = socket.AF_INET, _MAIN, _PROTO_STATIC, _UNICAST
    made["attrs"] = [("RTA_GATEWAY", gateway), ("RTA_OIF", index)]
    return made


def _link_message(
    kind: int, attributes: tuple[tuple[str, Any], ...], *, index: int = 0, flags: int = 0, up: bool | None = None
) -> Any:
    made = ifinfmsg()
    made["header"] = {"type": kind, "flags": flags}
    made["index"] = index
    made["attrs"] = list(attributes)
    if up is not None:
        made["flags"], made["change"] = (_UP if up else 0), _UP
    return made


def _encoded(message: Any, flags: int) -> bytes:
    message["header"]["flags"] = message["header"].get("flags", 0) | NLM_F_REQUEST | flags
    message.encode()
    return bytes(message.data)


def _code(body: bytes) -> int:
    """Of an answer that is an error or the last one: the error's number, 0 where there was none."""
    return -int.from_bytes(body[:4], sys.byteorder, signed=True)


def _attributes(data: bytes) -> Attributes:
    found: Attributes = {}
    place = 0
    while place + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[place + _ATTRIBUTE.size : place + length]
        place += _aligned(length)
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3
