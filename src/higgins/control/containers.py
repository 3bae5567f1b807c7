"""What one can do to a container. Every verb writes what is wanted, raises the generation, and is answered at once."""

import asyncio
import signal as signals
import uuid as uuids
from functools import lru_cache
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import (
    attachments,
    cloud_networks,
    cloud_ports,
    delivery,
    detaching,
    mounts,
    quotas,
    recording,
    security_groups,
    wiring,
)
from higgins.control.cloud import Actor, Cloud
from higgins.control.creating import (
    Draft,
    check_name,
    dry_run,
    insert_ports,
)
from higgins.control.link import Order
from higgins.control.lookup import SORT_KEYS, container_row, filter_conditions, filter_values, is_uuid, page, shown_row
from higgins.control.placement.choosing import place
from higgins.control.placement.claims import give_cores, held, need_room, release, take_cores
from higgins.control.placement.filters import SLACK
from higgins.control.placement.needs import need_of
from higgins.control.query import ListQuery
from higgins.control.requests import NetRequest, PortAsk
from higgins.control.rows import (
    COLUMNS,
    Making,
    addresses_of,
    container_of,
    known_of,
    listed,
    listed_of,
    spec_decoder,
    to_json,
)
from higgins.control.together import create
from higgins.model.container import ALLOWED, MOST_GROUPS, ContainerSpec, Goal, Status, TaskState
from higgins.model.errors import Conflict, Forbidden, Invalid, InvalidState, NotFound
from higgins.model.resources import Container
from higgins.store.database import touch_host
from higgins.store.schema import action, container, host, workload
from higgins.store.schema import port as ports_table

__all__ = [
    "Draft", "NetRequest", "add_security_group", "create", "delete", "dry_run", "find", "get", "kill", "network_attach",
    "network_detach", "network_list", "pause", "reboot", "rebuild", "remove_security_group", "rename", "start", "stop",
    "unpause", "update", "wait",
]  # fmt: skip

_PLAIN = sa.select(*COLUMNS).where(container.c.role == "plain")


async def get(cloud: Cloud, actor: Actor, ident: str) -> Container:
    """A container by uuid (a capsule's member too) or by name. Raises NotFound, Conflict."""
    return await cloud.store.read(lambda conn: listed_of(shown_row(conn, actor, ident), cloud.now()))


async def find(cloud: Cloud, actor: Actor, query: ListQuery, made: Making[Any] | None = None) -> list[Any]:
    """A page of plain containers of the project (of all with ``all_projects``, for an administrator): what is ``made``
    of each, or themselves."""

    def work(conn: Connection) -> list[Any]:
        every = query.all_projects and actor.is_admin
        if query.marker is None:
            asked = _first_page(query.sort_key, query.sort_dir, tuple(query.filters), every=every)
        else:
            asked = _page(conn, query, None if every else actor.project_id)
        tell, now = made.of if made else listed_of, cloud.now()
        wanted = filter_values(query) | {"own": actor.project_id, "most": query.limit}
        return [tell(row, now) for row in listed(conn, asked, wanted)]

    return await cloud.store.read(work)


@lru_cache(maxsize=128)
def _first_page(sort_key: str, sort_dir: Literal["asc", "desc"], filters: tuple[str, ...], *, every: bool) -> Any:
    """The query for a list without a marker: kept, since it takes longer to put together than to run."""
    query = ListQuery(sort_key=sort_key, sort_dir=sort_dir, filters=dict.fromkeys(filters, ""))
    return _page(None, query, None if every else sa.bindparam("own"))


def _page(conn: Any, query: ListQuery, project: Any) -> sa.Select[Any]:
    """The query for a list; its arguments are the values of its filters, and ``most``."""
    conditions, order = page(container, query, SORT_KEYS, conn, "container", project=project)
    conditions += filter_conditions(query)
    return _PLAIN.where(*conditions).order_by(*order).limit(sa.bindparam("most"))


