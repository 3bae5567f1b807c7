"""What a host shall hold, put together from the rows: a few queries, however much the host holds."""

import ipaddress
from collections import defaultdict
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import attachments, cloud_ports, fencing, images
from higgins.control.cloud import Cloud
from higgins.control.filtering import Groups, groups_of, port_filter
from higgins.control.link import Assignment, Assignments, Known, Member, Order, Waits
from higgins.control.placement.cores import share
from higgins.control.rows import CapsuleSpec, known_decoder, known_of, spec_decoder
from higgins.model.container import ContainerSpec, Goal
from higgins.model.errors import NotFound
from higgins.model.resources import HostInfo
from higgins.networks.base import Neighbour, PortWire
from higgins.runtimes.base import RegistryAuth
from higgins.store.schema import attachment, container, core, host, network, port, registry, volume, workload
from higgins.volumes.base import VolumeWire

_order = msgspec.json.Decoder(Order)
_capsule = msgspec.json.Decoder(CapsuleSpec)

# Made once: to put these together anew would take as long as to run them. ``host`` is its number.
_here = workload.c.host_id == sa.bindparam("host")
_mine = sa.select(workload.c.id).where(_here)
_asked = ("id", "name", "revision", "cores", "seen_at", "told_lease", "told_evacuate")
_HOST = sa.select(*(host.c[name] for name in _asked)).where(host.c.id == sa.bindparam("host"))
_WORKLOADS = sa.select(workload).where(_here).order_by(workload.c.id)
_MEMBERS = (
    sa.select(container)
    .where(container.c.workload_id.in_(_mine))
    .order_by(container.c.workload_id, container.c.position)
)
_PORTS = (
    sa.select(port, network.c.uuid.label("network_uuid"), network.c.cidr, network.c.project_id)
    .join(network, network.c.id == port.c.network_id)
    .where(port.c.workload_id.in_(_mine))
    .order_by(port.c.workload_id, port.c.position)
)
_networks = sa.select(port.c.network_id).join(workload, workload.c.id == port.c.workload_id).where(_here)
_NAMES = (
    sa.select(port.c.network_id, port.c.address, workload.c.name)
    .join(workload, workload.c.id == port.c.workload_id)
    .where(port.c.network_id.in_(_networks))
)
_BEYOND = (
    sa.select(port.c.network_id, port.c.address, port.c.mac, workload.c.host_id, network.c.uuid, network.c.project_id)
    .join(workload, workload.c.id == port.c.workload_id)
    .join(network, network.c.id == port.c.network_id)
    .where(
        port.c.network_id.in_(_networks), workload.c.host_id.is_not(None), workload.c.host_id != sa.bindparam("host")
    )
    .order_by(port.c.id)
)
_DEAD = sa.select(volume.c.uuid).where(volume.c.host_id == sa.bindparam("host"), volume.c.deleting)
_CORES = (
    sa.select(core.c.workload_id, core.c.number).where(core.c.host_id == sa.bindparam("host")).order_by(core.c.number)
)


def asking(conn: Connection, host_id: int) -> Row[Any]:
    """What there is to know of a host that asks: its revision, its lease, what it was told. Raises NotFound."""
    found = conn.execute(_HOST, {"host": host_id}).one_or_none()
    if found is None:
        raise NotFound("host", str(host_id))
    return found


