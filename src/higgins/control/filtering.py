"""What may reach the ports of a host: security groups and exposed ports, as its network driver takes them."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.rows import spec_decoder
from higgins.control.security_groups import DEFAULT, rules_decoder
from higgins.model.container import ContainerSpec
from higgins.model.resources import SecurityGroupRule
from higgins.networks.base import PortFilter, Rule
from higgins.store.schema import container, port, security_group

Grouped = Mapping[int, Sequence[Row[Any]]]


class Groups(Struct, frozen=True):
    """The groups that count on a host: what each lets in, by uuid, and which is ``default``, by project."""

    rules: dict[str, tuple[Rule, ...]]
    defaults: dict[str, str]

    def of(self, project_id: str, named: Iterable[str]) -> set[str]:
        """The groups of a workload whose members name these."""
        default = self.default(project_id)
        return {default if one == DEFAULT else one for one in named} or {default}

    def default(self, project_id: str) -> str:
        """Its uuid; until there is one it has no rules, and its name will do."""
        return self.defaults.get(project_id, DEFAULT)


_GROUPS = sa.select(security_group).where(security_group.c.project_id.in_(sa.bindparam("projects", expanding=True)))


def groups_of(
    conn: Connection, workloads: Sequence[Row[Any]], members: Grouped, ports: Grouped, *, overlay: bool
) -> Groups:
    """One query for the groups of all workloads of a host, whose members and ports are given by workload.

    A rule about a group is about those in it that reach this host under their own addresses: those on it and, with an
    ``overlay``, those on its networks, which takes another query.
    """
    if not workloads:
        return Groups({}, {})
    projects = {row.project_id for row in workloads}
    rows = conn.execute(_GROUPS, {"projects": sorted(projects)}).all()
    stored = {row.uuid: rules_decoder.decode(row.rules) for row in rows}
    named = Groups({}, {row.project_id: row.uuid for row in rows if row.name == DEFAULT})
    addresses: dict[str, list[str]] = defaultdict(list)
    if any(rule.remote_group_id for rules in stored.values() for rule in rules):
        for row in workloads:
            for group in named.of(row.project_id, _named(members.get(row.id, ()))):
                addresses[group] += [one.address for one in ports.get(row.id, ())]
        for one in _beyond(conn, workloads, ports) if overlay else ():
            for group in named.of(one.project_id, one.named):
                addresses[group] += one.addresses
    let_in = {uuid: tuple(one for rule in rules for one in _rules(rule, addresses)) for uuid, rules in stored.items()}
    return Groups(let_in, named.defaults)


class _Beyond(Struct):
    """A workload of another host that is on networks of this one: the groups that it names, its addresses there."""

    project_id: str
    named: set[str]
    addresses: set[str]


def _beyond(conn: Connection, workloads: Sequence[Row[Any]], ports: Grouped) -> Iterable[_Beyond]:
    mine = {row.id for row in workloads}
    networks = {one.network_id for some in ports.values() for one in some}
    rows = conn.execute(
        sa.select(port.c.workload_id, port.c.address, container.c.project_id, container.c.spec)
        .join(container, container.c.workload_id == port.c.workload_id)
        .where(port.c.network_id.in_(networks), port.c.workload_id.not_in(mine))
    )
    found: dict[int, _Beyond] = {}
    for row in rows:
        one = found.setdefault(row.workload_id, _Beyond(row.project_id, set(), set()))
        one.named.update(_named((row,)))
        one.addresses.add(row.address)
    return found.values()


def _named(members: Iterable[Any]) -> list[str]:
    return [
        group
        for member in members
        if '"security_groups":["' in member.spec  # most name none: spare the decoding
        for group in spec_decoder.decode(member.spec).security_groups
    ]


def _rules(rule: SecurityGroupRule, addresses: Mapping[str, Sequence[str]]) -> list[Rule]:
    """The rule as a driver takes it: of a group, one for each block of addresses."""
    remotes: list[str | None] = [rule.remote_ip_prefix]
    if rule.remote_group_id is not None:
        there = map(ipaddress.IPv4Network, addresses.get(rule.remote_group_id, ()))
        remotes = [str(block) for block in ipaddress.collapse_addresses(there)]
    return [
        Rule(protocol=rule.protocol, port_min=rule.port_range_min, port_max=rule.port_range_max, remote=remote)
        for remote in remotes
    ]


def port_filter(row: Row[Any], specs: Sequence[ContainerSpec], groups: Groups) -> PortFilter:
    """Open to the own project for whoever is in ``default``; by the rules of its groups, and where it is exposed."""
    mine = groups.of(row.project_id, (group for spec in specs for group in spec.security_groups))
    rules: list[Rule] = []
    for exposed in (one for spec in specs for one in spec.exposed_ports):
        number, _, protocol = exposed.partition("/")
        rules.append(Rule(protocol=protocol or "tcp", port_min=int(number), port_max=int(number)))
    return PortFilter(
        uuid=row.uuid,
        address=row.address,
        mac=row.mac,
        network=row.network_uuid,
        project_id=row.project_id,
        project_open=groups.default(row.project_id) in mine,
        rules=tuple(rules),
        groups=tuple(groups.rules[group] for group in sorted(mine) if groups.rules.get(group)),
    )
