"""Ports of the cloud's network service in transactions: what is wanted, what is there, and what hosts are told of it.

A row is *wanted* with its workload, *ready* once its keeper (``port_keeping``) had the service make and bind the port,
or *refused*. One that was made ahead (``port_pools``) is *taken* instead of wanted: hosts and tenants are told of it at
once, while its keeper has the service write down whose it is. When the port goes and the workload stays it is *leaving*
until its host is without it (``detaching``), then *detaching*. It is *removing* once nothing of the workload is left on
its host; the workload's own rows go with the last one. What a transaction does here calls no service.
"""

import uuid as uuids
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct, structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import port_pools
from higgins.control.cloud import Cloud
from higgins.control.keeper import ask, asked
from higgins.control.link import Waits
from higgins.control.requests import PortAsk
from higgins.control.rows import to_json
from higgins.model.errors import Conflict
from higgins.networks.base import Address, PortWire
from higgins.store.schema import cloud_port, container, workload

HERE = ("wanted", "taken", "ready", "refused")
#: The port is there.
_MADE = ("taken", "ready")


class Told(Struct, frozen=True, kw_only=True):
    """What is known of a port that is ready. ``subnets`` are those of its addresses, in their order."""

    mac: str
    mtu: int
    addresses: tuple[Address, ...] = ()
    subnets: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    bridge: str = ""
    kind: str = ""
    answers: bool = False


ask_decoder = msgspec.json.Decoder(PortAsk)
told_decoder = msgspec.json.Decoder(Told)


