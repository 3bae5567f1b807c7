"""What the keeper of ports does: has the cloud's network service make, bind, look after and remove them.

Whatever it did may be lost with the process that did it, so it looks first: a port bears the row's uuid in its name and
the workload's in its device. New ports of a batch are made with one request; those that are made ahead (``port_pools``)
in batches of their own, for which no workload waits.
"""

import asyncio
import logging
import uuid as uuids
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from msgspec import Struct, structs
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import cloud_ports, containers, port_pools, quotas, recording
from higgins.control.cloud import Cloud
from higgins.control.cloud_ports import Told, ask_decoder, told_decoder
from higgins.control.keeper import Keeper, Later, LeaseLost, Written, ask, still_ours
from higgins.control.rows import to_json
from higgins.model.errors import HigginsError, NotFound
from higgins.model.networking import CloudPort, Described, Networking, WantedPort
from higgins.networks.base import Address
from higgins.openstack.errors import ServiceRefused, ServiceUnavailable
from higgins.store.database import touch_events, touch_host
from higgins.store.schema import cloud_port, container, host, port_pool, workload

LOG = logging.getLogger(__name__)

#: Rows that are worked on with one request where that can be.
BATCH = 32
#: Where the metadata service is.
_METADATA = "169.254.169.254/32"


class Refused(Struct, frozen=True):
    """The service says no for good; ``reason`` is its sentence."""

    reason: str


def name_of(row: Row[Any]) -> str:
    """What the port of a row is called in the service."""
    return f"higgins-{row.uuid}"


def told_of(port: CloudPort, described: Described) -> Told:
    """Pure: what a host has to know of a port. IPv4 comes first; the gateway and the rest are its subnets'."""
    network = described.networks.get(port.network)
    known = [one for one in port.fixed if one.subnet in described.subnets]
    fixed = sorted(known, key=lambda one: (":" in one.address, one.address))
    subnets = [described.subnets[one.subnet] for one in fixed]
    unique = list({one.id: one for one in subnets}.values())
    routes = [route for one in unique for route in one.routes]
    if port.network in described.metadata and all(destination != _METADATA for destination, _ in routes):
        routes.append((_METADATA, described.metadata[port.network]))
    return Told(
        mac=port.mac,
        mtu=network.mtu if network else 1500,
        addresses=tuple(
            Address(address=one.address, cidr=subnet.cidr, gateway=subnet.gateway or "")
            for one, subnet in zip(fixed, subnets, strict=True)
        ),
        subnets=tuple(one.id for one in subnets),
        routes=tuple(routes),
        dns=tuple(dict.fromkeys(server for one in unique for server in one.dns)),
        bridge=port.bridge,
        kind=port.kind,
        answers=port.answers,
    )


