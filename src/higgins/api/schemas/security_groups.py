"""What a security group and its rules may say. The names of fields are Neutron's."""

import ipaddress
from typing import Any

from higgins.api.schemas.fields import Field, Fields, Object
from higgins.api.schemas.kinds import Checked, Kind, ListOf, Optional, Schema, Text, Whole, Word, wrong
from higgins.networks.base import PROTOCOLS, WITH_PORTS

_NAMES = {number: name for name, number in PROTOCOLS.items()}
_ICMP = "icmp"
#: The protocol of the same name in IPv6, which networks here do not have.
_ICMP6 = 58


class _Protocol(Kind):
    """The name or number of an IP protocol; it is told by its name where it has one. None: whatever protocol."""

    _WHAT = "the name of a protocol (tcp, udp, icmp …) or its number from 0 to 255 is wanted"

    def parse(self, value: Any, where: str) -> str | None:
        if value is None or value == "any":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise wrong(where, self._WHAT)
        word = str(value).lower()
        if word in PROTOCOLS:
            return word
        if not word.isascii() or not word.isdigit() or len(word) > 3 or int(word) > 255 or int(word) == _ICMP6:
            raise wrong(where, self._WHAT)
        return _NAMES.get(int(word), str(int(word)))

    def schema(self) -> Schema:
        number: Schema = {"type": "integer", "minimum": 0, "maximum": 255}
        return {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 16}, number, {"type": "null"}]}


def _prefix(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text, strict=False))
    except ValueError:
        raise ValueError("a subnet as 192.0.2.0/24, or an IPv4 address, is wanted") from None


PREFIX = Checked(Text(1, 64), _prefix)
RULE: Fields = (
    Field("direction", Word("ingress")),
    Field("ethertype", Word("IPv4")),
    Field("protocol", _Protocol(), default=None, doc="Any, if it is left out."),
    Field("port_range_min", Optional(Whole(0, 65535)), default=None, doc="Of icmp: the type."),
    Field("port_range_max", Optional(Whole(0, 65535)), default=None, doc="Of icmp: the code."),
    Field("remote_ip_prefix", Optional(PREFIX), default=None, doc="Anywhere, if neither remote is given."),
    Field("remote_group_id", Optional(Text(1, 255)), default=None, doc="The uuid or name of a group of the project."),
)


def rule_of(given: dict[str, Any], where: str = "") -> dict[str, Any]:
    """What a rule that was read says; raises ``SchemaInvalid`` for what does not go together."""
    rule = {name: value for name, value in given.items() if name not in ("direction", "ethertype")}
    if rule["remote_ip_prefix"] is not None and rule["remote_group_id"] is not None:
        raise wrong(f"{where}remote_group_id", "it does not go together with remote_ip_prefix")
    _check_ports(rule["protocol"], rule["port_range_min"], rule["port_range_max"], where)
    return rule


def _check_ports(protocol: str | None, low: int | None, high: int | None, where: str) -> None:
    if protocol == _ICMP:
        if low is None and high is not None:
            raise wrong(f"{where}port_range_min", "a code (port_range_max) needs a type")
        for name, value in (("port_range_min", low), ("port_range_max", high)):
            if value is not None and value > 255:
                raise wrong(f"{where}{name}", "the type or code of an ICMP message, 0 to 255, is wanted")
        return
    if low is None and high is None:
        return
    if protocol is None or PROTOCOLS.get(protocol) not in WITH_PORTS:
        name = "port_range_min" if low is not None else "port_range_max"
        raise wrong(f"{where}{name}", "ports go with a protocol that has them: tcp, udp, sctp, dccp, udplite")
    if low is None or high is None:
        name = "port_range_min" if low is None else "port_range_max"
        raise wrong(f"{where}{name}", "both ends of a range of ports are wanted")
    if not 1 <= low <= high:
        raise wrong(f"{where}port_range_min", "a port from 1 up to port_range_max is wanted")


class _Rule(Object):
    def parse(self, value: Any, where: str) -> dict[str, Any]:
        return rule_of(super().parse(value, where), f"{where}.")


NAME = Text(1, 255)
CREATE: Fields = (
    Field("name", NAME, required=True),
    Field("rules", ListOf(_Rule(*RULE)), default=()),
)
UPDATE: Fields = (Field("name", NAME, required=True),)
