"""Security groups of a project: who may reach its containers beside those that its networks let in anyway.

The rules of a group are one value of its row. Every project has a group ``default``; whoever names no group is in it.
"""

import uuid as uuids
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import quotas
from higgins.control.cloud import Actor, Cloud
from higgins.control.lookup import by_uuid, page
from higgins.control.query import ListQuery
from higgins.control.rows import spec_decoder, to_json
from higgins.model.errors import AlreadyExists, Conflict, NotFound, OverQuota
from higgins.model.resources import SecurityGroup, SecurityGroupRule
from higgins.store.database import touch_host
from higgins.store.schema import container, security_group, workload

DEFAULT = "default"
SORT_KEYS = frozenset({"id", "uuid", "name", "project_id", "created_at"})

Rules = tuple[SecurityGroupRule, ...]
rules_decoder = msgspec.json.Decoder(Rules)


def _of(row: Row[Any]) -> SecurityGroup:
    return SecurityGroup(
        uuid=row.uuid,
        name=row.name,
        project_id=row.project_id,
        rules=rules_decoder.decode(row.rules),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _require_own(cloud: Cloud) -> None:
    """Raises Conflict where security groups are the cloud's network service's."""
    if cloud.networking is not None:
        raise Conflict("Security groups are the network service's here: openstack security group makes and lists them.")


async def find(cloud: Cloud, actor: Actor, query: ListQuery) -> list[SecurityGroup]:
    """A page of the project's groups, ``default`` (made by then) among them; of all for an administrator who asks."""
    _require_own(cloud)

    def work(conn: Connection) -> list[SecurityGroup]:
        project = None if query.all_projects and actor.is_admin else actor.project_id
        if project is not None:
            _default(conn, cloud, project)
        conditions, order = page(security_group, query, SORT_KEYS, conn, "security_group", project=project)
        rows = conn.execute(sa.select(security_group).where(*conditions).order_by(*order).limit(query.limit))
        return [_of(row) for row in rows]

    return await cloud.store.write(work)


async def get(cloud: Cloud, actor: Actor, ident: str) -> SecurityGroup:
    """A group by uuid (an administrator may name any) or by name. Raises NotFound."""
    _require_own(cloud)
    run = cloud.store.write if ident == DEFAULT else cloud.store.read
    return await run(lambda conn: _of(_row(conn, cloud, actor, ident)))


async def create(cloud: Cloud, actor: Actor, name: str, rules: Rules = ()) -> SecurityGroup:
    """Make a group. Ids of rules are given here; ``remote_group_id`` may be a name. Raises AlreadyExists, OverQuota."""
    _require_own(cloud)

    def work(conn: Connection) -> SecurityGroup:
        quotas.hold_names(conn, actor.project_id)
        default = _default(conn, cloud, actor.project_id)
        mine = sa.select(security_group.c.name).where(security_group.c.project_id == actor.project_id)
        taken = set(conn.execute(mine).scalars())
        if name in taken:
            raise AlreadyExists("security_group", name)
        _bound("security_groups", len(taken - {default.name}) + 1, cloud.settings.security_groups)
        row = _insert(conn, cloud, actor.project_id, name)
        _write_rules(conn, cloud, row, _added(conn, cloud, row, rules))
        return _of(_row(conn, cloud, actor, row.uuid))

    return await cloud.store.write(work)


async def rename(cloud: Cloud, actor: Actor, ident: str, name: str) -> SecurityGroup:
    """Call a group otherwise. Containers keep it. Raises AlreadyExists, and Conflict for ``default``."""
    _require_own(cloud)

    def work(conn: Connection) -> SecurityGroup:
        row = _held(conn, cloud, actor, ident)
        if name != row.name:
            if row.name == DEFAULT:
                raise Conflict("The security group default keeps its name.")
            same = sa.select(security_group.c.id).where(
                security_group.c.project_id == row.project_id, security_group.c.name == name
            )
            if name == DEFAULT or conn.execute(same).first() is not None:
                raise AlreadyExists("security_group", name)
            values = {"name": name, "updated_at": cloud.now()}
            conn.execute(sa.update(security_group).where(security_group.c.id == row.id).values(values))
        return _of(_row(conn, cloud, actor, row.uuid))

    return await cloud.store.write(work)


async def delete(cloud: Cloud, actor: Actor, ident: str) -> None:
    """Remove a group that no container is in and no rule of another group is about; Conflict otherwise."""
    _require_own(cloud)

    def work(conn: Connection) -> None:
        row = _held(conn, cloud, actor, ident)
        if row.name == DEFAULT:
            raise Conflict("The security group default stays.")
        members = conn.execute(sa.select(container.c.uuid, container.c.spec).where(*_users(row))).all()
        for member in members:
            if row.uuid in spec_decoder.decode(member.spec).security_groups:
                raise Conflict(f"Security group {ident} is in use by container {member.uuid}.")
        others = sa.select(security_group).where(
            security_group.c.project_id == row.project_id,
            security_group.c.id != row.id,
            security_group.c.rules.contains(f'"{row.uuid}"'),
        )
        other = conn.execute(others.limit(1)).first()
        if other is not None:
            raise Conflict(f"Security group {ident} is in use by a rule of security group {other.name}.")
        conn.execute(sa.delete(security_group).where(security_group.c.id == row.id))

    await cloud.store.write(work)


async def add_rule(cloud: Cloud, actor: Actor, ident: str, rule: SecurityGroupRule) -> tuple[str, SecurityGroupRule]:
    """Let more in, from now on; the group's uuid and the rule with its id. Raises AlreadyExists, OverQuota."""
    _require_own(cloud)

    def work(conn: Connection) -> tuple[str, SecurityGroupRule]:
        row = _held(conn, cloud, actor, ident)
        rules = _added(conn, cloud, row, (rule,))
        _write_rules(conn, cloud, row, rules)
        return row.uuid, rules[-1]

    return await cloud.store.write(work)


async def delete_rule(cloud: Cloud, actor: Actor, ident: str, rule: str) -> None:
    """Let that in no more; connections that are there stay. Raises NotFound."""
    _require_own(cloud)

    def work(conn: Connection) -> None:
        row = _held(conn, cloud, actor, ident)
        rules = rules_decoder.decode(row.rules)
        kept = tuple(one for one in rules if one.id != rule)
        if len(kept) == len(rules):
            raise NotFound("security_group_rule", rule)
        _write_rules(conn, cloud, row, kept)

    await cloud.store.write(work)


def resolve(conn: Connection, cloud: Cloud, project_id: str, idents: Iterable[str]) -> tuple[str, ...]:
    """The uuids of a project's groups that are named by uuid or name, each once. Raises NotFound.

    The caller holds the project, so that none of them goes before it is used.
    """
    wanted = tuple(dict.fromkeys(idents))
    if not wanted:
        return ()
    if DEFAULT in wanted:
        _default(conn, cloud, project_id)
    rows = conn.execute(
        sa.select(security_group.c.uuid, security_group.c.name).where(
            security_group.c.project_id == project_id,
            sa.or_(security_group.c.uuid.in_(wanted), security_group.c.name.in_(wanted)),
        )
    ).all()
    found = {row.name: row.uuid for row in rows} | {row.uuid: row.uuid for row in rows}
    for ident in wanted:
        if ident not in found:
            raise NotFound("security_group", ident)
    return tuple(dict.fromkeys(found[ident] for ident in wanted))


def _default(conn: Connection, cloud: Cloud, project_id: str) -> Row[Any]:
    """The group that whoever names none is in; its row is made when it is first looked for."""
    query = sa.select(security_group).where(security_group.c.project_id == project_id, security_group.c.name == DEFAULT)
    row = conn.execute(query).one_or_none()
    return _insert(conn, cloud, project_id, DEFAULT) if row is None else row


def _insert(conn: Connection, cloud: Cloud, project_id: str, name: str) -> Row[Any]:
    uuid = str(uuids.uuid4())
    conn.execute(
        sa.insert(security_group).values(
            uuid=uuid, name=name, project_id=project_id, rules="[]", created_at=cloud.now()
        )
    )
    return conn.execute(sa.select(security_group).where(security_group.c.uuid == uuid)).one()


def _row(conn: Connection, cloud: Cloud, actor: Actor, ident: str) -> Row[Any]:
    row = by_uuid(conn, security_group, actor, ident)
    if row is not None:
        return row
    if ident == DEFAULT and actor.project_id:
        return _default(conn, cloud, actor.project_id)
    named = sa.select(security_group).where(
        security_group.c.project_id == actor.project_id, security_group.c.name == ident
    )
    row = conn.execute(named).one_or_none()
    if row is None:
        raise NotFound("security_group", ident)
    return row


def _held(conn: Connection, cloud: Cloud, actor: Actor, ident: str) -> Row[Any]:
    """The group, and nobody joins it, leaves it or moves to another host until the transaction ends.

    So whoever is told of a change is everybody whom it is about: workloads that are in it are held, then the project,
    as whoever comes to be in a group holds it. An update, for the sake of Galera: see ``quotas.hold_names``.
    """
    row = _row(conn, cloud, actor, ident)
    members = conn.execute(sa.select(container.c.workload_id).where(*_users(row))).scalars().all()
    conn.execute(
        sa.select(workload.c.id).where(workload.c.id.in_(members)).order_by(workload.c.id).with_for_update()
    ).all()
    quotas.hold_names(conn, row.project_id)
    return _row(conn, cloud, actor, row.uuid)


def _users(row: Row[Any]) -> list[sa.ColumnElement[bool]]:
    """Containers that may be in the group: all of the project for ``default``, else those whose spec has its uuid."""
    mine = container.c.project_id == row.project_id
    return [mine] if row.name == DEFAULT else [mine, container.c.spec.contains(f'"{row.uuid}"')]


def _added(conn: Connection, cloud: Cloud, row: Row[Any], more: Rules) -> Rules:
    """The group's rules with more of them, each with an id. Raises AlreadyExists, NotFound, OverQuota."""
    rules = rules_decoder.decode(row.rules)
    projects = sa.select(security_group.c.rules).where(security_group.c.project_id == row.project_id)
    all_of_them = sum(len(rules_decoder.decode(text)) for text in conn.execute(projects).scalars())
    _bound("security_group_rules", all_of_them + len(more), cloud.settings.security_group_rules)
    there = {structs.replace(one, id=""): one.id for one in rules}
    added: list[SecurityGroupRule] = []
    for rule in more:
        if rule.remote_group_id is not None:
            (remote,) = resolve(conn, cloud, row.project_id, (rule.remote_group_id,))
            rule = structs.replace(rule, remote_group_id=remote)
        plain = structs.replace(rule, id="")
        if plain in there:
            raise Conflict(f"Security group {row.name} has such a rule already: {there[plain]}.")
        added.append(structs.replace(rule, id=str(uuids.uuid4())))
        there[plain] = added[-1].id
    return (*rules, *added)


def _write_rules(conn: Connection, cloud: Cloud, row: Row[Any], rules: Rules) -> None:
    """Write them down, and tell the hosts of those who are in the group."""
    values = {"rules": to_json(rules), "updated_at": cloud.now()}
    conn.execute(sa.update(security_group).where(security_group.c.id == row.id).values(values))
    members = sa.select(container.c.workload_id).where(*_users(row))
    hosts = sa.select(workload.c.host_id, workload.c.next_host_id).where(workload.c.id.in_(members)).distinct()
    for number in {number for found in conn.execute(hosts) for number in found if number is not None}:
        touch_host(conn, number)


def _bound(resource: str, wanted: int, limit: int) -> None:
    if 0 <= limit < wanted:
        raise OverQuota(f"Quota exceeded for resources: {[resource]}: no more than {limit} of them are allowed.")
