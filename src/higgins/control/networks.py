"""Networks as a tenant or administrator asks for them."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control import cloud_networks, wiring
from higgins.control.cloud import Actor, Cloud
from higgins.control.lookup import is_uuid
from higgins.model.errors import AlreadyExists, Conflict, Invalid, NotFound
from higgins.model.resources import NetworkInfo
from higgins.store.schema import network, port

_NOT_OURS = "Networks are the network service's here: openstack network create and delete make and remove them."
_COLUMNS = [network.c[name] for name in NetworkInfo.__struct_fields__]


async def create(cloud: Cloud, actor: Actor, name: str, neutron_net_id: str | None = None) -> NetworkInfo:
    """Make a network of the project with a subnet of its own. ``neutron_net_id`` gives the uuid it shall have.

    Where the cloud has a network service, it makes networks; one that is there, named by its id, is told.
    """
    if cloud.networking is not None:
        if neutron_net_id is None:
            raise Invalid(_NOT_OURS)
        found = await cloud_networks.find(actor, cloud.networking)
        for one in found:
            if one.uuid == neutron_net_id:
                return one
        raise NotFound("network", neutron_net_id)
    if neutron_net_id is not None and not is_uuid(neutron_net_id):
        raise Invalid(f"neutron_net_id: {neutron_net_id} is not a uuid.")

    def work(conn: Connection) -> NetworkInfo:
        taken = sa.select(network.c.id).where(network.c.project_id == actor.project_id, network.c.name == name)
        if name == "default" or conn.execute(taken).first() is not None:
            raise AlreadyExists("network", name)
        row = wiring.create_network(conn, cloud, actor, name)
        uuid = neutron_net_id or row.uuid
        if uuid != row.uuid:
            if conn.execute(sa.select(network.c.id).where(network.c.uuid == uuid)).first() is not None:
                raise AlreadyExists("network", uuid)
            conn.execute(sa.update(network).where(network.c.id == row.id).values(uuid=uuid))
        return _get(conn, uuid)

    return await cloud.store.write(work)


def _get(conn: Connection, uuid: str) -> NetworkInfo:
    return NetworkInfo(**conn.execute(sa.select(*_COLUMNS).where(network.c.uuid == uuid)).one()._mapping)


async def find(cloud: Cloud, actor: Actor) -> list[NetworkInfo]:
    """The project's networks, the default one (made by then) among them."""
    if cloud.networking is not None:
        return await cloud_networks.find(actor, cloud.networking)

    def work(conn: Connection) -> list[NetworkInfo]:
        wiring.default_network(conn, cloud, actor)
        query = sa.select(*_COLUMNS).where(network.c.project_id == actor.project_id).order_by(network.c.id)
        return [NetworkInfo(**row._mapping) for row in conn.execute(query)]

    return await cloud.store.write(work)


async def delete(cloud: Cloud, actor: Actor, ident: str) -> None:
    """Remove a network that no container is on; Conflict otherwise. An administrator may name any by uuid."""
    if cloud.networking is not None:
        raise Conflict(_NOT_OURS)

    def work(conn: Connection) -> None:
        query = sa.select(network).where(network.c.uuid == ident)
        row = conn.execute(query).one_or_none() if is_uuid(ident) else None
        if row is None or not (actor.is_admin or row.project_id == actor.project_id):
            row = wiring.find_network(conn, actor, ident)
        if conn.execute(sa.select(port.c.id).where(port.c.network_id == row.id).limit(1)).first() is not None:
            raise Conflict(f"Network {row.name} is in use by a container.")
        conn.execute(sa.delete(network).where(network.c.id == row.id))

    await cloud.store.write(work)
