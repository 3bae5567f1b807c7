"""Who reaches whom: the filters of a host as one nftables ruleset, a pure function of the ports.

Two tables of one name are ours, and one transaction replaces both; no other table is looked at or touched.

* ``inet`` filters what is forwarded, between bridges and also inside one: each bridge sends its own traffic through
  this hook (``nf_call_iptables``), so that connection tracking works there too, on kernels with and without
  conntrack for bridges. Its nat chain masquerades what leaves for the outside.
* ``bridge`` holds each port to its own MAC and IP address, in ARP too. Whatever is neither IPv4 nor ARP is dropped,
  and so is everything from a port that is in no filter: a port is silent until it is known.

The number of rules does not grow with ports: they are elements of sets. Per project there is one chain and one set,
because nftables cannot compare the results of two lookups ("is the sender's project the receiver's?"). What a security
group lets in is there once, in a chain of its own, and not once for each port: nft takes a minute for 100 000 elements.

Interfaces are known by the first letters of their names, so that one too new to be in a set is held to nothing less;
no other interface of the host may begin with them.

Neighbours are ports on other hosts. What comes from one through a tunnel is held to its MAC and IP address too, and is
judged as what its project's ports here send; what goes to one is judged where it is. A tunnel's packets are taken only
from a host that has a port of that network.

A container reaches the outside, and the host itself at any of its addresses; the host reaches every container.
A connection that was let in stays when its rule goes: only new ones are judged.
"""

import ipaddress
import logging
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from msgspec.json import encode

from higgins.model.errors import Invalid
from higgins.networks.base import Neighbour, PortFilter, Rule
from higgins.networks.local.boxes import ICMP, Span, boxes
from higgins.networks.local.wires import (
    BRIDGE_PREFIX,
    PORT_PREFIX,
    TUNNEL_PREFIX,
    bridge_name,
    checked_mac,
    port_name,
    tunnel_name,
)

_log = logging.getLogger(__name__)
_BRIDGES = f'"{BRIDGE_PREFIX}*"'
_PORTS = f'"{PORT_PREFIX}*"'
_TUNNELS = f'"{TUNNEL_PREFIX}*"'


def ruleset(
    filters: Iterable[PortFilter],
    neighbours: Iterable[Neighbour] = (),
    *,
    table: str = "higgins",
    reach_host: bool = True,
    tunnel_port: int = 4789,
) -> str:
    """What ``nft -f`` reads to make these the filters of the host. The same filters give the same text.

    Without ``reach_host`` containers open no connection to the host itself (they may ping it). Raises ``Invalid`` for
    a port whose uuid, address or MAC is none.
    """
    ports = _unambiguous(sorted(filters, key=lambda port: port.uuid))
    projects = {project: number for number, project in enumerate(sorted({port.project_id for port in ports}))}
    taken = {_place(port) for port in ports}  # by a port that has just come here: it is no neighbour any more
    beyond = sorted((one for one in neighbours if _place(one) not in taken), key=_place)
    lines = [f"table {family} {table}\ndelete table {family} {table}" for family in ("inet", "bridge")]
    lines += [f"table inet {table} {{", *_sets(ports, beyond, projects), *_project_chains(ports, projects)]
    lines += [
        *_group_chains(ports),
        _FORWARD,
        _host_chain(reach_host),
        _tunnel_chain(beyond, tunnel_port),
        _MASQUERADE,
        "}",
    ]
    lines += [f"table bridge {table} {{", *_senders(ports, beyond), _SPOOFING, "}"]
    return "\n".join(lines) + "\n"


def no_ruleset(table: str) -> str:
    """What makes our tables go, and is no error where they are not there."""
    return "".join(f"table {family} {table}\ndelete table {family} {table}\n" for family in ("inet", "bridge"))


def _unambiguous(ports: list[PortFilter]) -> list[PortFilter]:
    """IPv4 ports whose place (network and address) is theirs alone.

    Two ports at one place are a port being replaced, or a fault; either way nobody can tell whose traffic it is, so
    that neither gets any, and the other ports of the host go on.
    """
    places: dict[tuple[str, str], list[PortFilter]] = defaultdict(list)
    for port in ports:
        if _canonical(port.address).version == 4:
            places[_place(port)].append(port)
    for (bridge, address), claimants in places.items():
        if len(claimants) > 1:
            names = ", ".join(port.uuid for port in claimants)
            _log.warning("ports %s share the address %s on %s: none of them is let through", names, address, bridge)
    return [claimants[0] for claimants in places.values() if len(claimants) == 1]