def changed(
    conn: Connection,
    cloud: Cloud,
    actor: Actor,
    row: Row[Any],
    name: str,
    values: dict[str, Any],
) -> int:
    """Write new values of a container, raise its workload's generation, wake its host, record action and event."""
    now = cloud.now()
    generation: int = row.generation + 1
    conn.execute(
        sa.update(workload)
        .where(workload.c.id == row.workload_id)
        .values(generation=workload.c.generation + 1, updated_at=now)
    )
    conn.execute(sa.update(container).where(container.c.id == row.id).values(**values, updated_at=now))
    recording.record_action(conn, cloud, actor, row.uuid, name, generation=generation)
    attachments.retry(conn, cloud, row.spec)
    if row.host_id is not None:
        touch_host(conn, row.host_id)
    if values.get("status", row.status) != row.status:
        recording.record_event(
            conn, cloud, project_id=row.project_id, uuid=row.uuid, name=row.name, status=values["status"], reason=None
        )
    return generation


def _held(conn: Connection, actor: Actor, ident: str) -> Row[Any]:
    """The container, its workload's row held until the transaction ends: two verbs at once are one after the other."""
    row = container_row(conn, actor, ident)
    if conn.dialect.name == "sqlite":  # there one writer at a time is the rule anyway
        return row
    conn.execute(sa.select(workload.c.id).where(workload.c.id == row.workload_id).with_for_update())
    return container_row(conn, actor, row.uuid)


def _target(conn: Connection, actor: Actor, ident: str, verb: str) -> Row[Any]:
    """The container to do ``verb`` to; raises InvalidState where its state does not allow it."""
    row = _held(conn, actor, ident)
    require(row, verb)
    return row


def require(row: Row[Any], verb: str) -> None:
    """Raises InvalidState where the table of allowed states refuses."""
    if row.deleting and not verb.startswith("delete"):
        raise InvalidState(row.uuid, verb, Status.DELETING)
    if row.status not in ALLOWED[verb]:
        raise InvalidState(row.uuid, verb, row.status)


def _place_again(conn: Connection, cloud: Cloud, row: Row[Any]) -> dict[str, Any]:
    """A container that found no host is placed now, or Conflict says why it still finds none."""
    spec = spec_decoder.decode(row.spec)
    mounted = [mount.volume for mount in spec.mounts if mount.volume]
    need = need_of(
        conn, row.project_id, [spec],
        cpu=spec.cpu, memory=spec.memory, disk=spec.disk + mounts.unplaced(conn, mounted, []),
        volumes=mounts.hosts_of(conn, [spec]), attaches=bool(attachments.of_workload(conn, row.workload_id)),
        workload_id=row.workload_id,
    )  # fmt: skip
    chosen, reason = place(conn, cloud, need)
    if chosen is None:
        raise Conflict(reason)
    conn.execute(
        sa.update(workload)
        .where(workload.c.id == row.workload_id)
        .values(host_id=chosen.id, status=Status.CREATING, status_reason=None)
    )
    take_cores(conn, chosen.id, row.workload_id, chosen.cores)
    mounts.place(conn, cloud, mounted, chosen.id)
    owner = Actor(user_id=row.user_id, project_id=row.project_id)
    kept = conn.execute(sa.select(workload.c.spec).where(workload.c.id == row.workload_id)).scalar_one()
    wanted = wiring.wanted_decoder.decode(kept)
    nets = wiring.resolve(conn, cloud, owner, wanted.nets)
    addresses = insert_ports(conn, nets, row.workload_id) | cloud_ports.insert(
        conn, cloud, wanted.ports, workload_id=row.workload_id, host_id=chosen.id, device=row.workload_uuid,
        project_id=row.project_id,
    )  # fmt: skip
    wiring.tell_neighbours(conn, cloud, row.workload_id)
    touch_host(conn, chosen.id)
    return {"host": chosen.name, "addresses": to_json(addresses), "status": Status.CREATING}


def _seq(row: Row[Any]) -> int:
    """The number of the next order."""
    if row.orders is None:
        return known_of(row).order_done + 1
    return max(order_of(row).seq, known_of(row).order_done) + 1


def order_of(row: Row[Any]) -> Order:
    """The order that the container was given last."""
    return msgspec.json.decode(row.orders, type=Order)