class PortKeeping:
    """The work on ``cloud_port``. ``check_every``: seconds between two looks whether a port is still there."""

    def __init__(self, cloud: Cloud, service: Networking, *, check_every: float) -> None:
        self._cloud = cloud
        self._service = service
        self._check_every = check_every

    def keeper(self, *, ahead: bool = False) -> Keeper:
        """``ahead``: of the ports that are in pools. Both are to be run."""
        only = cloud_port.c.pool_id.is_not(None) if ahead else cloud_port.c.pool_id.is_(None)
        at_once = 2 if ahead else 8
        return Keeper(
            self._cloud, cloud_port, self.work, batch=BATCH, at_once=at_once, only=only, troubled=self._troubled
        )

    async def work(self, rows: Sequence[Row[Any]]) -> Sequence[Written | Later]:
        results: dict[int, Written | Later] = {}
        wanted = [row for row in rows if row.state in ("wanted", "taken")]
        ready = [row for row in rows if row.state in ("ready", "spare")]
        going = [row for row in rows if row.state in ("removing", "detaching")]
        results |= {row.id: _nothing for row in rows if row.state == "refused"}
        removed = await asyncio.gather(*map(self._remove, going))
        results |= {row.id: one for row, one in zip(going, removed, strict=True)}
        if wanted:
            results |= await self._all(wanted, self._make)
        if ready:
            results |= await self._all(ready, self._check)
        return [results[row.id] for row in rows]

    async def _all(self, rows: list[Row[Any]], work: Any) -> dict[int, Written | Later]:
        try:
            done: dict[int, Written | Later] = await work(rows)
        except HigginsError as error:
            return {row.id: self._later(row, error) for row in rows}
        return done

    def _later(self, row: Row[Any], error: HigginsError) -> Later:
        LOG.warning("Port %s of device %s: %s Cause: %r", row.uuid, row.device, error, error.__cause__)
        return Later((error.waiting if isinstance(error, ServiceUnavailable) else "") or str(error))

    # making

    async def _make(self, rows: list[Row[Any]]) -> dict[int, Written | Later]:
        """Make or bind the ports of rows, and tell their hosts."""
        hosts = await self._cloud.store.read(lambda conn: _hosts(conn, rows))
        placed = [row for row in rows if row.id in hosts]
        results: dict[int, Written | Later] = {
            row.id: Later("Its container has no host yet.") for row in rows if row.id not in hosts
        }
        # Each to its end: ports that are being made yet when their rows are given back would be made twice.
        ports, described = await asyncio.gather(
            self._ports(placed, hosts),
            self._service.describe([row.network for row in placed]),
            return_exceptions=True,
        )
        if isinstance(ports, BaseException):
            raise ports
        if isinstance(described, BaseException):
            raise described
        for row in placed:
            match ports[row.id]:
                case CloudPort() as port if port.kind in ("", "unbound", "binding_failed"):
                    results[row.id] = Later(
                        f"Neutron cannot bind port {port.id} to host {hosts[row.id]}: none of its agents answers there."
                    )
                case CloudPort() as port:
                    write = self._ready if row.pool_id is None else self._spare
                    results[row.id] = write(port, told_of(port, described))
                case Refused(reason) if row.pool_id is not None:
                    LOG.info("No port is made ahead for project %s: %s", row.project_id, reason)
                    results[row.id] = self._spare_refused
                case Refused(reason) if not row.given and await self._given_up(row.project_id):
                    results[row.id] = Later(reason)
                case Refused(reason):
                    results[row.id] = self._refused(reason, runs=row.state == "taken")
                case HigginsError() as error:
                    results[row.id] = self._later(row, error)
        return results

    async def _ports(
        self, rows: list[Row[Any]], hosts: dict[int, str]
    ) -> dict[int, "CloudPort | Refused | HigginsError"]:
        """The port of each row, bound to its host."""
        found: dict[int, CloudPort | Refused | HigginsError] = {}
        unknown = [row for row in rows if row.port is None]
        left = await self._service.ports_of([row.device for row in unknown]) if unknown else []
        # The name can be seen by whoever owns the network, and be given by them to a port of their own.
        made = {(one.name, one.project_id): one.id for one in left}
        idents = {row.id: row.port or made.get((name_of(row), row.project_id)) for row in rows}
        known = [(row, ident) for row in rows if (ident := idents[row.id]) is not None]
        await still_ours(self._cloud, cloud_port, rows)
        bound = await asyncio.gather(*(self._bind(row, ident, hosts[row.id]) for row, ident in known))
        found |= {row.id: one for (row, _), one in zip(known, bound, strict=True) if one is not None}
        new = [row for row in rows if row.id not in found]
        if new:
            await still_ours(self._cloud, cloud_port, rows)
            answers = await self._service.make_ports([_wanted(row, hosts[row.id]) for row in new])
            found |= {row.id: _final(one) for row, one in zip(new, answers, strict=True)}
            try:
                await still_ours(self._cloud, cloud_port, rows)
            except LeaseLost:
                await self._take_back(new, found)
                raise
        return found

    async def _take_back(self, rows: list[Row[Any]], found: "dict[int, CloudPort | Refused | HigginsError]") -> None:
        """Ports that were made too late go, unless whoever has the row now may find them and take them."""
        query = sa.select(cloud_port.c.id, cloud_port.c.port).where(cloud_port.c.id.in_([row.id for row in rows]))
        now = await self._cloud.store.read(lambda conn: dict(conn.execute(query).all()))
        for row in rows:
            port = found[row.id]
            if isinstance(port, CloudPort) and now.get(row.id, "") not in (None, port.id):
                await self._service.delete(port.id)

    async def _bind(self, row: Row[Any], ident: str, host_name: str) -> "CloudPort | Refused | HigginsError | None":
        """Have a port that is there be bound to the host; None where it is to be made anew."""
        try:
            if row.given:
                now = (await self._service.ports([ident])).get(ident)
                if now is None:
                    raise NotFound("port", ident)
                if now.device not in ("", row.device):
                    return Refused(f"Port {ident} is in use by {now.owner} {now.device}.")
            groups = ask_decoder.decode(row.asked).groups
            return await self._service.bind(ident, host=host_name, device=row.device, groups=groups or None)
        except NotFound:
            return Refused(_not_there(ident)) if row.given else None
        except HigginsError as error:
            return _final(error)

    def _ready(self, port: CloudPort, told: Told) -> Written:
        def write(conn: Connection, row: Row[Any]) -> None:
            values: dict[str, Any] = {"port": port.id}
            settled = row.state in ("wanted", "taken", "ready") and row.due_at is None
            same = row.told is not None and row.port == port.id and row.told == to_json(told)
            if settled:
                values |= {"state": "ready", "told": to_json(told), "reason": None} | self._check_later()
                if row.told is not None and not same:
                    values["wire"] = str(uuids.uuid4())  # it is plugged anew
            conn.execute(sa.update(cloud_port).where(cloud_port.c.id == row.id).values(values))
            if settled and not (same and row.state == "taken"):
                _changed(conn, self._cloud, row.workload_id)

        return write

    def _spare(self, port: CloudPort, told: Told) -> Written:
        """It can be taken. What groups it is in is written down, so that it is seen if somebody changes them."""

        def write(conn: Connection, row: Row[Any]) -> None:
            values: dict[str, Any] = {"port": port.id}
            if row.state in ("wanted", "spare") and row.due_at is None:
                groups = to_json(structs.replace(ask_decoder.decode(row.asked), groups=port.groups))
                values |= {"state": "spare", "told": to_json(told), "asked": groups} | self._check_later()
            conn.execute(sa.update(cloud_port).where(cloud_port.c.id == row.id).values(values))

        return write

    def _check_later(self) -> dict[str, Any]:
        """When to look whether it is still there."""
        return {"due_at": self._cloud.now() + timedelta(seconds=self._check_every)}

    def _refused(self, reason: str, *, runs: bool = False) -> Written:
        """``runs``: what had the port goes on without it."""

        def write(conn: Connection, row: Row[Any]) -> None:
            if row.state not in ("wanted", "taken", "ready") or row.due_at is not None:
                return
            LOG.warning("Port %s of workload %s is refused: %s", row.uuid, row.device, reason)
            update = sa.update(cloud_port).where(cloud_port.c.id == row.id)
            conn.execute(update.values(state="refused", reason=reason, late=row.late or runs))
            if row.late:  # what it was attached to goes on without it
                _fail_actions(conn, self._cloud, row.workload_id, reason)
            _changed(conn, self._cloud, row.workload_id)

        return write

    async def _given_up(self, project_id: str) -> bool:
        """Whether a project gets ports back that were made ahead for it, so that there may be one for a workload."""
        return await self._cloud.store.write(lambda conn: port_pools.give_up(conn, self._cloud, project_id))

    def _spare_refused(self, conn: Connection, row: Row[Any]) -> None:
        if row.state == "wanted" and row.pool_id is not None:
            conn.execute(sa.delete(cloud_port).where(cloud_port.c.id == row.id))
            port_pools.rest(conn, self._cloud, [row.pool_id])

    # looking after

    async def _check(self, rows: list[Row[Any]]) -> dict[int, Written | Later]:
        """Whether ports are still there and what they were. One of ours that somebody deleted is made anew."""
        there = await self._service.ports([row.port for row in rows])
        used = [row for row in rows if row.state == "ready"]
        await asyncio.gather(*(self._regroup(row, there[row.port]) for row in used if row.port in there))
        described = await self._service.describe([one.network for one in there.values()])
        results: dict[int, Written | Later] = {}
        for row in rows:
            port = there.get(row.port)
            told = told_of(port, described) if port is not None else None
            if port is None or told is None or port.device != row.device:
                results[row.id] = self._lost
            elif row.state == "spare":
                results[row.id] = self._spare(port, told) if _unchanged(row, port, told) else self._lost
            elif to_json(told) != row.told:
                results[row.id] = self._ready(port, told)
            else:
                results[row.id] = self._same
        return results

    async def _regroup(self, row: Row[Any], port: CloudPort) -> None:
        """Have a port be in the security groups that its container is in."""
        groups = ask_decoder.decode(row.asked).groups
        if groups and not row.given and set(groups) != set(port.groups):
            await still_ours(self._cloud, cloud_port, [row])
            await self._service.bind(port.id, host=port.host, device=row.device, groups=groups)

    def _same(self, conn: Connection, row: Row[Any]) -> None:
        if row.state == "ready" and row.due_at is None:
            conn.execute(sa.update(cloud_port).where(cloud_port.c.id == row.id).values(self._check_later()))

    def _lost(self, conn: Connection, row: Row[Any]) -> None:
        if row.state == "spare" and row.due_at is None:  # its pool is filled again
            LOG.info("Port %s, which was made ahead, was changed or deleted in Neutron by somebody else.", row.port)
            ask(conn, self._cloud, cloud_port, cloud_port.c.id == row.id, state="removing", pool_id=None)
        if row.state != "ready":
            return
        LOG.warning("Port %s of workload %s was deleted in Neutron by somebody else.", row.port, row.device)
        if row.given:
            self._refused(_not_there(row.port), runs=True)(conn, row)
        else:
            cloud_ports.want_anew(conn, self._cloud, row)
            _changed(conn, self._cloud, row.workload_id)

    # removing

    async def _remove(self, row: Row[Any]) -> Written | Later:
        try:
            if row.given:
                await still_ours(self._cloud, cloud_port, [row])
                await self._service.let_go(row.port, row.device)
            else:
                ids = {one.id for one in await self._service.ports_of([row.device]) if one.name == name_of(row)}
                await still_ours(self._cloud, cloud_port, [row])
                for ident in sorted(ids | ({row.port} if row.port else set())):
                    await self._service.delete(ident)
        except HigginsError as error:
            return self._later(row, error)
        return self._removed

    def _removed(self, conn: Connection, row: Row[Any]) -> None:
        """The port is gone; with the last one of a workload that is deleted, that goes too."""
        conn.execute(sa.delete(cloud_port).where(cloud_port.c.id == row.id))
        if row.workload_id is None or row.state != "removing":
            return
        # Held first: of two who remove its last two ports at once, the second one sees that the first one is gone.
        mine = conn.execute(sa.select(workload).where(workload.c.id == row.workload_id).with_for_update()).one()
        left = sa.select(cloud_port.c.id).where(cloud_port.c.workload_id == row.workload_id).limit(1)
        if conn.execute(left).first() is not None:
            return
        quotas.hold(conn, mine.project_id)
        containers.remove_workload(conn, self._cloud, mine.id)
        if mine.host_id is not None:
            touch_host(conn, mine.host_id)

    # telling

    def _troubled(self, conn: Connection, row: Row[Any]) -> None:
        """Say why it takes so long: to its host, which tells what it waits for, or where it goes, at once."""
        if row.workload_id is None:
            return
        if row.state == "removing":
            _say(conn, self._cloud, row.workload_id, row.trouble)
        else:
            _changed(conn, self._cloud, row.workload_id)