def _place(port: PortFilter | Neighbour) -> tuple[str, str]:
    return bridge_name(port.network), str(_canonical(port.address))


@lru_cache(maxsize=16384)
def _canonical(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Asked for each port several times at every change of any."""
    try:
        return ipaddress.ip_address(address)
    except ValueError as error:
        raise Invalid(f"{address!r} is not the address of a port.") from error


def _key(port: PortFilter | Neighbour) -> str:
    bridge, address = _place(port)
    return f'"{bridge}" . {address}'


def _sets(ports: list[PortFilter], beyond: list[Neighbour], projects: dict[str, int]) -> list[str]:
    anything, services, echoes = [], [], []
    for port in ports:
        for protocol, found in boxes(port.rules).items():
            for remote, span in found:
                place = f"{_key(port)} . {_addresses(remote)}"
                if protocol is None:
                    anything.append(place)
                elif protocol == ICMP:
                    echoes.append(f"{place} . {_numbers(span)}")
                else:
                    services.append(f"{place} . {protocol} . {_numbers(span)}")
    everywhere: list[PortFilter | Neighbour] = [*ports, *beyond]
    known = [port for port in everywhere if port.project_id in projects]
    senders = [f"{_key(port)} : jump project_{projects[port.project_id]}" for port in known]
    addresses = sorted({_place(port)[1] for port in ports})
    return [
        _set("set containers", "ipv4_addr", addresses),
        _set("set places", "ifname . ipv4_addr", [_key(port) for port in everywhere]),
        _set("set beyond", "ifname . ipv4_addr", [_key(port) for port in beyond]),
        _set("map sender_project", "ifname . ipv4_addr : verdict", senders),
        _set("set open_to_remote", "ifname . ipv4_addr . ipv4_addr", anything, interval=True),
        _set(
            "set open_services", "ifname . ipv4_addr . ipv4_addr . inet_proto . inet_service", services, interval=True
        ),
        _set("set open_echoes", "ifname . ipv4_addr . ipv4_addr . inet_service", echoes, interval=True),
    ]


def _project_chains(ports: list[PortFilter], projects: dict[str, int]) -> list[str]:
    """One per project, entered by what its ports send: to ports of its own that are open to it, on any network."""
    lines = []
    for project, number in projects.items():
        mine = [_key(port) for port in ports if port.project_id == project and port.project_open]
        lines.append(_set(f"set open_{number}", "ifname . ipv4_addr", mine))
        lines.append(f"  chain project_{number} {{\n    oifname . ip daddr @open_{number} accept\n  }}")
    return lines


def _group_chains(ports: list[PortFilter]) -> list[str]:
    """One per list of rules that ports have in common, and one per choice of such lists, entered by the receiver."""
    lists = {_text(rules): rules for rules in {rules for port in ports for rules in port.groups if rules}}
    texts = {rules: text for text, rules in lists.items()}
    groups = {text: number for number, text in enumerate(sorted(lists))}
    chosen = [(_key(port), tuple(sorted({texts[rules] for rules in port.groups if rules}))) for port in ports]
    numbers = {choice: number for number, choice in enumerate(sorted({choice for _, choice in chosen if choice}))}
    lines = [line for text, number in groups.items() for line in _group(number, lists[text])]
    for choice, number in numbers.items():
        jumps = "".join(f"    jump group_{groups[text]}\n" for text in choice)
        lines.append(f"  chain groups_{number} {{\n{jumps}  }}")
    receivers = [f"{key} : jump groups_{numbers[choice]}" for key, choice in chosen if choice]
    return [*lines, _set("map receiver_groups", "ifname . ipv4_addr : verdict", receivers)]


def _text(rules: tuple[Rule, ...]) -> str:
    return encode(rules).decode()


def _group(number: int, rules: tuple[Rule, ...]) -> list[str]:
    anything, services, echoes = [], [], []
    for protocol, found in boxes(rules).items():
        for remote, span in found:
            if protocol is None:
                anything.append(_addresses(remote))
            elif protocol == ICMP:
                echoes.append(f"{_addresses(remote)} . {_numbers(span)}")
            else:
                services.append(f"{_addresses(remote)} . {protocol} . {_numbers(span)}")
    return [
        _set(f"set remotes_{number}", "ipv4_addr", anything, interval=True),
        _set(f"set services_{number}", "ipv4_addr . inet_proto . inet_service", services, interval=True),
        _set(f"set echoes_{number}", "ipv4_addr . inet_service", echoes, interval=True),
        f"""  chain group_{number} {{
    ip saddr @remotes_{number} accept
    ip saddr . ip protocol . th dport @services_{number} accept
    ip protocol icmp ip saddr . @th,0,16 @echoes_{number} accept
  }}""",
    ]


def _senders(ports: list[PortFilter], beyond: list[Neighbour]) -> list[str]:
    bound, unbound = [], []
    for port in ports:
        address = _place(port)[1]
        if port.mac:
            bound.append(f'"{port_name(port.uuid)}" . {checked_mac(port.mac)} . {address}')
        else:
            unbound.append(f'"{port_name(port.uuid)}" . {address}')
    bound += [f'"{tunnel_name(one.network)}" . {checked_mac(one.mac)} . {_place(one)[1]}' for one in beyond]
    return [
        _set("set senders", "ifname . ether_addr . ipv4_addr", bound),
        _set("set senders_of_any_mac", "ifname . ipv4_addr", unbound),
    ]


def _set(kind: str, types: str, elements: list[str], *, interval: bool = False) -> str:
    flags = "\n    flags interval" if interval else ""
    listed = f"\n    elements = {{ {', '.join(elements)} }}" if elements else ""
    return f"  {kind} {{\n    type {types}{flags}{listed}\n  }}"


def _addresses(span: Span) -> str:
    low, high = (ipaddress.IPv4Address(end) for end in span)
    return str(low) if low == high else f"{low}-{high}"


def _numbers(span: Span) -> str:
    low, high = span
    return str(low) if low == high else f"{low}-{high}"


def _tunnel_chain(beyond: list[Neighbour], port: int) -> str:
    """The hosts that each tunnel's packets may come from. In VXLAN's header zeros follow the tunnel's number."""
    if not beyond:
        return ""
    ends = sorted({f"{_canonical(one.host)} . {one.tunnel << 8:#x}" for one in beyond})
    return f"""  set tunnel_ends {{
    typeof ip saddr . @th,96,32
    elements = {{ {", ".join(ends)} }}
  }}
  chain from_hosts {{
    type filter hook input priority filter; policy accept;
    meta l4proto != udp accept
    udp dport != {int(port)} accept
    ip saddr . @th,96,32 @tunnel_ends accept
    drop
  }}"""


def _host_chain(reach_host: bool) -> str:
    if reach_host:
        return ""
    return f"""  chain to_host {{
    type filter hook input priority filter; policy accept;
    iifname != {_BRIDGES} accept
    ct state established,related accept
    meta l4proto icmp accept
    drop
  }}"""


# A sender that is at no known place is dropped before anybody's rules are asked: those let in what comes from the
# outside and from known containers, not what claims to be somebody.
_FORWARD = f"""  chain sent {{
    meta nfproto != ipv4 drop
    iifname . ip saddr != @places drop
    oifname != {_BRIDGES} accept
    oifname . ip daddr @beyond accept
    iifname . ip saddr vmap @sender_project
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname != {_BRIDGES} oifname != {_BRIDGES} accept
    ct state established,related accept
    iifname {_BRIDGES} jump sent
    oifname . ip daddr . ip saddr @open_to_remote accept
    oifname . ip daddr . ip saddr . ip protocol . th dport @open_services accept
    ip protocol icmp oifname . ip daddr . ip saddr . @th,0,16 @open_echoes accept
    oifname . ip daddr vmap @receiver_groups
    drop
  }}"""

_MASQUERADE = f"""  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @containers oifname != {_BRIDGES} oifname != "lo" masquerade
  }}"""

_SPOOFING = f"""  chain announced {{
    iifname . arp saddr ether . arp saddr ip @senders accept
    drop
  }}
  chain sent {{
    type filter hook prerouting priority dstnat; policy accept;
    iifname != {_PORTS} iifname != {_TUNNELS} accept
    ether type ip iifname . ether saddr . ip saddr @senders accept
    ether type ip iifname . ip saddr @senders_of_any_mac accept
    ether type arp iifname . ether saddr . arp saddr ip @senders jump announced
    ether type arp iifname . arp saddr ip @senders_of_any_mac accept
    drop
  }}"""
