"""Networks of projects, and the ports and addresses of workloads on them: the control side of the local network.

Addresses are chosen here and stored under a unique key, so that no two ports ever get the same one.
"""

import ipaddress
import itertools
import random
import uuid as uuids
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Row
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.control.requests import NetRequest, PortAsk
from higgins.model.errors import Conflict, Invalid, NotFound
from higgins.store.bulk import encoded, one_of, rows
from higgins.store.schema import into, network, port, workload
from higgins.store.transactions import attempt, touch_host


class Wanted(Struct, frozen=True):
    """What a container's workload keeps: the networks that were asked for, should it be placed only later.

    ``ports`` are the same as the cloud's network service has them, where there is one.
    """

    nets: tuple[NetRequest, ...] = ()
    ports: tuple[PortAsk, ...] = ()


class Net(Struct, frozen=True, eq=False):
    """A project's default network: a row of ``DEFAULTS``.

    ``newest`` is the address that was given last, ``taken`` are those that ports have of the ``many`` after it.
    """

    id: int
    uuid: str
    project_id: str
    cidr: str
    newest: str | None
    taken: list[str] | None


wanted_decoder = msgspec.json.Decoder(Wanted)


_DEFAULT = sa.select(network).where(network.c.project_id == sa.bindparam("project_id"), network.c.is_default)
_NEWEST = (
    sa.select(port.c.address).where(port.c.network_id == sa.bindparam("network")).order_by(port.c.id.desc()).limit(1)
)
_TAKEN = sa.select(port.c.id).where(
    port.c.network_id == sa.bindparam("network"), port.c.address == sa.bindparam("wanted")
)


def create_network(conn: Connection, cloud: Cloud, actor: Actor, name: str, *, default: bool = False) -> Row[Any]:
    """Make a network with the first free subnet of the pool.

    Where another took that one just now, the transaction runs again, and chooses so that many at once keep apart.
    """
    taken = {ipaddress.ip_network(cidr) for cidr in conn.execute(sa.select(network.c.cidr)).scalars()}
    pool = ipaddress.ip_network(cloud.settings.network_pool)
    subnets = (net for net in pool.subnets(new_prefix=cloud.settings.network_prefix) if net not in taken)
    free = list(itertools.islice(subnets, 1 if attempt(conn) == 1 else 64))
    if not free:
        raise Conflict(f"No subnet is left in the pool {pool} for another network.")
    row = {
        "uuid": str(uuids.uuid4()),
        "name": name,
        "project_id": actor.project_id,
        "user_id": actor.user_id,
        "cidr": str(random.choice(free)),  # noqa: S311 - no secret
        "is_default": default,
        "created_at": cloud.now(),
    }
    conn.execute(sa.insert(network).values(row))
    return conn.execute(sa.select(network).where(network.c.uuid == row["uuid"])).one()


def default_network(conn: Connection, cloud: Cloud, actor: Actor) -> Row[Any]:
    """The project's default network, made when it is first needed."""
    row = conn.execute(_DEFAULT, {"project_id": actor.project_id}).one_or_none()
    if row is not None:
        return row
    return create_network(conn, cloud, actor, "default", default=True)


def find_network(conn: Connection, actor: Actor, ident: str) -> Row[Any]:
    """A network of the project by uuid or name."""
    query = sa.select(network).where(
        network.c.project_id == actor.project_id, sa.or_(network.c.uuid == ident, network.c.name == ident)
    )
    rows = conn.execute(query).all()
    if not rows:
        raise NotFound("network", ident)
    return next((row for row in rows if row.uuid == ident), rows[0])