async def start(cloud: Cloud, actor: Actor, ident: str) -> None:
    """Let it run. What is in Error is tried again; what vanished from its engine is made anew."""

    def work(conn: Connection) -> None:
        row = _target(conn, actor, ident, "start")
        values: dict[str, Any] = {"goal": Goal.RUNNING, "task_state": TaskState.STARTING, "status_reason": None}
        if row.status != Status.CREATED:
            # An order, since a container that ended is not started for the goal alone: its restart policy may forbid.
            values["orders"] = to_json(Order(seq=_seq(row), verb="restart", timeout=0))
        cloud_ports.want_again(conn, cloud, row.workload_id, states=("refused",))
        if row.host_id is None:
            values |= _place_again(conn, cloud, row)
        elif known_of(row).state == "gone":
            values["incarnation"] = row.incarnation + 1
        changed(conn, cloud, actor, row, "start", values)

    await quotas.write(cloud, work)


async def stop(cloud: Cloud, actor: Actor, ident: str, *, timeout: float = 10) -> None:
    """Let it end: SIGTERM, and SIGKILL after ``timeout`` seconds."""
    await _simple(
        cloud,
        actor,
        ident,
        "stop",
        lambda row: {
            "goal": Goal.STOPPED,
            "task_state": TaskState.STOPPING,
            "orders": to_json(Order(seq=_seq(row), verb="stop", timeout=timeout)),
        },
    )


async def reboot(cloud: Cloud, actor: Actor, ident: str, *, timeout: float = 10) -> None:
    """Stop it (if it runs) and start it."""
    await _simple(
        cloud,
        actor,
        ident,
        "reboot",
        lambda row: {
            "goal": Goal.RUNNING,
            "status": Status.RESTARTING,
            "status_reason": None,
            "task_state": TaskState.REBOOTING,
            "orders": to_json(Order(seq=_seq(row), verb="restart", timeout=timeout)),
            "incarnation": row.incarnation + (known_of(row).state == "gone"),
        },
    )


async def pause(cloud: Cloud, actor: Actor, ident: str) -> None:
    await _simple(cloud, actor, ident, "pause", lambda row: {"goal": Goal.PAUSED, "task_state": TaskState.PAUSING})


async def unpause(cloud: Cloud, actor: Actor, ident: str) -> None:
    await _simple(cloud, actor, ident, "unpause", lambda row: {"goal": Goal.RUNNING, "task_state": TaskState.UNPAUSING})


async def kill(cloud: Cloud, actor: Actor, ident: str, *, signal: str | None = None) -> None:
    """Send a signal, SIGKILL unless told. One that ends processes means that it shall stay ended."""
    name = signal_name(signal or "SIGKILL")

    def values(row: Row[Any]) -> dict[str, Any]:
        order = Order(seq=_seq(row), verb="kill", signal=name)
        ends = {"goal": Goal.STOPPED} if name == "SIGKILL" else {}
        return {"task_state": TaskState.KILLING, "orders": to_json(order), **ends}

    await _simple(cloud, actor, ident, "kill", values)


def signal_name(text: str) -> str:
    """``SIGTERM`` of SIGTERM, term or 15; raises Invalid for what is no signal."""
    bare = text.upper().removeprefix("SIG")
    try:
        return (
            signals.Signals(int(bare)).name if bare.isascii() and bare.isdigit() else signals.Signals[f"SIG{bare}"].name
        )
    except (KeyError, ValueError):
        raise Invalid(f"signal: {text} is not the name or number of a signal.") from None


async def rebuild(
    cloud: Cloud,
    actor: Actor,
    ident: str,
    *,
    image: str | None = None,
    image_driver: str | None = None,
    token: str = "",
) -> None:
    """Make it anew from its image, or from another. The old one goes once the new image is there.

    One of the image service stays what it was when it was asked for, unless it is asked for again with ``token``: by
    name, or because its policy is always to have it as it is now.
    """
    before = (await get(cloud, actor, ident)).spec
    chosen = structs.replace(before, image=image or before.image, image_driver=image_driver or before.image_driver)
    if chosen != before or image is not None or chosen.image_pull_policy == "always":
        chosen = await delivery.pinned(cloud, actor, token, chosen)

    def values(row: Row[Any]) -> dict[str, Any]:
        spec = structs.replace(
            spec_decoder.decode(row.spec), image=chosen.image, image_driver=chosen.image_driver, found=chosen.found
        )
        return {
            "spec": to_json(spec),
            "image": spec.image,
            "incarnation": row.incarnation + 1,
            "status": Status.REBUILDING,
            "status_reason": None,
            "task_state": TaskState.REBUILDING,
            # What did not run before does not run afterwards; what failed gets another chance.
            "goal": Goal.RUNNING if row.status in (Status.RUNNING, Status.ERROR) else Goal.CREATED,
        }

    await _simple(cloud, actor, ident, "rebuild", values)


