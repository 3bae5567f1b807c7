"""What is read of the kernel's answers."""

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from higgins.model.errors import EngineError
from higgins.networks import links, netlink
from higgins.networks.netlink import Kernel

_HEADER = struct.Struct("=IHHII")
_LINK = struct.pack("=BxHiII", 0, 1, 7, 1, 0) + struct.pack("=HH", 8, netlink.IFLA_IFNAME) + b"eth\0"
NEWLINK, DONE, MULTI, INTERRUPTED = 16, 3, 2, 0x10


def message(kind: int, body: bytes, flags: int = MULTI) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def done(code: int, flags: int = MULTI) -> bytes:
    return message(DONE, struct.pack("=i", -code), flags)


@pytest.fixture
def other_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where the kernel would be."""
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(Kernel, "__init__", lambda kernel: setattr(kernel, "_socket", ours))
    with ours, other:
        yield other


def test_a_list_in_several_pieces_is_one(other_end: socket.socket) -> None:
    for piece in (message(NEWLINK, _LINK) * 2, message(NEWLINK, _LINK), done(0)):
        other_end.send(piece)
    with Kernel() as kernel:
        assert [(one.index, one.up, one.text(netlink.IFLA_IFNAME)) for one in kernel.links()] == [(7, True, "eth")] * 3


def test_a_list_in_which_something_was_missed_is_asked_for_again(other_end: socket.socket) -> None:
    for piece in (message(NEWLINK, _LINK), done(0, MULTI | INTERRUPTED), message(NEWLINK, _LINK) * 2, done(0)):
        other_end.send(piece)
    with Kernel() as kernel:
        assert len(kernel.links()) == 2


async def test_a_list_that_the_kernel_broke_off_is_none(other_end: socket.socket) -> None:
    """Whoever took it for all there is would remove what is in use."""
    for piece in (message(NEWLINK, _LINK), done(errno.EMSGSIZE)):
        other_end.send(piece)
    with pytest.raises(EngineError, match="does not tell its interfaces: Message too long"):
        await links.links()