def resolve(
    conn: Connection, cloud: Cloud, actor: Actor, nets: tuple[NetRequest, ...]
) -> list[tuple[Row[Any], str | None]]:
    """The networks that were asked for (or the default one), each with the address asked for.

    None where the cloud has a network service of its own; see ``cloud_networks``.
    """
    if cloud.networking is not None:
        return []
    if not nets:
        return [(default_network(conn, cloud, actor), None)]
    result: list[tuple[Row[Any], str | None]] = []
    for index, net in enumerate(nets):
        if net.port is not None:
            raise NotFound("port", net.port)
        if net.v6_fixed_ip is not None:
            raise Invalid(f"nets[{index}].v6-fixed-ip: the local networks have IPv4 subnets only.")
        row = (
            default_network(conn, cloud, actor)
            if net.network == "default"
            else find_network(conn, actor, net.network or "")
        )
        if any(row.uuid == other.uuid for other, _ in result):
            raise Invalid(f"nets[{index}]: network {net.network} is named twice.")
        result.append((row, net.v4_fixed_ip))
    return result


def make_port(
    conn: Connection, net: Row[Any], workload_id: int, position: int, wanted: str | None = None
) -> dict[str, Any]:
    """A port with an address of the network: the one wanted, or a free one."""
    address = _free(conn, net) if wanted is None else _wanted(conn, net, wanted)
    row = port_row(net, workload_id, position, address)
    conn.execute(into(port), row)
    return {**row, "network_uuid": net.uuid}


def port_row(net: Row[Any] | Net, workload_id: int, position: int, address: str) -> dict[str, Any]:
    return {
        "uuid": str(uuids.uuid4()),
        "workload_id": workload_id,
        "network_id": net.id,
        "position": position,
        "address": address,
        "mac": "02:" + random.randbytes(5).hex(":"),  # noqa: S311 - no secret
    }


def _taken(conn: Connection, net: Row[Any], address: str) -> bool:
    return conn.execute(_TAKEN, {"network": net.id, "wanted": address}).first() is not None


def _wanted(conn: Connection, net: Row[Any], wanted: str) -> str:
    subnet = ipaddress.ip_network(net.cidr)
    address = ipaddress.ip_address(wanted)
    if address not in subnet or address in (subnet[0], subnet[1], subnet[-1]):
        raise Invalid(f"Address {wanted} is not one that network {net.name} ({subnet}) can give.")
    if _taken(conn, net, wanted):
        raise Conflict(f"Address {wanted} is in use on network {net.name}.")
    return wanted


def _free(conn: Connection, net: Row[Any]) -> str:
    """The address after the one given last, so that an address rests a while before it is given again."""
    subnet = ipaddress.ip_network(net.cidr)
    first, size = int(subnet[0]), subnet.num_addresses
    last = conn.execute(_NEWEST, {"network": net.id}).scalar_one_or_none()
    index = int(ipaddress.ip_address(last)) - first + 1 if last else 2
    if 2 <= index < size - 1 and not _taken(conn, net, str(subnet[index])):
        return str(subnet[index])
    used = set(conn.execute(sa.select(port.c.address).where(port.c.network_id == net.id)).scalars())
    for _ in range(size):
        index = (index + 1) % size
        if 2 <= index < size - 1 and str(subnet[index]) not in used:
            return str(subnet[index])
    raise Conflict(f"Network {net.name} has no free address left.")


def _defaults() -> sa.Select[Any]:
    mine = port.c.network_id == network.c.id
    newest = sa.select(port.c.address).where(mine).order_by(port.c.id.desc())
    last = newest.limit(sa.literal_column("1")).lateral("last")
    step = sa.func.generate_series(1, sa.bindparam("many", type_=sa.Integer())).column_valued("step")
    after = sa.select(sa.func.host(sa.cast(last.c.address, postgresql.INET()).op("+")(step)))
    # As an array, so that the planner takes it for a few addresses to look up, however many there may be.
    those = sa.any_(sa.func.array(after.correlate(last).scalar_subquery(), type_=postgresql.ARRAY(sa.Text())))
    taken = sa.select(sa.func.array_agg(port.c.address)).where(mine, port.c.address == those)
    columns = (network.c.id, network.c.uuid, network.c.project_id, network.c.cidr, last.c.address.label("newest"))
    named = sa.select(*columns, taken.correlate(network, last).scalar_subquery().label("taken"))
    wanted = network.c.project_id == one_of("projects", network.c.project_id)
    return named.select_from(network.outerjoin(last, sa.true())).where(wanted, network.c.is_default)


#: The default networks of the projects in the list ``projects``, on PostgreSQL.
DEFAULTS = _defaults()