def assignments(conn: Connection, cloud: Cloud, asks: Row[Any]) -> Assignments:
    """Everything that a host holds, at its revision; ``asks`` is what ``asking`` found of it."""
    mine = {"host": asks.id}
    workloads = conn.execute(_WORKLOADS, mine).all()
    members = _grouped(conn.execute(_MEMBERS, mine).all())
    ports = _grouped(conn.execute(_PORTS, mine).all())
    cloud_rows = cloud_ports.of_host(conn, asks.id)
    volumes, lacking, data = _volumes(conn, cloud, members)
    names = _names(conn, asks.id)
    groups = groups_of(conn, workloads, members, ports, overlay=cloud.settings.overlay)
    auths = _auths(conn, cloud, members)
    cores = _cores(conn, asks)
    committed = images.committed(conn, asks.name)
    return Assignments(
        revision=asks.revision,
        workloads=tuple(
            _assignment(
                cloud,
                row,
                members.get(row.id, []),
                ports.get(row.id, []),
                cloud_rows.get(row.id, []),
                volumes=volumes,
                lacking=lacking,
                data=data,
                names=names,
                groups=groups,
                auths=auths,
                cores=cores,
                committed=committed,
            )
            for row in workloads
        ),
        dead_volumes=tuple(conn.execute(_DEAD, mine).scalars()),
        neighbours=_neighbours(conn, asks.id) if cloud.settings.overlay else (),
        lease=fencing.lease(cloud.settings),
    )


def _grouped(rows: Any) -> dict[int, list[Row[Any]]]:
    result: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        result[row.workload_id].append(row)
    return result


def _volumes(
    conn: Connection, cloud: Cloud, members: dict[int, list[Row[Any]]]
) -> tuple[dict[str, VolumeWire], dict[str, Waits], frozenset[str]]:
    """The volumes of these members, those that Cinder has not attached yet, and those whose data lies on the host.

    A file's content is there only for one that its host has not made yet.
    """
    wanted: set[str] = set()
    unmade: set[str] = set()
    for row in (row for rows in members.values() for row in rows):
        if '"mounts":[{' not in row.spec:  # most have none: spare the decoding
            continue
        used = {mount.volume for mount in spec_decoder.decode(row.spec).mounts if mount.volume}
        wanted |= used
        if known_of(row).incarnation < row.incarnation:
            unmade |= used
    if not wanted:
        return {}, {}, frozenset()
    local = (volume.c.uuid.in_(wanted), volume.c.driver == "local")
    columns = (volume.c.uuid, volume.c.size, volume.c.content.is_(None).label("data"))
    plain = conn.execute(sa.select(*columns).where(*local)).all()
    attached, lacking = _attached(conn, cloud, wanted) if len(plain) < len(wanted) else ({}, {})
    files = sa.select(volume.c.uuid, volume.c.content).where(volume.c.uuid.in_(unmade), volume.c.content.is_not(None))
    contents = {row.uuid: cloud.secrets.decrypt(row.content.encode()).decode() for row in conn.execute(files)}
    there = {row.uuid: VolumeWire(uuid=row.uuid, size=row.size, content=contents.get(row.uuid)) for row in plain}
    return there | attached, lacking, frozenset(row.uuid for row in plain if row.data)


def _attached(conn: Connection, cloud: Cloud, wanted: set[str]) -> tuple[dict[str, VolumeWire], dict[str, Waits]]:
    """Volumes of Cinder: how the host comes to them, or why it does not yet."""
    mine = sa.select(volume.c.uuid, attachment).join(attachment, attachment.c.volume_id == volume.c.id)
    wires: dict[str, VolumeWire] = {}
    lacking: dict[str, Waits] = {}
    for row in conn.execute(mine.where(volume.c.uuid.in_(wanted))).all():
        if row.connection is None:
            refused = row.state == attachments.REFUSED
            lacking[row.uuid] = Waits(reason=(row.reason if refused else row.trouble) or "", refused=refused)
            wires[row.uuid] = VolumeWire(uuid=row.uuid, driver="cinder")
            continue
        connection = msgspec.json.decode(cloud.secrets.decrypt(row.connection.encode()))
        wires[row.uuid] = VolumeWire(uuid=row.uuid, driver="cinder", connection=connection, fresh=row.made)
    return wires, lacking


