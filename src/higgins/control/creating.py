"""A container comes to be: quota, place, network, volumes and rows, in one transaction."""

import random
import uuid as uuids
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from msgspec import Struct, structs
from sqlalchemy.engine import Connection

from higgins.control import (
    attachments,
    cloud_networks,
    cloud_ports,
    images,
    mounts,
    quotas,
    recording,
    security_groups,
    wiring,
)
from higgins.control.cloud import Actor, Cloud
from higgins.control.placement.choosing import Chosen, choose, place
from higgins.control.placement.claims import take_cores
from higgins.control.placement.filters import Question
from higgins.control.placement.needs import Need, need_of
from higgins.control.requests import NetRequest
from higgins.control.rows import addresses_of, container_of, to_json
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec, Goal, Status, TaskState
from higgins.model.errors import AlreadyExists, Conflict, Forbidden, NotFound
from higgins.model.resources import Container
from higgins.store.database import touch_host
from higgins.store.schema import container, idempotency, into, registry, workload

_GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"),
    *("nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)


class Draft(Struct, frozen=True, kw_only=True):
    """A container as its owner asked for it; mounts are not resolved yet."""

    name: str | None
    spec: ContainerSpec
    nets: tuple[NetRequest, ...] = ()


def generated_name(kind: str = "container") -> str:
    return f"{random.choice(_GREEK)}-{random.randrange(1, 10000)}-{kind}"  # noqa: S311 - no secret


async def create(
    cloud: Cloud,
    actor: Actor,
    draft: Draft,
    *,
    run: bool,
    idempotency_key: str | None = None,
    body_hash: str = "",
) -> Container:
    """Make a container. It is answered as soon as it is written down; its host does the rest.

    Raises OverQuota, NotFound (registry, network, volume, host, security group), Invalid, AlreadyExists, Conflict
    (an idempotency key that was used with another body). Where no host fits, the container is there in Error.
    """

    spec = draft.spec
    asks = await cloud_networks.look(cloud, actor, draft.nets, groups=spec.security_groups, exposed=spec.exposed_ports)

    def work(conn: Connection) -> Container:
        stored.used = False  # of a run that was undone, and may find what another made meanwhile
        if idempotency_key is not None:
            before = repeated(conn, actor, idempotency_key, body_hash)
            if before is not None:
                there = conn.execute(sa.select(container).where(container.c.uuid == before)).one_or_none()
                if there is None:
                    raise Conflict("The container made with this Idempotency-Key is deleted already.")
                return container_of(there, before, cloud.now())
        held = quotas.hold(conn, actor.project_id)
        uuid = str(uuids.uuid4())
        name = draft.name or generated_name()
        images.check_image(draft.spec.image)
        check_name(conn, cloud, actor, name)
        grouped = with_groups(conn, cloud, actor, draft.spec)
        asked = with_class(cloud.settings, actor.project_id, with_registry(conn, actor, grouped))
        resolved = mounts.resolve(conn, cloud, actor, asked, stored=stored)
        spec = resolved.spec
        nets = wiring.resolve(conn, cloud, actor, draft.nets)
        new = sum(row["size"] for row in resolved.rows)
        quotas.charge(
            conn, cloud, actor.project_id,
            containers=1, cpu=spec.cpu, memory=spec.memory, disk=spec.disk + new, held=held,
        )  # fmt: skip
        unplaced = mounts.unplaced(conn, resolved.used, resolved.rows)
        need = need_of(
            conn, actor.project_id, [spec],
            cpu=spec.cpu, memory=spec.memory, disk=spec.disk + unplaced, volumes=resolved.hosts,
            attaches=resolved.attaches,
        )  # fmt: skip
        chosen, reason = place(conn, cloud, need)
        need = structs.replace(need, disk=spec.disk)  # volumes keep their part of the host when the container goes
        workload_id = insert_workload(
            conn, cloud, actor, uuid=uuid, kind="container", name=name, need=need, host=chosen, reason=reason,
            spec=to_json(wiring.Wanted(draft.nets, asks)),
        )  # fmt: skip
        mounts.insert(conn, cloud, resolved.rows, workload_id, chosen.id if chosen else None)
        if chosen is not None:
            mounts.place(conn, cloud, resolved.used, chosen.id)
        addresses: dict[str, Any] = {}
        if chosen is not None:
            addresses = insert_ports(conn, nets, workload_id) | cloud_ports.insert(
                conn, cloud, asks, workload_id=workload_id, host_id=chosen.id, device=uuid, project_id=actor.project_id
            )
        row = member_row(actor, workload_id, uuid=uuid, role="plain", position=0, name=name, spec=spec)
        row |= beginning(cloud, chosen.name if chosen else None, reason, addresses, run=run)
        conn.execute(into(container), row)
        recording.record_action(conn, cloud, actor, uuid, "create", generation=1)
        if chosen is None:
            recording.finish_actions(conn, cloud, [uuid], 1, reason)
        else:
            touch_host(conn, chosen.id)
            wiring.tell_neighbours(conn, cloud, workload_id)
        recording.record_event(
            conn, cloud, project_id=actor.project_id, uuid=uuid, name=name, status=row["status"], reason=reason or None
        )
        if idempotency_key is not None:
            remember(conn, cloud, actor, idempotency_key, body_hash, uuid)
        return made(actor, row, spec, addresses)

    async with attachments.looked_up(cloud, actor, [draft.spec]) as stored:
        return await quotas.write(cloud, work)


async def dry_run(cloud: Cloud, actor: Actor, draft: Draft) -> dict[str, Any]:
    """Where a container would go now, and why not to the other hosts. Nothing is changed."""

    def work(conn: Connection) -> dict[str, Any]:
        resolved = mounts.resolve(conn, cloud, actor, draft.spec, stored=stored)
        spec = with_class(cloud.settings, actor.project_id, draft.spec)
        need = need_of(
            conn, actor.project_id, [spec],
            cpu=spec.cpu, memory=spec.memory,
            disk=spec.disk + mounts.unplaced(conn, resolved.used, resolved.rows), volumes=resolved.hosts,
            attaches=resolved.attaches,
        )  # fmt: skip
        fleet = cloud.fleet.get(conn)
        choice = choose(Question(fleet=fleet, need=need, settings=cloud.settings, now=cloud.now()))
        names = choice.names()
        return {"host": names[0] if names else None, "candidates": names, "refused": choice.refused()}

    async with attachments.looked_up(cloud, actor, [draft.spec], trusting=False) as stored:
        return await cloud.store.read(work)


def check_name(conn: Connection, cloud: Cloud, actor: Actor, name: str) -> None:
    """Raises AlreadyExists where the operator wants names to be unique and this one is taken."""
    scope = cloud.settings.unique_names
    if not scope:
        return
    quotas.hold_names(conn, actor.project_id if scope == "project" else "")
    query = sa.select(container.c.id).where(container.c.name == name).limit(1)
    if scope == "project":
        query = query.where(container.c.project_id == actor.project_id)
    if conn.execute(query).first() is not None:
        raise AlreadyExists("container", name)


def with_registry(conn: Connection, actor: Actor, spec: ContainerSpec) -> ContainerSpec:
    """The spec with its registry's name resolved to the uuid; raises NotFound, or Conflict for a name that two bear."""
    if spec.registry_id is None:
        return spec
    rows = conn.execute(
        sa.select(registry.c.uuid).where(
            registry.c.project_id == actor.project_id,
            sa.or_(registry.c.uuid == spec.registry_id, registry.c.name == spec.registry_id),
        )
    ).all()
    if not rows:
        raise NotFound("registry", spec.registry_id)
    if len(rows) > 1:
        raise Conflict(f"Several registries have the name {spec.registry_id}; use the uuid.")
    return structs.replace(spec, registry_id=rows[0].uuid)


def with_class(settings: Settings, project_id: str, spec: ContainerSpec) -> ContainerSpec:
    """The spec with the runtime class that the project has to use; raises Forbidden for a class that it may not.

    Where the operator lets a project (or all) run only inside hypervisors, a container that names no class gets the
    first of the hypervisor classes.
    """
    if not (settings.hypervisor_only or project_id in settings.hypervisor_only_projects):
        return spec
    if spec.runtime is None and settings.hypervisor_classes:
        return structs.replace(spec, runtime=settings.hypervisor_classes[0])
    if spec.runtime not in settings.hypervisor_classes:
        classes = ", ".join(settings.hypervisor_classes) or "none is set up"
        raise Forbidden(f"runtime: containers of this project run only in a hypervisor's runtime class ({classes}).")
    return spec


def with_groups(conn: Connection, cloud: Cloud, actor: Actor, spec: ContainerSpec) -> ContainerSpec:
    """The spec with the uuids of the security groups that it names. Raises NotFound.

    Those of the cloud's network service were looked up before the transaction, and are their ports'.
    """
    if cloud.networking is not None:
        return spec
    found = security_groups.resolve(conn, cloud, actor.project_id, spec.security_groups)
    return structs.replace(spec, security_groups=found) if found else spec


def insert_workload(
    conn: Connection,
    cloud: Cloud,
    actor: Actor,
    *,
    uuid: str,
    kind: str,
    name: str | None,
    need: Need,
    host: Chosen | None,
    reason: str,
    spec: str,
) -> int:
    """Write the workload's row and take its cores; its number."""
    row = workload_row(
        cloud, actor, uuid=uuid, kind=kind, name=name, need=need, host_id=host.id if host else None, reason=reason,
        spec=spec,
    )  # fmt: skip
    result = conn.execute(into(workload), row)
    number = int(result.inserted_primary_key[0])  # type: ignore[index]
    if host is not None:
        take_cores(conn, host.id, number, host.cores)
    return number


def workload_row(
    cloud: Cloud,
    actor: Actor,
    *,
    uuid: str,
    kind: str,
    name: str | None,
    need: Need,
    host_id: int | None,
    reason: str,
    spec: str,
) -> dict[str, Any]:
    """The columns of a workload that is new."""
    return {
        "uuid": uuid,
        "kind": kind,
        "name": name,
        "project_id": actor.project_id,
        "user_id": actor.user_id,
        "host_id": host_id,
        "group_name": need.group,
        "generation": 1,
        "observed": 0,
        "deleting": False,
        "cpu": need.cpu,
        "memory": need.memory,
        "disk": need.disk,
        "spec": spec,
        "status": Status.CREATING if host_id is not None else Status.ERROR,
        "status_reason": reason or None,
        "created_at": cloud.now(),
    }


def insert_ports(conn: Connection, nets: list[tuple[Any, str | None]], workload_id: int) -> dict[str, Any]:
    """Make a port on each network; the addresses as the API shows them."""
    made = [
        SimpleNamespace(**wiring.make_port(conn, net, workload_id, position, wanted))
        for position, (net, wanted) in enumerate(nets)
    ]
    return addresses_of(made)


def member_row(
    actor: Actor, workload_id: int, *, uuid: str, role: str, position: int, name: str, spec: ContainerSpec
) -> dict[str, Any]:
    """The columns of a container that come from what was asked for."""
    return {
        "uuid": uuid,
        "workload_id": workload_id,
        "role": role,
        "position": position,
        "name": name,
        "project_id": actor.project_id,
        "user_id": actor.user_id,
        "image": spec.image,
        "memory": spec.memory,
        "auto_remove": spec.auto_remove,
        "incarnation": 1,
        "spec": to_json(spec),
    }


def beginning(cloud: Cloud, host: str | None, reason: str, addresses: dict[str, Any], *, run: bool) -> dict[str, Any]:
    """The columns of a container that come from what was decided; without a host, ``reason`` is why."""
    return {
        "host": host,
        "status": Status.CREATING if host else Status.ERROR,
        "status_reason": None if host else reason,
        "task_state": TaskState.CREATING if host else None,
        "goal": Goal.RUNNING if run else Goal.CREATED,
        "addresses": to_json(addresses),
        "created_at": cloud.now(),
    }


def made(actor: Actor, row: dict[str, Any], spec: ContainerSpec, addresses: dict[str, Any]) -> Container:
    """A container of the columns with which it was written down."""
    return Container(
        uuid=row["uuid"],
        workload=row["uuid"],
        role="plain",
        name=row["name"],
        project_id=actor.project_id,
        user_id=actor.user_id,
        host=row["host"],
        spec=spec,
        status=row["status"],
        status_reason=row["status_reason"],
        task_state=row["task_state"],
        addresses=addresses,
        created_at=row["created_at"],
    )


def repeated(conn: Connection, actor: Actor, key: str, body_hash: str) -> str | None:
    """The uuid of what was made with this key before; Conflict if the body was another."""
    row = conn.execute(
        sa.select(idempotency).where(idempotency.c.project_id == actor.project_id, idempotency.c.key == key)
    ).one_or_none()
    if row is None:
        return None
    if row.body_hash != body_hash:
        raise Conflict("This Idempotency-Key was used with another body.")
    uuid: str = row.uuid
    return uuid


def remember(conn: Connection, cloud: Cloud, actor: Actor, key: str, body_hash: str, uuid: str) -> None:
    """Keep the key, so that a repeat finds what was made. Of two at once the second runs again, and finds it too."""
    conn.execute(sa.insert(idempotency), key_row(cloud, actor, key, body_hash, uuid))


def key_row(cloud: Cloud, actor: Actor, key: str, body_hash: str, uuid: str) -> dict[str, Any]:
    return {
        "project_id": actor.project_id, "key": key, "body_hash": body_hash, "uuid": uuid, "created_at": cloud.now()
    }  # fmt: skip