def looked_at(wanted: int) -> int:
    """Pure: at how many addresses after the newest one is looked for so many that are free."""
    return 2 * wanted + 2


def addresses_for(conn: Connection, nets: Iterable[Net], wanted: Mapping[str, int]) -> dict[str, Iterator[str]]:
    """Of the default networks of projects, as many addresses as each wants, in the order in which ports that are made
    one by one would get them. On PostgreSQL. Where a network has hardly any address left there may be too few.
    """
    candidates = {net: _candidates(net, looked_at(wanted[net.project_id])) for net in nets}
    again = [
        {"network_id": net.id, "address": address}
        for net, (addresses, begins_again) in candidates.items()
        for address in addresses
        if begins_again
    ]
    taken = {(row.network_id, row.address) for row in conn.execute(_taken_of(), encoded(again))} if again else set()
    taken |= {(net.id, address) for net in candidates for address in net.taken or ()}
    return {
        net.project_id: iter([address for address in addresses if (net.id, address) not in taken])
        for net, (addresses, _) in candidates.items()
    }


def _candidates(net: Net, count: int) -> tuple[list[str], bool]:
    """Pure: the addresses after the newest one; and whether these begin again with the first one."""
    first, usable = _usable(net.cidr)
    start = int(ipaddress.IPv4Address(net.newest)) + 1 - first if net.newest else 0
    count = min(count, usable)
    numbers = (first + (start + n) % usable for n in range(count))
    listed = [f"{one >> 24}.{one >> 16 & 255}.{one >> 8 & 255}.{one & 255}" for one in numbers]
    return listed, start + count > usable


@lru_cache(maxsize=4096)
def _usable(cidr: str) -> tuple[int, int]:
    """Pure: the first address of a subnet that a port may have, as a number, and how many there are."""
    subnet = ipaddress.ip_network(cidr)
    return int(subnet[0]) + 2, subnet.num_addresses - 3


@cache
def _taken_of() -> sa.Select[tuple[int, str]]:
    given = rows({"network_id": port.c.network_id.type, "address": port.c.address.type}).c
    there = (port.c.network_id == given.network_id) & (port.c.address == given.address)
    return sa.select(port.c.network_id, port.c.address).where(there)


def tell_neighbours(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """Where networks span hosts: those that reach this workload's ports learn where they are, or are no more."""
    if cloud.settings.overlay:
        touch_neighbours(conn, workload_id)


def touch_neighbours(conn: Connection, workload_id: int) -> None:
    """What was told of this workload to the hosts of its neighbours, the containers on its networks, changed."""
    for number in hosts_on(conn, sa.select(port.c.network_id).where(port.c.workload_id == workload_id)):
        touch_host(conn, number)


def hosts_on(conn: Connection, networks: Any) -> set[int]:
    """The hosts with ports on these networks: their numbers, or a query for them."""
    hosts = (
        sa.select(workload.c.host_id)
        .distinct()
        .join(port, port.c.workload_id == workload.c.id)
        .where(port.c.network_id.in_(networks), workload.c.host_id.is_not(None))
    )
    return set(conn.execute(hosts).scalars())


def ports_of(conn: Connection, workload_id: int) -> list[Row[Any]]:
    """The ports of a workload in order, with their network's uuid, name and subnet."""
    return list(
        conn.execute(
            sa.select(port, network.c.uuid.label("network_uuid"), network.c.name.label("network_name"), network.c.cidr)
            .join(network, network.c.id == port.c.network_id)
            .where(port.c.workload_id == workload_id)
            .order_by(port.c.position)
        ).all()
    )


def ports_by_workload(conn: Connection) -> dict[int, list[Row[Any]]]:
    """All ports in order, by their workload's number, with their network's uuid."""
    query = sa.select(port, network.c.uuid.label("network_uuid")).join(network, network.c.id == port.c.network_id)
    ports: dict[int, list[Row[Any]]] = {}
    for row in conn.execute(query.order_by(port.c.workload_id, port.c.position)):
        ports.setdefault(row.workload_id, []).append(row)
    return ports