def insert(
    conn: Connection, cloud: Cloud, asks: Sequence[PortAsk], *, workload_id: int, host_id: int, device: str,
    project_id: str, late: bool = False,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Want ports for a workload, after those that it has; the addresses that it has at once, as the API shows them.

    Raises Conflict for a given port that another has.
    """
    if not asks:
        return {}
    last = sa.select(sa.func.max(cloud_port.c.position)).where(cloud_port.c.workload_id == workload_id)
    first = conn.execute(last).scalar()
    for position, one in enumerate(asks, 0 if first is None else first + 1):
        if one.port is not None and _taken(conn, one.port):
            raise Conflict(f"Port {one.port} is in use by another container.")
        mine = {
            "workload_id": workload_id,
            "device": device,
            "position": position,
            "late": late,
            "asked": to_json(one),
        }
        if port_pools.take(conn, cloud, one, project_id=project_id, host_id=host_id, **mine):
            continue
        conn.execute(
            sa.insert(cloud_port).values(
                uuid=str(uuids.uuid4()),
                wire=str(uuids.uuid4()),
                project_id=project_id,
                state="wanted",
                given=one.port is not None,
                network=one.network,
                port=one.port,
                **mine,
                **asked(conn, cloud, cloud_port),
            )
        )
    return addresses(of_workload(conn, workload_id))


def _taken(conn: Connection, port: str) -> bool:
    return conn.execute(sa.select(cloud_port.c.id).where(cloud_port.c.port == port)).first() is not None


def of_workload(conn: Connection, workload_id: int) -> list[Row[Any]]:
    """The ports that a workload has or is to have, in order."""
    query = sa.select(cloud_port).where(cloud_port.c.workload_id == workload_id, cloud_port.c.state.in_(HERE))
    return list(conn.execute(query.order_by(cloud_port.c.position)).all())


_OF_HOST = (
    sa.select(cloud_port)
    .where(
        cloud_port.c.workload_id.in_(sa.select(workload.c.id).where(workload.c.host_id == sa.bindparam("host"))),
        cloud_port.c.state.in_(HERE),
    )
    .order_by(cloud_port.c.workload_id, cloud_port.c.position)
)


def of_host(conn: Connection, host_id: int) -> dict[int, list[Row[Any]]]:
    """The same of all workloads of a host, by their number."""
    result: dict[int, list[Row[Any]]] = {}
    for row in conn.execute(_OF_HOST, {"host": host_id}).all():
        result.setdefault(row.workload_id, []).append(row)
    return result


def detach(conn: Connection, rows: Sequence[Row[Any]]) -> None:
    """These go and their workload stays. What is being done for them just now counts for nothing."""
    these = sa.update(cloud_port).where(cloud_port.c.id.in_([row.id for row in rows]))
    conn.execute(these.values(state="leaving", due_at=None, asks=cloud_port.c.asks + 1))


def let_go(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """The host is without the ports that left a workload."""
    ask(conn, cloud, cloud_port, cloud_port.c.workload_id == workload_id, cloud_port.c.state == "leaving",
        state="detaching")  # fmt: skip


def forget_refused(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """Attachments that were refused are in the way of none that is tried again."""
    late = (cloud_port.c.workload_id == workload_id, cloud_port.c.state == "refused", cloud_port.c.late)
    ask(conn, cloud, cloud_port, *late, state="detaching")


def plug_anew(conn: Connection, row: Row[Any]) -> None:
    """Have its host plug a port again, as another one: a port is plugged only once."""
    conn.execute(sa.update(cloud_port).where(cloud_port.c.id == row.id).values(wire=str(uuids.uuid4())))


def retire(conn: Connection, cloud: Cloud, workload_id: int) -> bool:
    """Nothing of a workload is left on its host. Whether it has ports yet: then it goes with the last of them."""
    if not ask(conn, cloud, cloud_port, cloud_port.c.workload_id == workload_id, state="removing"):
        return False
    port_pools.leave(conn, cloud, workload_id, states=HERE)
    return True


def abandon(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """A workload's rows go now, whatever is left of it; its ports are removed without it."""
    ask(conn, cloud, cloud_port, cloud_port.c.workload_id == workload_id, state="removing", workload_id=None)


def want_again(conn: Connection, cloud: Cloud, workload_id: int, *, states: Sequence[str]) -> None:
    """Have the service look at ports in these states anew: refused ones, or all when the workload is elsewhere."""
    mine = (cloud_port.c.workload_id == workload_id, cloud_port.c.state.in_(states))
    ask(conn, cloud, cloud_port, *mine, state="wanted", reason=None)


def groups_of(conn: Connection, workload_id: int) -> tuple[str, ...]:
    """The security groups that the ports made for a workload are in; nothing where those are the default one."""
    found = [ask_decoder.decode(row.asked) for row in of_workload(conn, workload_id) if not row.given]
    return tuple(dict.fromkeys(group for one in found for group in one.groups))


def regroup(conn: Connection, cloud: Cloud, workload_id: int, groups: tuple[str, ...]) -> None:
    """Have the ports that were made for a workload be in other security groups; a given port keeps its own."""
    for row in of_workload(conn, workload_id):
        if not row.given:
            new = to_json(structs.replace(ask_decoder.decode(row.asked), groups=groups))
            ask(conn, cloud, cloud_port, cloud_port.c.id == row.id, asked=new)


def want_anew(conn: Connection, cloud: Cloud, row: Row[Any]) -> None:
    """A port that was ready is no more: another one is made, and plugged in its stead."""
    values = {"state": "wanted", "port": None, "wire": str(uuids.uuid4()), "late": True}
    ask(conn, cloud, cloud_port, cloud_port.c.id == row.id, **values)


def waits(rows: Sequence[Row[Any]]) -> list[Waits]:
    """What a workload waits for; a port that is attached to what is there already holds nothing up."""
    return [
        Waits(reason=(row.reason if row.state == "refused" else row.trouble) or "", refused=refused, holds=not row.late)
        for row in rows
        if row.state in ("wanted", "refused")
        for refused in [row.state == "refused"]
    ]


def wires(rows: Sequence[Row[Any]]) -> tuple[PortWire, ...]:
    """What a host has to wire; the first port that a workload has leads out."""
    made = [(row, told_decoder.decode(row.told)) for row in rows if row.state in _MADE]
    return tuple(_wire(row, told, default_route=row is rows[0]) for row, told in made)


def _wire(row: Row[Any], told: Told, *, default_route: bool) -> PortWire:
    first = told.addresses[0] if told.addresses else Address(address="", cidr="", gateway="")
    return PortWire(
        uuid=row.wire,
        network=row.network,
        project_id=row.project_id,
        name=f"eth{row.position}",
        mac=told.mac,
        address=first.address,
        cidr=first.cidr,
        gateway=first.gateway,
        mtu=told.mtu,
        default_route=default_route,
        others=told.addresses[1:],
        routes=told.routes,
        dns=told.dns,
        port=row.port,
        bridge=told.bridge,
        kind=told.kind,
        answers=told.answers,
    )


def addresses(rows: Sequence[Row[Any]]) -> dict[str, list[dict[str, Any]]]:
    """The ``addresses`` of a container: by network, as the API shows them."""
    result: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.state not in _MADE:
            continue
        told = told_decoder.decode(row.told)
        shown = result.setdefault(row.network, [])
        shown += [
            {
                "addr": one.address,
                "version": 6 if ":" in one.address else 4,
                "port": row.port,
                "subnet_id": subnet,
                "preserve_on_delete": row.given,
            }
            for one, subnet in zip(told.addresses, told.subnets, strict=True)
        ]
    return result


def listed(rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """The ports of a container, as microversion 1.18 shows them."""
    return [
        {
            "net_id": row.network,
            "port_id": row.port,
            "fixed_ips": [
                {"ip_address": one.address, "version": 6 if ":" in one.address else 4, "subnet_id": subnet}
                for one, subnet in zip(told.addresses, told.subnets, strict=True)
            ],
        }
        for row in rows
        if row.state in _MADE
        for told in [told_decoder.decode(row.told)]
    ]


def show_addresses(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """Write the addresses of a workload's containers anew."""
    shown = to_json(addresses(of_workload(conn, workload_id)))
    update = sa.update(container).where(container.c.workload_id == workload_id, container.c.addresses != shown)
    conn.execute(update.values(addresses=shown, updated_at=cloud.now()))
