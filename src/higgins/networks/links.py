"""The host's interfaces: seen, and taken away. The kernel is asked over netlink, which blocks, and so in threads."""

import asyncio
import errno
import fcntl
import ipaddress
import re
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from msgspec import Struct
from pyroute2 import NetlinkError
from pyroute2.netns import setns

from higgins.model.errors import EngineError
from higgins.networks.netlink import IFLA_IFALIAS, IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, Kernel, delete_link

T = TypeVar("T")

#: Of linux/sockios.h; it takes an ifreq, a name of 16 bytes and as much room as its longest answer takes.
_SIOCGIFINDEX = 0x8933
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


class Link(Struct, frozen=True):
    """An interface. ``master`` is the bridge it is in; ``alias`` a free text that the kernel keeps with it."""

    name: str
    master: str = ""
    alias: str = ""
    up: bool = False


def is_interface_name(value: str) -> bool:
    """Whether it is one that a port may be given: such a name stands in commands and paths."""
    return _INTERFACE.fullmatch(value) is not None


def is_mac(value: str) -> bool:
    return _MAC.fullmatch(value) is not None


async def alone(work: Callable[[], T]) -> T:
    """Do ``work`` in a thread that ends with it, so that it may enter another namespace.

    Who is cancelled waits for its end all the same: nothing goes on changing the host behind a caller who has left.
    """
    thread = ThreadPoolExecutor(1, "higgins-wire")
    doing = asyncio.get_running_loop().run_in_executor(thread, work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise
    finally:
        thread.shutdown(wait=False)


def enter(namespace: int) -> None:
    """Have this thread in the network namespace of a descriptor, for the rest of its life. Raises OSError."""
    setns(namespace)


def there(name: str) -> bool:
    """Whether this network namespace has an interface of that name. Raises OSError where that cannot be seen."""
    # Not by if_nametoindex: it does not say why it has found none.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        try:
            fcntl.ioctl(asked, _SIOCGIFINDEX, struct.pack("40s", name.encode()))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
    return True


async def links() -> dict[str, Link]:
    """All interfaces by name. Raises ``EngineError`` where the kernel does not tell all of them."""
    try:
        return await asyncio.to_thread(_links)
    except (NetlinkError, OSError) as error:
        raise EngineError(f"The host does not tell its interfaces: {words(error)}.") from error


def _links() -> dict[str, Link]:
    with Kernel() as kernel:
        found = {one.index: one for one in kernel.links()}
    names = {index: one.text(IFLA_IFNAME) for index, one in found.items()}
    return {
        names[index]: Link(
            name=names[index],
            master=names.get(one.number(IFLA_MASTER) or 0, ""),
            alias=one.text(IFLA_IFALIAS),
            up=one.up,
        )
        for index, one in found.items()
    }


async def peer_name(namespace: int, interface: str) -> str | None:
    """The host's end of a veth whose other end is ``interface`` in the namespace; None if there is none."""

    def look() -> int | None:
        enter(namespace)
        with Kernel() as kernel:
            return next((one.number(IFLA_LINK) for one in kernel.links() if one.text(IFLA_IFNAME) == interface), None)

    index = await alone(look)
    return next((name for number, name in socket.if_nameindex() if number == index), None)


async def delete(doomed: list[str]) -> None:
    """Make the interfaces be gone; those that vanish meanwhile, with their namespace, are gone too."""
    doomed = sorted({name for name in doomed if there(name)})
    if doomed:
        await asyncio.to_thread(_delete, doomed)


def _delete(doomed: list[str]) -> None:
    reasons: dict[str, str] = {}
    with Kernel() as kernel:
        for name in doomed:
            try:
                kernel.do(delete_link(socket.if_nametoindex(name)))
            except (NetlinkError, OSError) as error:
                reasons[name] = words(error)
    left = sorted(name for name in doomed if there(name))
    if left:
        raise EngineError(f"The host could not remove {', '.join(left)}: {reasons.get(left[0], 'it is still there')}.")


def overlapping_subnet(subnet: ipaddress.IPv4Network) -> str | None:
    """An interface whose own subnet shares addresses with this one, as "name (subnet)"."""
    with Kernel() as kernel:
        held = kernel.addresses()
    for one in held:
        other = ipaddress.ip_network((one.address, one.length), strict=False)
        if other.overlaps(subnet):
            return f"{_name(one.index)} ({other})"
    return None


def words(error: Exception) -> str:
    """What the kernel says of its refusal."""
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it went away just now
        return f"interface {index}"
