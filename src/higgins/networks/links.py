"""The host's interfaces: seen, and taken away. The kernel is asked over netlink, which blocks, and so in threads."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from msgspec import Struct
from pyroute2 import IPRoute, NetlinkError
from pyroute2.netns import setns

from higgins.model.errors import EngineError

T = TypeVar("T")

_UP = 1  # IFF_UP
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


def names() -> set[str]:
    """The names of all interfaces of this network namespace."""
    return {name for _, name in socket.if_nameindex()}


async def links() -> dict[str, Link]:
    """All interfaces by name."""
    return await asyncio.to_thread(_links)


def _links() -> dict[str, Link]:
    with IPRoute() as kernel:
        found = list(kernel.get_links())
    name_of = {one["index"]: one.get("IFLA_IFNAME") for one in found}
    return {
        name: Link(
            name=name,
            master=name_of.get(one.get("IFLA_MASTER"), ""),
            alias=one.get("IFLA_IFALIAS") or "",
            up=bool(one["flags"] & _UP),
        )
        for one, name in zip(found, name_of.values(), strict=True)
    }


async def peer_name(namespace: int, interface: str) -> str | None:
    """The host's end of a veth whose other end is ``interface`` in the namespace; None if there is none."""

    def look() -> int | None:
        enter(namespace)
        with IPRoute() as kernel:
            found = [one.get("IFLA_LINK") for one in kernel.get_links() if one.get("IFLA_IFNAME") == interface]
        return found[0] if found else None

    index = await alone(look)
    return next((name for number, name in socket.if_nameindex() if number == index), None)


async def delete(doomed: list[str]) -> None:
    """Make the interfaces be gone; those that vanish meanwhile, with their namespace, are gone too."""
    doomed = sorted(set(doomed) & names())
    if doomed:
        await asyncio.to_thread(_delete, doomed)


def _delete(doomed: list[str]) -> None:
    reasons: dict[str, str] = {}
    with IPRoute() as kernel:
        for name in doomed:
            try:
                kernel.link("del", index=socket.if_nametoindex(name))
            except (NetlinkError, OSError) as error:
                reasons[name] = words(error)
    left = sorted(set(doomed) & names())
    if left:
        raise EngineError(f"The host could not remove {', '.join(left)}: {reasons.get(left[0], 'it is still there')}.")


def overlapping_subnet(subnet: ipaddress.IPv4Network) -> str | None:
    """An interface whose own subnet shares addresses with this one, as "name (subnet)"."""
    with IPRoute() as kernel:
        held = [
            (one["index"], one.get("IFA_LOCAL") or one.get("IFA_ADDRESS"), one["prefixlen"])
            for one in kernel.get_addr(family=socket.AF_INET)
        ]
    for index, address, length in held:
        there = ipaddress.ip_network(f"{address}/{length}", strict=False)
        if there.overlaps(subnet):
            return f"{_name(index)} ({there})"
    return None


def words(error: Exception) -> str:
    """What the kernel says of its refusal."""
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it went away just now
        return f"interface {index}"
