"""Capsules: several containers in one sandbox, placed and charged as one."""

import uuid as uuids
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct, field, structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import (
    attachments,
    cloud_networks,
    cloud_ports,
    containers,
    images,
    mounts,
    quotas,
    recording,
    wiring,
)
from higgins.control.cloud import Actor, Cloud
from higgins.control.creating import (
    generated_name,
    insert_ports,
    insert_workload,
    member_row,
    remember,
    repeated,
    with_class,
    with_groups,
    with_registry,
)
from higgins.control.lookup import held, page, workload_row
from higgins.control.placement.choosing import place
from higgins.control.placement.needs import need_of
from higgins.control.query import ListQuery
from higgins.control.rows import CapsuleSpec, container_of, to_json
from higgins.model.container import ContainerSpec, Goal, RestartPolicy, Status, TaskState
from higgins.model.errors import Conflict, Invalid
from higgins.model.resources import Capsule, Container
from higgins.store.database import touch_host
from higgins.store.schema import container, host, workload

SORT_KEYS = frozenset({"id", "uuid", "name", "project_id", "user_id", "status", "created_at", "updated_at"})
_spec = msgspec.json.Decoder(CapsuleSpec)


class CapsuleDraft(Struct, frozen=True, kw_only=True):
    """A capsule as its owner asked for it; each member's mounts are not resolved yet."""

    name: str | None
    containers: tuple[ContainerSpec, ...]
    init_containers: tuple[ContainerSpec, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    restart_policy: RestartPolicy = RestartPolicy("always")


def needs(draft: CapsuleDraft) -> tuple[float, int, int]:
    """Pure: cores, MiB and GiB: the sum of the containers, or the largest init container if that is more."""
    mains, inits = draft.containers, draft.init_containers
    return (
        max(sum(one.cpu for one in mains), max((one.cpu for one in inits), default=0.0)),
        max(sum(one.memory for one in mains), max((one.memory for one in inits), default=0)),
        max(sum(one.disk for one in mains), max((one.disk for one in inits), default=0)),
    )


async def create(
    cloud: Cloud, actor: Actor, draft: CapsuleDraft, *, idempotency_key: str | None = None, body_hash: str = ""
) -> Capsule:
    """Make a capsule; errors as for a container."""
    if not draft.containers:
        raise Invalid("spec.containers: a capsule has at least one container.")

    members = (*draft.init_containers, *draft.containers)
    asks = await cloud_networks.look(
        cloud,
        actor,
        (),
        groups=tuple(dict.fromkeys(group for one in members for group in one.security_groups)),
        exposed=tuple(dict.fromkeys(port for one in members for port in one.exposed_ports)),
    )

    def work(conn: Connection) -> Capsule:
        stored.used = False  # of a run that was undone, and may find what another made meanwhile
        if idempotency_key is not None:
            before = repeated(conn, actor, idempotency_key, body_hash)
            if before is not None:
                there = conn.execute(sa.select(workload).where(workload.c.uuid == before)).one_or_none()
                if there is None:
                    raise Conflict("The capsule made with this Idempotency-Key is deleted already.")
                return _of(conn, cloud, [there])[0]
        quotas.hold(conn, actor.project_id)
        uuid = str(uuids.uuid4())
        name = draft.name or generated_name("capsule")
        cpu, memory, disk = needs(draft)
        ordered = [("init", spec) for spec in draft.init_containers] + [("main", spec) for spec in draft.containers]
        shared: dict[str, dict[str, Any]] = {}
        hosts: frozenset[int] = frozenset()
        used: list[str] = []
        attaches = False
        specs: list[tuple[str, ContainerSpec]] = []
        for role, spec in ordered:
            images.check_image(spec.image)
            grouped = with_groups(conn, cloud, actor, spec)
            asked = with_class(cloud.settings, actor.project_id, with_registry(conn, actor, grouped))
            resolved = mounts.resolve(conn, cloud, actor, asked, stored=stored, made=shared)
            attaches = attaches or resolved.attaches
            hosts |= resolved.hosts
            used += resolved.used
            specs.append((role, resolved.spec))
        nets = wiring.resolve(conn, cloud, actor, ())
        rows = list(shared.values())
        new = sum(row["size"] for row in rows)
        quotas.charge(
            conn, cloud, actor.project_id, containers=len(draft.containers), cpu=cpu, memory=memory, disk=disk + new
        )
        members = [spec for _, spec in specs]
        need = need_of(
            conn, actor.project_id, members,
            cpu=cpu, memory=memory, disk=disk + mounts.unplaced(conn, used, rows), volumes=hosts,
            inits=len(draft.init_containers), attaches=attaches,
        )  # fmt: skip
        chosen, reason = place(conn, cloud, need)
        need = structs.replace(need, disk=disk)
        kept = CapsuleSpec(labels=draft.labels, annotations=draft.annotations, restart_policy=draft.restart_policy)
        workload_id = insert_workload(
            conn, cloud, actor, uuid=uuid, kind="capsule", name=name, need=need, host=chosen, reason=reason,
            spec=to_json(kept),
        )  # fmt: skip
        mounts.insert(conn, cloud, rows, workload_id, chosen.id if chosen else None)
        if chosen is not None:
            mounts.place(conn, cloud, used, chosen.id)
        addresses: dict[str, Any] = {}
        if chosen is not None:
            addresses = insert_ports(conn, nets, workload_id) | cloud_ports.insert(
                conn, cloud, asks, workload_id=workload_id, host_id=chosen.id, device=uuid, project_id=actor.project_id
            )
        for position, (role, spec) in enumerate(specs):
            member = str(uuids.uuid4())
            row = member_row(
                actor, workload_id, uuid=member, role=role, position=position,
                name=f"capsule-{name}-{generated_name(role)}"[:255], spec=spec,
            )  # fmt: skip
            row |= {
                "host": chosen.name if chosen else None,
                "status": Status.CREATING if chosen else Status.ERROR,
                "status_reason": reason or None,
                "task_state": TaskState.CREATING if chosen else None,
                "goal": Goal.RUNNING,
                "addresses": to_json(addresses),
                "created_at": cloud.now(),
            }
            conn.execute(sa.insert(container).values(row))
        recording.record_action(conn, cloud, actor, uuid, "create", generation=1)
        if chosen is not None:
            touch_host(conn, chosen.id)
            wiring.tell_neighbours(conn, cloud, workload_id)
        if idempotency_key is not None:
            remember(conn, cloud, actor, idempotency_key, body_hash, uuid)
        made = conn.execute(sa.select(workload).where(workload.c.id == workload_id)).one()
        return _of(conn, cloud, [made])[0]

    async with attachments.looked_up(cloud, actor, [*draft.init_containers, *draft.containers]) as stored:
        return await quotas.write(cloud, work)


async def get(cloud: Cloud, actor: Actor, ident: str) -> Capsule:
    return await cloud.store.read(lambda conn: _of(conn, cloud, [workload_row(conn, actor, ident, "capsule")])[0])


async def find(cloud: Cloud, actor: Actor, query: ListQuery) -> list[Capsule]:
    """A page of capsules; three queries however many there are."""

    def work(conn: Connection) -> list[Capsule]:
        project = None if query.all_projects and actor.is_admin else actor.project_id
        conditions, order = page(workload, query, SORT_KEYS, conn, "container", project=project)
        conditions.append(workload.c.kind == "capsule")
        rows = conn.execute(sa.select(workload).where(*conditions).order_by(*order).limit(query.limit)).all()
        return _of(conn, cloud, list(rows))

    return await cloud.store.read(work)


async def delete(cloud: Cloud, actor: Actor, ident: str) -> None:
    """Remove a capsule in whatever state it is, with all its members."""

    def work(conn: Connection) -> None:
        row = held(conn, workload_row(conn, actor, ident, "capsule"))
        if row.deleting:
            return
        if row.host_id is None:
            containers.remove_workload(conn, cloud, row.id)
            return
        generation = row.generation + 1
        conn.execute(
            sa.update(workload)
            .where(workload.c.id == row.id)
            .values(
                deleting=True,
                unheard=True,
                status=Status.DELETING,
                generation=generation,
                updated_at=cloud.now(),
            )
        )
        conn.execute(
            sa.update(container)
            .where(container.c.workload_id == row.id)
            .values(goal=Goal.DELETED, status=Status.DELETING, task_state=TaskState.DELETING, updated_at=cloud.now())
        )
        recording.record_action(conn, cloud, actor, row.uuid, "delete", generation=generation)
        touch_host(conn, row.host_id)

    await cloud.store.write(work)


def _of(conn: Connection, cloud: Cloud, rows: list[Row[Any]]) -> list[Capsule]:
    ids = [row.id for row in rows]
    if not ids:
        return []
    members: dict[int, list[tuple[str, Container]]] = {}
    query = sa.select(container).where(container.c.workload_id.in_(ids)).order_by(container.c.position)
    uuid_of = {row.id: row.uuid for row in rows}
    now = cloud.now()
    for member in conn.execute(query).all():
        one = container_of(member, uuid_of[member.workload_id], now)
        members.setdefault(member.workload_id, []).append((member.role, one))
    names = dict(conn.execute(sa.select(host.c.id, host.c.name)).all())
    return [_capsule(row, members.get(row.id, []), names.get(row.host_id)) for row in rows]


def _capsule(row: Row[Any], members: list[tuple[str, Container]], host_name: str | None) -> Capsule:
    kept = _spec.decode(row.spec)
    return Capsule(
        uuid=row.uuid,
        name=row.name,
        project_id=row.project_id,
        user_id=row.user_id,
        host=host_name,
        status=Status(row.status),
        status_reason=row.status_reason,
        cpu=row.cpu,
        memory=row.memory,
        labels=kept.labels,
        annotations=kept.annotations,
        restart_policy=kept.restart_policy,
        addresses=members[0][1].addresses if members else {},
        containers=[one for role, one in members if role != "init"],
        init_containers=[one for role, one in members if role == "init"],
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
