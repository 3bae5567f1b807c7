"""What a host shall hold, put together from the rows: a few queries, however much the host holds."""

import ipaddress
from collections import defaultdict
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import cloud_ports, images
from higgins.control.cloud import Cloud
from higgins.control.link import Assignment, Assignments, Known, Member, Order
from higgins.control.placement.cores import share
from higgins.control.rows import known_decoder, known_of, spec_decoder
from higgins.model.container import ContainerSpec, Goal, RestartPolicy
from higgins.model.errors import NotFound
from higgins.model.resources import HostInfo
from higgins.networks.base import PortFilter, PortWire, Rule
from higgins.runtimes.base import RegistryAuth
from higgins.store.schema import container, core, host, network, port, registry, security_group, volume, workload
from higgins.volumes.base import VolumeWire

_order = msgspec.json.Decoder(Order)
_rules = msgspec.json.Decoder(list[Rule])


class CapsuleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a capsule's row keeps besides its members."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    restart_policy: RestartPolicy = RestartPolicy("always")


_capsule = msgspec.json.Decoder(CapsuleSpec)


def revision_of(conn: Connection, host_id: int) -> int | None:
    return conn.execute(sa.select(host.c.revision).where(host.c.id == host_id)).scalar_one_or_none()


def assignments(conn: Connection, cloud: Cloud, host_id: int) -> Assignments:
    """Everything that the host holds, at its revision. Raises NotFound."""
    found = conn.execute(sa.select(host.c.revision, host.c.name).where(host.c.id == host_id)).one_or_none()
    if found is None:
        raise NotFound("host", str(host_id))
    revision, host_name = found
    workloads = conn.execute(sa.select(workload).where(workload.c.host_id == host_id).order_by(workload.c.id)).all()
    mine = sa.select(workload.c.id).where(workload.c.host_id == host_id)
    members = _grouped(
        conn.execute(
            sa.select(container)
            .where(container.c.workload_id.in_(mine))
            .order_by(container.c.workload_id, container.c.position)
        ).all()
    )
    ports = _grouped(
        conn.execute(
            sa.select(port, network.c.uuid.label("network_uuid"), network.c.cidr, network.c.project_id)
            .join(network, network.c.id == port.c.network_id)
            .where(port.c.workload_id.in_(mine))
            .order_by(port.c.workload_id, port.c.position)
        ).all()
    )
    cloud_rows = cloud_ports.of_host(conn, mine)
    volumes = _volumes(conn, cloud, members)
    names = _names(conn, host_id)
    groups = _groups(conn, {row.project_id for row in workloads})
    auths = _auths(conn, cloud, members)
    cores = _cores(conn, host_id)
    committed = images.committed(conn, host_name)
    return Assignments(
        revision=revision,
        workloads=tuple(
            _assignment(
                cloud,
                row,
                members.get(row.id, []),
                ports.get(row.id, []),
                cloud_rows.get(row.id, []),
                volumes=volumes,
                names=names,
                groups=groups,
                auths=auths,
                cores=cores,
                committed=committed,
            )
            for row in workloads
        ),
        dead_volumes=tuple(
            conn.execute(sa.select(volume.c.uuid).where(volume.c.host_id == host_id, volume.c.deleting)).scalars()
        ),
    )


def _grouped(rows: Any) -> dict[int, list[Row[Any]]]:
    result: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        result[row.workload_id].append(row)
    return result


def _volumes(conn: Connection, cloud: Cloud, members: dict[int, list[Row[Any]]]) -> dict[str, VolumeWire]:
    """The volumes of these members; a file's content only for one that its host has not made yet."""
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
        return {}
    plain = sa.select(volume.c.uuid, volume.c.size).where(volume.c.uuid.in_(wanted))
    files = sa.select(volume.c.uuid, volume.c.content).where(volume.c.uuid.in_(unmade), volume.c.content.is_not(None))
    contents = {row.uuid: cloud.secrets.decrypt(row.content.encode()).decode() for row in conn.execute(files)}
    return {
        row.uuid: VolumeWire(uuid=row.uuid, size=row.size, content=contents.get(row.uuid))
        for row in conn.execute(plain)
    }


def _names(conn: Connection, host_id: int) -> dict[int, dict[str, tuple[str, ...]]]:
    """For each network that the host has a port on: address → names of whoever has it, on any host."""
    here = (
        sa.select(port.c.network_id)
        .join(workload, workload.c.id == port.c.workload_id)
        .where(workload.c.host_id == host_id)
    )
    rows = conn.execute(
        sa.select(port.c.network_id, port.c.address, workload.c.name, workload.c.uuid)
        .join(workload, workload.c.id == port.c.workload_id)
        .where(port.c.network_id.in_(here))
    ).all()
    result: dict[int, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for row in rows:
        result[row.network_id][row.address] = (row.name,) if row.name else ()
    return result


def _groups(conn: Connection, projects: set[str]) -> dict[tuple[str, str], tuple[Rule, ...]]:
    if not projects:
        return {}
    rows = conn.execute(sa.select(security_group).where(security_group.c.project_id.in_(projects))).all()
    result: dict[tuple[str, str], tuple[Rule, ...]] = {}
    for row in rows:
        result[row.project_id, row.name] = result[row.project_id, row.uuid] = tuple(_rules.decode(row.rules))
    return result


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


def _cores(conn: Connection, host_id: int) -> Cores:
    row = conn.execute(sa.select(host.c.info, host.c.cores).where(host.c.id == host_id)).one_or_none()
    if row is None or not row.cores:
        return Cores({}, ())
    own: dict[int, list[int]] = defaultdict(list)
    query = sa.select(core.c.workload_id, core.c.number).where(core.c.host_id == host_id).order_by(core.c.number)
    for workload_id, number in conn.execute(query):
        own[workload_id].append(number)
    return Cores(own, msgspec.json.decode(row.info, type=HostInfo).shared_cores)


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
    names: dict[int, dict[str, tuple[str, ...]]],
    groups: dict[tuple[str, str], tuple[Rule, ...]],
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
        filters=tuple(_filter(one, specs, groups) for one in ports),
        volumes=used,
        names={address: who for one in ports for address, who in names[one.network_id].items()},
        waits=cloud_ports.waits(cloud_rows),
    )


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
        stop_timeout=order.timeout if order is not None else 10,
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


def _filter(row: Row[Any], specs: list[ContainerSpec], groups: dict[tuple[str, str], tuple[Rule, ...]]) -> PortFilter:
    """Open to the own project unless security groups were named and ``default`` is not among them."""
    named = [group for spec in specs for group in spec.security_groups]
    rules: list[Rule] = [rule for group in named for rule in groups.get((row.project_id, group), ())]
    for spec in specs:
        for exposed in spec.exposed_ports:
            number, _, protocol = exposed.partition("/")
            rules.append(Rule(protocol=protocol or "tcp", port_min=int(number), port_max=int(number)))
    return PortFilter(
        uuid=row.uuid,
        address=row.address,
        mac=row.mac,
        network=row.network_uuid,
        project_id=row.project_id,
        project_open=not named or "default" in named,
        rules=tuple(rules),
    )