def _unchanged(row: Row[Any], port: CloudPort, told: Told) -> bool:
    """Pure: whether a port that was made ahead is still what a workload may be given."""
    before = told_decoder.decode(row.told)
    return set(port.groups) == set(ask_decoder.decode(row.asked).groups) and (
        (told.mac, told.addresses, told.bridge, told.kind) == (before.mac, before.addresses, before.bridge, before.kind)
    )


def _nothing(conn: Connection, row: Row[Any]) -> None:
    """Nothing is to be done for a row."""


def _not_there(port: str) -> str:
    return f"Port {port}, which the container was given, is not in Neutron any more."


def _final(error: "CloudPort | HigginsError") -> "CloudPort | Refused | HigginsError":
    return Refused(str(error)) if isinstance(error, ServiceRefused) else error


def _wanted(row: Row[Any], host_name: str) -> WantedPort:
    asked = ask_decoder.decode(row.asked)
    return WantedPort(
        name=name_of(row),
        network=row.network,
        project_id=row.project_id,
        device=row.device,
        host=host_name,
        addresses=asked.addresses,
        groups=asked.groups,
    )


def _hosts(conn: Connection, rows: Sequence[Row[Any]]) -> dict[int, str]:
    """The name of each row's host."""
    query = (
        sa.select(cloud_port.c.id, host.c.name)
        .outerjoin(workload, workload.c.id == cloud_port.c.workload_id)
        .outerjoin(port_pool, port_pool.c.id == cloud_port.c.pool_id)
        .join(host, host.c.id == sa.func.coalesce(workload.c.host_id, port_pool.c.host_id))
        .where(cloud_port.c.id.in_([row.id for row in rows]))
    )
    return dict(conn.execute(query).all())


def _changed(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """A workload's ports changed: it shows other addresses, and its host is told."""
    cloud_ports.show_addresses(conn, cloud, workload_id)
    host_id = conn.execute(sa.select(workload.c.host_id).where(workload.c.id == workload_id)).scalar()
    if host_id is not None:
        touch_host(conn, host_id)
    touch_events(conn)


def _say(conn: Connection, cloud: Cloud, workload_id: int, reason: str) -> None:
    """Show a reason with the containers of a workload."""
    update = sa.update(container).where(container.c.workload_id == workload_id)
    conn.execute(update.values(status_reason=reason, updated_at=cloud.now()))
    touch_events(conn)


def _fail_actions(conn: Connection, cloud: Cloud, workload_id: int, reason: str) -> None:
    """What was asked of a workload and is not over yet has failed."""
    members = sa.select(container.c.uuid).where(container.c.workload_id == workload_id)
    generation = conn.execute(sa.select(workload.c.generation).where(workload.c.id == workload_id)).scalar_one()
    recording.finish_actions(conn, cloud, list(conn.execute(members).scalars()), generation, reason)