def _names(conn: Connection, host_id: int) -> dict[int, dict[str, tuple[str, ...]]]:
    """For each network that the host has a port on: address → names of whoever has it, on any host."""
    result: dict[int, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for row in conn.execute(_NAMES, {"host": host_id}).all():
        result[row.network_id][row.address] = (row.name,) if row.name else ()
    return result


def _neighbours(conn: Connection, host_id: int) -> tuple[Neighbour, ...]:
    """The ports on other hosts of the networks that the host has a port on.

    A network's own number is that of its tunnel. A host that does not say where tunnels reach it has no neighbours.
    """
    rows = conn.execute(_BEYOND, {"host": host_id}).all()
    if not rows:
        return ()
    hosts = sa.select(host.c.id, host.c.info).where(host.c.id.in_({row.host_id for row in rows} | {host_id}))
    ends = {row.id: msgspec.json.decode(row.info, type=HostInfo).tunnel_address for row in conn.execute(hosts)}
    if not ends.get(host_id):
        return ()
    return tuple(
        Neighbour(
            network=row.uuid,
            tunnel=row.network_id,
            project_id=row.project_id,
            address=row.address,
            mac=row.mac,
            host=ends[row.host_id],
        )
        for row in rows
        if ends.get(row.host_id)
    )


def _auths(conn: Connection, cloud: Cloud, members: dict[int, list[Row[Any]]]) -> dict[str, RegistryAuth]:
    wanted = {
        spec_decoder.decode(row.spec).registry_id
        for rows in members.values()
        for row in rows
        if '"registry_id":"' in row.spec
    }
    if not wanted:
        return {}
    rows = conn.execute(sa.select(registry).where(registry.c.uuid.in_(wanted))).all()
    return {
        row.uuid: RegistryAuth(
            username=row.username or "",
            password=cloud.secrets.decrypt(row.password.encode()).decode() if row.password else "",
            domain=row.domain,
        )
        for row in rows
    }


class Cores(msgspec.Struct, frozen=True):
    """The cores that workloads of a host have to themselves, by workload, and those that the others keep to."""

    own: dict[int, list[int]]
    shared: tuple[int, ...]


def _cores(conn: Connection, asks: Row[Any]) -> Cores:
    if not asks.cores:
        return Cores({}, ())
    own: dict[int, list[int]] = defaultdict(list)
    for workload_id, number in conn.execute(_CORES, {"host": asks.id}):
        own[workload_id].append(number)
    info = conn.execute(sa.select(host.c.info).where(host.c.id == asks.id)).scalar_one()
    return Cores(own, msgspec.json.decode(info, type=HostInfo).shared_cores)


def _cpusets(cores: Cores, workload_id: int, members: list[Member]) -> list[Member]:
    """The members with the cores that each may run on."""
    counts = [round(one.spec.cpu) if one.spec.cpu_policy == "dedicated" else 0 for one in members]
    roles = [(one.role, count) for one, count in zip(members, counts, strict=True)]
    shares = share(cores.own.get(workload_id, []), roles)
    return [
        structs.replace(one, cpuset=own if count else cores.shared)
        for one, count, own in zip(members, counts, shares, strict=True)
    ]


def _assignment(
    cloud: Cloud,
    row: Row[Any],
    members: list[Row[Any]],
    ports: list[Row[Any]],
    cloud_rows: list[Row[Any]],
    *,
    volumes: dict[str, VolumeWire],
    lacking: dict[str, Waits],
    data: frozenset[str],
    names: dict[int, dict[str, tuple[str, ...]]],
    groups: Groups,
    auths: dict[str, RegistryAuth],
    cores: Cores,
    committed: dict[tuple[str, str, str], str],
) -> Assignment:
    made = tuple(_cpusets(cores, row.id, [_member(member, auths, committed) for member in members]))
    if row.next_host_id is not None:  # it is to end here as a stop would end it
        made = tuple(_moving(one) for one in made)
    used = {mount.volume: volumes[mount.volume] for one in made for mount in one.spec.mounts if mount.volume in volumes}
    specs = [one.spec for one in made]
    return Assignment(
        uuid=row.uuid,
        kind=row.kind,
        project_id=row.project_id,
        generation=row.generation,
        deleting=row.deleting or row.next_host_id is not None,
        hostname=_hostname(row, specs),
        members=made,
        restart_policy=_capsule.decode(row.spec).restart_policy if row.kind == "capsule" else None,
        # In order: the first network that it has leads out.
        ports=(
            *(_wire(cloud, one, default_route=one is ports[0]) for one in ports),
            *cloud_ports.wires(cloud_rows),
        ),
        filters=tuple(port_filter(one, specs, groups) for one in ports),
        volumes=used,
        names={address: who for one in ports for address, who in names[one.network_id].items()},
        waits=_waits(
            [
                *cloud_ports.waits(cloud_rows),
                *(lacking[mount.volume] for spec in specs for mount in spec.mounts if mount.volume in lacking),
            ]
        ),
        leaves=_leaves(cloud, row, specs, used, data),
    )


def _leaves(
    cloud: Cloud, row: Row[Any], specs: list[ContainerSpec], used: dict[str, VolumeWire], data: frozenset[str]
) -> bool:
    """Whether it is placed elsewhere once its host is lost. A volume of Cinder stays with a host that is silent."""
    if row.deleting or row.next_host_id is not None or any(one.driver == "cinder" for one in used.values()):
        return False
    local = next((uuid for uuid in used if uuid in data), None)
    return fencing.unfit(row, specs, local=local, policy=cloud.settings.evacuate) is None


def _waits(lacking: list[Waits]) -> Waits | None:
    """All that a workload waits for, as one: what was refused goes before what may come, and what holds it up."""
    return max(lacking, key=lambda one: (one.refused, one.holds, bool(one.reason)), default=None)


def _moving(member: Member) -> Member:
    return structs.replace(member, goal=Goal.STOPPED) if member.goal is not Goal.DELETED else member


def _hostname(row: Row[Any], specs: list[ContainerSpec]) -> str:
    for spec in specs:
        if spec.hostname:
            return spec.hostname
    name = (row.name or "").replace("_", "-").strip("-.")
    return name[:63] if row.kind == "capsule" else ""


def _member(row: Row[Any], auths: dict[str, RegistryAuth], committed: dict[tuple[str, str, str], str]) -> Member:
    spec = spec_decoder.decode(row.spec)
    known = known_decoder.decode(row.known) if row.known else Known()
    order = _order.decode(row.orders) if row.orders else None
    if spec.found is not None:
        spec = structs.replace(spec, image=spec.found.engine_name)
    auth = auths.get(spec.registry_id) if spec.registry_id else None
    if auth is not None and not spec.image.startswith(f"{auth.domain}/"):
        spec = structs.replace(spec, image=f"{auth.domain}/{spec.image}")
    own = committed.get((row.project_id, *images.split(spec.image))) if spec.registry_id is None else None
    if own is not None and spec.image_driver == "docker":
        spec = structs.replace(spec, image=own, image_pull_policy="never")
    return Member(
        uuid=row.uuid,
        role="init" if row.role == "init" else "main",
        position=row.position,
        name=row.name,
        goal=Goal(row.goal),
        incarnation=row.incarnation,
        spec=spec,
        known=known,
        order=order if order is not None and order.verb != "stop" and order.seq > known.order_done else None,
        stop_timeout=order.timeout if order is not None and order.verb == "stop" else 10,
        auth=auth if auth is not None and auth.username else None,
    )


def _wire(cloud: Cloud, row: Row[Any], *, default_route: bool) -> PortWire:
    subnet = ipaddress.ip_network(row.cidr)
    return PortWire(
        uuid=row.uuid,
        network=row.network_uuid,
        project_id=row.project_id,
        name=f"eth{row.position}",
        mac=row.mac,
        address=row.address,
        cidr=row.cidr,
        gateway=str(subnet[1]),
        mtu=cloud.settings.network_mtu,
        default_route=default_route,
    )
