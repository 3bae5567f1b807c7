"""The host's interfaces: seen, and taken away. What asks the kernel does so in a thread (see ``netlink``)."""

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from msgspec import Struct

from higgins.model.errors import EngineError
from higgins.networks.cni import netlink
from higgins.networks.cni.netlink import Netlink

T = TypeVar("T")


class Link(Struct, frozen=True):
    """An interface. ``master`` is the bridge it is in; ``alias`` a free text that the kernel keeps with it."""

    name: str
    master: str = ""
    alias: str = ""
    up: bool = False


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


def names() -> set[str]:
    """The names of all interfaces of this network namespace."""
    return {name for _, name in socket.if_nameindex()}


async def links() -> dict[str, Link]:
    """All interfaces by name."""
    return await asyncio.to_thread(_links)


def _links() -> dict[str, Link]:
    with Netlink() as kernel:
        found = kernel.links()
    name_of = {index: _text(held[netlink.NAME]) for index, _, held in found}
    return {
        name_of[index]: Link(
            name=name_of[index],
            master=name_of.get(_number(held.get(netlink.MASTER)), ""),
            alias=_text(held.get(netlink.ALIAS, b"")),
            up=up,
        )
        for index, up, held in found
    }


async def peer_name(namespace: int, interface: str) -> str | None:
    """The host's end of a veth whose other end is ``interface`` in the namespace; None if there is none."""

    def look() -> int:
        netlink.enter(namespace)
        with Netlink() as kernel:
            for _, _, held in kernel.links():
                if _text(held[netlink.NAME]) == interface:
                    return _number(held.get(netlink.LINK))
        return 0

    index = await alone(look)
    return next((name for number, name in socket.if_nameindex() if number == index), None)


async def delete(doomed: list[str]) -> None:
    """Make the interfaces be gone; those that vanish meanwhile, with their namespace, are gone too."""
    doomed = sorted(set(doomed) & names())
    if doomed:
        await asyncio.to_thread(_delete, doomed)


def _delete(doomed: list[str]) -> None:
    reasons: dict[str, str] = {}
    with Netlink() as kernel:
        for name in doomed:
            try:
                kernel.ask(netlink.DELETE_LINK, netlink.link_message(netlink.attribute(netlink.NAME, name)))
            except OSError as error:
                reasons[name] = error.strerror or str(error)
    left = sorted(set(doomed) & names())
    if left:
        raise EngineError(f"The host could not remove {', '.join(left)}: {reasons.get(left[0], 'it is still there')}.")


def overlapping_subnet(subnet: ipaddress.IPv4Network) -> str | None:
    """An interface whose own subnet shares addresses with this one, as "name (subnet)"."""
    with Netlink() as kernel:
        held = kernel.addresses()
    for index, address, length in held:
        there = ipaddress.ip_network((address, length), strict=False)
        if there.overlaps(subnet):
            return f"{_name(index)} ({there})"
    return None


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it went away just now
        return f"interface {index}"


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, sys.byteorder) if value else 0