async def _simple(cloud: Cloud, actor: Actor, ident: str, verb: str, values: Any) -> None:
    """A verb that changes one container on its host. In Error without a host, only ``start`` and ``delete`` help."""

    def work(conn: Connection) -> None:
        row = _target(conn, actor, ident, verb)
        new = values(row)
        cloud_ports.want_again(conn, cloud, row.workload_id, states=("refused",))
        if row.host_id is None:
            new |= _place_again(conn, cloud, row)
        changed(conn, cloud, actor, row, verb, new)

    await quotas.write(cloud, work)


async def delete(
    cloud: Cloud,
    actor: Actor,
    ident: str,
    *,
    force: bool = False,
    stop: bool = False,
) -> None:
    """Remove it with all that was made for it. A running one needs ``stop`` or ``force``. Twice is once."""

    def work(conn: Connection) -> None:
        row = _held(conn, actor, ident)
        require(row, "delete_force" if force else "delete_stop" if stop else "delete")
        if row.host_id is None:
            remove_workload(conn, cloud, row.workload_id)
            return
        if row.deleting:
            return
        conn.execute(sa.update(workload).where(workload.c.id == row.workload_id).values(deleting=True, unheard=True))
        changed(
            conn,
            cloud,
            actor,
            row,
            "delete",
            {
                "goal": Goal.STOPPED if stop and not force else Goal.DELETED,
                "status": Status.DELETING,
                "task_state": TaskState.DELETING,
            },
        )

    await cloud.store.write(work)


