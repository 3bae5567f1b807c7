"""rtnetlink(7), as far as bridges and veths need it: one message and its acknowledgement at a time.

A program for each change (``ip``, a CNI plugin) would take longer to start than the kernel takes for all of it. What
blocks here is the kernel's own lock on interfaces, so callers in the event loop go through a thread.
"""

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from typing import Self

NEW_LINK, DELETE_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDRESS, GET_ADDRESS, NEW_ROUTE = 20, 22, 24
ADDRESS, NAME, MTU, LINK, MASTER, LINK_INFO, ALIAS, NETNS_FD = 1, 3, 4, 5, 10, 18, 20, 28
UP = 1

_CREATE, _EXCLUSIVE = 0x400, 0x200
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_PLACE = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEW_NETWORK = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """One attribute: text ends with a zero byte, a number has 32 bits."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes that ``data`` consists of, by kind."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[length + (-length % 4) :]


def link_message(*parts: bytes, index: int = 0, up: bool | None = None) -> bytes:
    """What is said of an interface, by its index; ``up`` None leaves that as it is."""
    flags, change = (UP if up else 0), (UP if up is not None else 0)
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, change) + b"".join(parts)


def made_of(kind: str, data: bytes = b"") -> bytes:
    """The attribute that says what kind of interface to make."""
    return attribute(LINK_INFO, attribute(1, kind.encode()) + (attribute(2, data) if data else b""))


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class Netlink:
    """A socket to the kernel, in the network namespace that its thread was in when it was made. Closed by ``with``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        for option in (_CAP_ACK, _EXT_ACK):  # refusals with the kernel's own words, without our message
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._number += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, self._number, 0)
        self._socket.send(header + body)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """(kind, body) of each message that answers the last one sent."""
        while True:
            data = self._socket.recv(1 << 18)
            while data:
                length, kind, _, number, _ = _HEADER.unpack_from(data)
                if number == self._number:
                    yield kind, data[_HEADER.size : length]
                data = data[length + (-length % 4) :]

    def ask(self, kind: int, body: bytes, *, new: bool = False) -> None:
        """Do one change. ``new``: it is an error where it is there. Raises OSError with the kernel's words."""
        self._send(kind, _ACKNOWLEDGE | (_CREATE | _EXCLUSIVE if new else 0), body)
        for answer, said in self._answers():
            if answer == _ERROR:
                _check(said)
                return

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all messages of a list. Raises OSError."""
        self._send(kind, _DUMP, body)
        found = []
        for answer, said in self._answers():
            if answer == _ERROR:
                _check(said)
            if answer in (_DONE, _ERROR):
                break
            found.append(said)
        return found

    # what is asked

    def links(self) -> list[tuple[int, bool, dict[int, bytes]]]:
        """(index, whether it is up, attributes) of each interface."""
        found = []
        for body in self.dump(GET_LINK, link_message()):
            _, _, index, flags, _ = _LINK.unpack_from(body)
            found.append((index, bool(flags & UP), dict(attributes(body[_LINK.size :]))))
        return found

    def addresses(self) -> list[tuple[int, bytes, int]]:
        """(interface's index, address, length of its prefix) of each IPv4 address."""
        found = []
        for body in self.dump(GET_ADDRESS, _PLACE.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, length, _, _, index = _PLACE.unpack_from(body)
            held = dict(attributes(body[_PLACE.size :]))
            found.append((index, held.get(2) or held[1], length))
        return found

    def add_address(self, index: int, address: bytes, length: int, broadcast: bytes) -> None:
        """Have an IPv4 address on an interface; there already is done. Raises OSError."""
        body = _PLACE.pack(socket.AF_INET, length, 0, 0, index)
        told = attribute(2, address) + attribute(1, address) + attribute(4, broadcast)
        with contextlib.suppress(FileExistsError):
            self.ask(NEW_ADDRESS, body + told, new=True)

    def add_default_route(self, index: int, gateway: bytes) -> None:
        """Send everything else by way of ``gateway``, unless another way is there already. Raises OSError."""
        main, static, universe, unicast = 254, 4, 0, 1
        body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, main, static, universe, unicast, 0)
        with contextlib.suppress(FileExistsError):
            self.ask(NEW_ROUTE, body + attribute(5, gateway) + attribute(4, index), new=True)


def _check(said: bytes) -> None:
    """Raises OSError for a refusal, in the kernel's words where it has some."""
    (code,) = struct.unpack_from("=i", said)
    if code:
        words = dict(attributes(said[4 + _HEADER.size :])).get(1, b"").rstrip(b"\0").decode(errors="replace")
        raise OSError(-code, words or os.strerror(-code))


def enter(namespace: int) -> None:
    """Have this thread in the network namespace of a descriptor, for the rest of its life. Raises OSError."""
    if _libc.setns(namespace, _NEW_NETWORK) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
