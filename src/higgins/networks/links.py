"""The host's interfaces: seen with one ``ip -json``, changed with one ``ip -batch``."""

import ipaddress
import json
import socket
from typing import Any

from msgspec import Struct

from higgins.model.errors import EngineError
from higgins.programs import end_of, last_words, run


class Link(Struct, frozen=True):
    """An interface. ``master`` is the bridge it is in; ``alias`` a free text that the kernel keeps with it."""

    name: str
    master: str = ""
    alias: str = ""
    up: bool = False


def names() -> set[str]:
    """The names of all interfaces of this network namespace, without starting a program."""
    return {name for _, name in socket.if_nameindex()}


async def links() -> dict[str, Link]:
    """All interfaces by name."""
    found: list[dict[str, Any]] = json.loads(await run("ip", "-json", "link", "show") or "[]")
    return {link.name: link for link in map(_link, found)}


async def peer_name(netns: str, interface: str) -> str | None:
    """The host's end of a veth whose other end is ``interface`` in the namespace; None if there is none."""
    ended = await end_of("nsenter", f"--net={netns}", "ip", "-json", "link", "show", "dev", interface)
    if ended.code != 0:
        return None
    index = json.loads(ended.out)[0].get("link_index")
    return next((name for number, name in socket.if_nameindex() if number == index), None)


async def change(lines: list[str]) -> None:
    """Do the commands in order, stopping at the first that fails. Raises ``EngineError``."""
    await run("ip", "-batch", "-", feed="\n".join(lines) + "\n")


async def delete(doomed: list[str]) -> None:
    """Make the interfaces be gone; those that vanish meanwhile, with their namespace, are gone too."""
    doomed = sorted(set(doomed) & names())
    if not doomed:
        return
    ended = await end_of("ip", "-force", "-batch", "-", feed="".join(f"link delete dev {name}\n" for name in doomed))
    left = set(doomed) & names()
    if left:
        raise EngineError(f"The host could not remove {', '.join(sorted(left))}: {last_words(ended)}.")


async def overlapping_subnet(subnet: str) -> str | None:
    """An interface whose own subnet shares addresses with this one, as "name (subnet)"."""
    wanted = ipaddress.ip_network(subnet, strict=False)
    for link in json.loads(await run("ip", "-json", "-4", "address", "show") or "[]"):
        for info in link.get("addr_info", []):
            there = ipaddress.ip_network(f"{info['local']}/{info['prefixlen']}", strict=False)
            if there.overlaps(wanted):
                return f"{link['ifname']} ({there})"
    return None


def _link(found: dict[str, Any]) -> Link:
    return Link(
        name=found["ifname"],
        master=found.get("master", ""),
        alias=found.get("ifalias", ""),
        up="UP" in found.get("flags", []),
    )