def remove_workload(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """Nothing of it is left on a host: give back its claims and take its rows away."""
    row = conn.execute(sa.select(workload).where(workload.c.id == workload_id)).one()
    members = conn.execute(sa.select(container).where(container.c.workload_id == workload_id)).all()
    quotas.charge(
        conn,
        cloud,
        row.project_id,
        containers=-sum(1 for member in members if member.role != "init"),
        cpu=-row.cpu,
        memory=-row.memory,
        disk=-row.disk - mounts.own_size(conn, workload_id),
    )
    for host_id in (row.host_id, row.next_host_id):
        if host_id is not None:
            let_go(conn, row, host_id)
    mounts.drop(conn, cloud, workload_id)
    cloud_ports.abandon(conn, cloud, workload_id)
    wiring.tell_neighbours(conn, cloud, workload_id)
    conn.execute(sa.delete(ports_table).where(ports_table.c.workload_id == workload_id))
    for member in members:
        recording.record_event(
            conn,
            cloud,
            project_id=member.project_id,
            uuid=member.uuid,
            name=member.name,
            status=Status.DELETED,
            reason=None,
        )
    uuids = [member.uuid for member in members]
    conn.execute(sa.delete(action).where(action.c.container_uuid.in_([*uuids, row.uuid])))
    conn.execute(sa.delete(container).where(container.c.workload_id == workload_id))
    conn.execute(sa.delete(workload).where(workload.c.id == workload_id))


def let_go(conn: Connection, row: Row[Any], host_id: int) -> None:
    """Give back what a workload has claimed on a host."""
    cores = give_cores(conn, host_id, row.id)
    release(conn, host_id, cpu=row.cpu, memory=row.memory, disk=row.disk, cores=cores)


async def update(
    cloud: Cloud,
    actor: Actor,
    ident: str,
    *,
    name: str | None = None,
    cpu: float | None = None,
    memory: int | None = None,
    auto_heal: bool | None = None,
    action: str = "update",
) -> Container:
    """New name, limits or healing. More is charged to the quota and claimed on the host first, or nothing changes."""

    def work(conn: Connection) -> Container:
        row = _target(conn, actor, ident, action)
        spec = spec_decoder.decode(row.spec)
        new = structs.replace(
            spec,
            cpu=spec.cpu if cpu is None else cpu,
            memory=spec.memory if memory is None else memory,
            auto_heal=spec.auto_heal if auto_heal is None else auto_heal,
        )
        if name is not None and name != row.name:
            check_name(conn, cloud, actor, name)
            _call(conn, row, name)
        _resize(conn, cloud, row, spec, new)
        if new.auto_heal and not spec.auto_heal and row.host_id is not None:
            mine = workload.c.id == row.workload_id
            conn.execute(sa.update(workload).where(mine).values(unheard=True))  # see ``fencing``
        values = {"spec": to_json(new), "memory": new.memory, "name": name or row.name}
        changed(conn, cloud, actor, row, action, values)
        fresh = container_row(conn, actor, row.uuid)
        return container_of(fresh, fresh.workload_uuid, cloud.now())

    return await quotas.write(cloud, work)


def _resize(conn: Connection, cloud: Cloud, row: Row[Any], old: ContainerSpec, new: ContainerSpec) -> None:
    cpu, memory = new.cpu - old.cpu, new.memory - old.memory
    if not cpu and not memory:
        return
    if cpu and new.cpu_policy == "dedicated":
        raise Conflict("The number of CPUs that a container has to itself cannot be changed.")
    quotas.charge(conn, cloud, row.project_id, containers=0, cpu=cpu, memory=memory, disk=0)
    conn.execute(
        sa.update(workload)
        .where(workload.c.id == row.workload_id)
        .values(cpu=workload.c.cpu + cpu, memory=workload.c.memory + memory)
    )
    if row.host_id is None:
        return
    t = host.c
    fits = conn.execute(
        sa.update(host)
        .where(
            t.id == row.host_id,
            sa.or_(
                sa.literal(cpu) <= 0,
                t.cpu_used - t.cores_used + cpu <= (t.cpus - t.cores) * cloud.settings.cpu_allocation_ratio + SLACK,
            ),
            sa.or_(
                sa.literal(memory) <= 0, t.memory_used + memory <= t.memory * cloud.settings.memory_allocation_ratio
            ),
            *held(cloud.settings, cpu=cpu, memory=memory, disk=0),
        )
        .values(cpu_used=t.cpu_used + cpu, memory_used=t.memory_used + memory)
    )
    if fits.rowcount == 0:
        need_room(conn, cloud.settings, cloud.now(), row.host_id, cpu=cpu, memory=memory, disk=0)
        raise Conflict("The container's host has too little CPU or memory left for that.")


async def rename(cloud: Cloud, actor: Actor, ident: str, name: str) -> Container:
    """A new name; the same again is a Conflict, as in Zun."""

    def work(conn: Connection) -> Container:
        row = _held(conn, actor, ident)
        if row.name == name:
            raise Conflict("The new name for the container is the same as the old name.")
        check_name(conn, cloud, actor, name)
        _call(conn, row, name)
        changed(conn, cloud, actor, row, "rename", {"name": name})
        fresh = container_row(conn, actor, row.uuid)
        return container_of(fresh, fresh.workload_uuid, cloud.now())

    return await cloud.store.write(work)


def _call(conn: Connection, row: Row[Any], name: str) -> None:
    """Its neighbours shall find it by its new name: their hosts are told, too."""
    conn.execute(sa.update(workload).where(workload.c.id == row.workload_id).values(name=name))
    wiring.touch_neighbours(conn, row.workload_id)


async def network_attach(cloud: Cloud, actor: Actor, ident: str, net: NetRequest) -> None:
    """Give it a port on one more network."""
    asks = await cloud_networks.look(cloud, actor, (net,))

    def work(conn: Connection) -> None:
        row = _target(conn, actor, ident, "network_attach")
        if row.host_id is None:
            raise InvalidState(row.uuid, "network_attach", row.status)
        if asks:
            _attach_cloud_port(conn, cloud, actor, row, asks[0])
            return
        if net.v6_fixed_ip is not None:
            raise Invalid("fixed_ip: the local networks have IPv4 subnets only.")
        owner = Actor(user_id=actor.user_id, project_id=row.project_id)
        ((chosen, wanted),) = wiring.resolve(conn, cloud, owner, (net,))
        ports = wiring.ports_of(conn, row.workload_id)
        if any(one.network_uuid == chosen.uuid for one in ports):
            raise Conflict(f"Container {row.uuid} is on network {chosen.name} already.")
        position = max((one.position for one in ports), default=-1) + 1
        if wanted is not None:
            detaching.take_back(conn, row.workload_id, chosen.id, wanted)
        wiring.make_port(conn, chosen, row.workload_id, position, wanted)
        wiring.tell_neighbours(conn, cloud, row.workload_id)
        _addresses_changed(conn, cloud, actor, row, "network_attach", TaskState.NETWORK_ATTACHING)

    await cloud.store.write(work)


def _attach_cloud_port(conn: Connection, cloud: Cloud, actor: Actor, row: Row[Any], asked: PortAsk) -> None:
    cloud_ports.forget_refused(conn, cloud, row.workload_id)
    there = cloud_ports.of_workload(conn, row.workload_id)
    if row.project_id != actor.project_id:
        raise Forbidden("Networks are attached to the containers of one's own project.")
    if asked.port is None and any(one.network == asked.network for one in there):
        raise Conflict(f"Container {row.uuid} is on network {asked.network_name} already.")
    shown = cloud_ports.insert(
        conn, cloud, (asked,), workload_id=row.workload_id, host_id=row.host_id, device=row.workload_uuid,
        project_id=row.project_id, late=True,
    )  # fmt: skip
    values = {"addresses": to_json(shown), "task_state": TaskState.NETWORK_ATTACHING}
    changed(conn, cloud, actor, row, "network_attach", values)


async def network_detach(
    cloud: Cloud, actor: Actor, ident: str, *, network: str | None = None, port: str | None = None
) -> None:
    """Take it off a network, named by the network or by the port."""
    service, wanted = cloud.networking, network
    if service is not None and network is not None and not is_uuid(network):
        wanted = (await cloud_networks.find_network(service, actor, network)).id

    def work(conn: Connection) -> None:
        row = _target(conn, actor, ident, "network_detach")
        if service is not None:
            _detach_cloud_ports(conn, cloud, actor, row, wanted, port)
            return
        ports = wiring.ports_of(conn, row.workload_id)
        gone = [one for one in ports if port == one.uuid or network in (one.network_uuid, one.network_name)]
        if not gone:
            raise NotFound("port" if port else "network", port or network or "")
        wiring.tell_neighbours(conn, cloud, row.workload_id)
        detaching.detach(conn, row.workload_id, gone)
        left = [one for one in ports if one not in gone]
        if left and ports[0] in gone:
            # It led out, and the next one does so now: as another port, since its host plugs a port only once.
            conn.execute(sa.update(ports_table).where(ports_table.c.id == left[0].id).values(uuid=str(uuids.uuid4())))
        _addresses_changed(conn, cloud, actor, row, "network_detach", TaskState.NETWORK_DETACHING)

    await cloud.store.write(work)


def _detach_cloud_ports(
    conn: Connection, cloud: Cloud, actor: Actor, row: Row[Any], network: str | None, port: str | None
) -> None:
    there = cloud_ports.of_workload(conn, row.workload_id)
    gone = [one for one in there if (port == one.port if port else network == one.network)]
    if not gone:
        raise NotFound("port" if port else "network", port or network or "")
    if len(gone) == len(there):
        raise Invalid("network: a container keeps at least one network.")
    cloud_ports.detach(conn, gone)
    detaching.begin(conn, row.workload_id)
    if there[0] in gone:  # it led out, and the next one does so now
        cloud_ports.plug_anew(conn, next(one for one in there if one not in gone))
    shown = to_json(cloud_ports.addresses(cloud_ports.of_workload(conn, row.workload_id)))
    changed(conn, cloud, actor, row, "network_detach", {"addresses": shown, "task_state": TaskState.NETWORK_DETACHING})


def _addresses_changed(conn: Connection, cloud: Cloud, actor: Actor, row: Row[Any], verb: str, task: TaskState) -> None:
    addresses = addresses_of(wiring.ports_of(conn, row.workload_id))
    changed(conn, cloud, actor, row, verb, {"addresses": to_json(addresses), "task_state": task})


async def network_list(cloud: Cloud, actor: Actor, ident: str) -> list[dict[str, Any]]:
    """Its ports, each with network and addresses, as microversion 1.18 shows them."""

    def work(conn: Connection) -> list[dict[str, Any]]:
        row = container_row(conn, actor, ident)
        if cloud.networking is not None:
            return cloud_ports.listed(cloud_ports.of_workload(conn, row.workload_id))
        return [
            {
                "net_id": one.network_uuid,
                "port_id": one.uuid,
                "fixed_ips": [{"ip_address": one.address, "version": 4, "subnet_id": one.network_uuid}],
            }
            for one in wiring.ports_of(conn, row.workload_id)
        ]

    return await cloud.store.read(work)


async def add_security_group(cloud: Cloud, actor: Actor, ident: str, name: str) -> None:
    """Have one more group's rules let traffic in to it. One that was in no other is in ``default`` still."""
    known = await cloud_networks.groups(cloud, actor, name)

    def work(conn: Connection) -> None:
        row, spec, mine, group = _group(conn, cloud, actor, ident, "add_security_group", name, known)
        if group in mine:
            raise Invalid(f"name: security group {name} has been added to the container already.")
        if len(mine) == MOST_GROUPS:
            raise Invalid(f"name: a container is in {MOST_GROUPS} security groups at most.")
        _regroup(conn, cloud, actor, row, "add_security_group", spec, (*mine, group), TaskState.GROUP_ADDING)

    await cloud.store.write(work)


async def remove_security_group(cloud: Cloud, actor: Actor, ident: str, name: str) -> None:
    """Have a group's rules not count for it any more."""
    known = await cloud_networks.groups(cloud, actor, name)

    def work(conn: Connection) -> None:
        row, spec, mine, group = _group(conn, cloud, actor, ident, "remove_security_group", name, known)
        if group not in mine:
            raise Invalid(f"name: security group {name} was not added to the container.")
        if len(mine) == 1:
            raise Invalid("name: a container keeps at least one security group.")
        left = tuple(one for one in mine if one != group)
        _regroup(conn, cloud, actor, row, "remove_security_group", spec, left, TaskState.GROUP_REMOVING)

    await cloud.store.write(work)


def _group(
    conn: Connection, cloud: Cloud, actor: Actor, ident: str, verb: str, name: str, known: tuple[str, str] | None
) -> tuple[Row[Any], ContainerSpec, tuple[str, ...], str]:
    """The container, its spec, the groups that it is in, and the one that is named.

    ``known`` are the ids of that one and of the default one where groups are the network service's.
    """
    row = _target(conn, actor, ident, verb)
    if known is not None and row.project_id != actor.project_id:  # the names mean groups of the caller's project
        raise Forbidden("Security groups of the network service are changed by the container's own project.")
    if known is not None:
        group, default = known
        spec = spec_decoder.decode(row.spec)
        return row, spec, cloud_ports.groups_of(conn, row.workload_id) or (default,), group
    quotas.hold_names(conn, row.project_id)  # the group stays, and its rules
    spec = spec_decoder.decode(row.spec)
    mine = security_groups.resolve(conn, cloud, row.project_id, spec.security_groups or (security_groups.DEFAULT,))
    (group,) = security_groups.resolve(conn, cloud, row.project_id, (name,))
    return row, spec, mine, group


def _regroup(
    conn: Connection,
    cloud: Cloud,
    actor: Actor,
    row: Row[Any],
    verb: str,
    spec: ContainerSpec,
    groups: tuple[str, ...],
    task: TaskState,
) -> None:
    new = structs.replace(spec, security_groups=groups)
    if cloud.networking is not None:
        cloud_ports.regroup(conn, cloud, row.workload_id, groups)
    changed(conn, cloud, actor, row, verb, {"spec": to_json(new), "task_state": task})
    wiring.tell_neighbours(conn, cloud, row.workload_id)  # their rules may be about the group


async def wait(cloud: Cloud, actor: Actor, ident: str, status: str, timeout: float) -> Container:
    """The container as soon as its status is ``status`` or Error; as it is after ``timeout`` seconds at the latest."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    with cloud.store.wakeups.listen("events") as listener:
        while True:
            found = await get(cloud, actor, ident)
            left = until - loop.time()
            if found.status.lower() == status.lower() or found.status == Status.ERROR or left <= 0:
                return found
            await listener.wait(min(left, 5))
