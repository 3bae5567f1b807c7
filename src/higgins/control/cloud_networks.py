"""Networks of the cloud's network service as a caller asks for them: looked up, and checked, before any transaction.

The service is asked with the caller's own token, so that it says what the caller may see; ports are made later in
Higgins' name, which may more. What Neutron forbids a caller and would not forbid Higgins is therefore refused here.
"""

import ipaddress
from collections.abc import Sequence

from higgins.control.cloud import Actor, Cloud
from higgins.control.requests import NetRequest, PortAsk
from higgins.model.errors import Conflict, Forbidden, Invalid, NotFound
from higgins.model.networking import CloudNetwork, Networking
from higgins.model.resources import NetworkInfo

#: Networks that are told by name and id where one of them is to be chosen.
_TOLD = 5


async def look(
    cloud: Cloud, actor: Actor, nets: Sequence[NetRequest], *, groups: Sequence[str] = (), exposed: Sequence[str] = ()
) -> tuple[PortAsk, ...]:
    """What ports a container is to have, by the service's ids. Nothing where networks are Higgins' own.

    Raises NotFound, Conflict, Forbidden, Invalid, ServiceUnavailable.
    """
    service = cloud.networking
    if service is None:
        return ()
    wanted = await _groups(service, actor, groups)
    if exposed:
        wanted = (*wanted, await service.exposing_group(actor.token, actor.project_id, tuple(exposed)))
    if not nets:
        chosen = available(await service.find_networks(actor.token), actor.project_id)
        return (PortAsk(network=chosen.id, network_name=chosen.name, groups=wanted, subnets=chosen.subnets),)
    asks: list[PortAsk] = []
    for index, net in enumerate(nets):
        field = f"nets[{index}]"
        one = await _given(service, actor, net.port, field, net) if net.port else None
        if one is None:
            one = await _new(service, actor, net, field, wanted)
            if any(one.network == other.network for other in asks):
                raise Invalid(f"{field}: network {net.network} is named twice.")
        elif any(one.port == other.port for other in asks):
            raise Invalid(f"{field}: port {net.port} is named twice.")
        asks.append(one)
    return tuple(asks)


def available(networks: Sequence[CloudNetwork], project_id: str) -> CloudNetwork:
    """The network of a container that names none: the project's first, else the one that is shared with all.

    Pure. Raises Conflict where there is none, or several that others share.
    """
    fit = sorted((one for one in networks if one.subnets and not one.external), key=lambda one: (one.created, one.id))
    own = [one for one in fit if one.project_id == project_id]
    shared = [one for one in fit if one.shared]
    if not own and not shared:
        raise Conflict("The project has no network with a subnet; make one, or name one with nets (--net).")
    if not own and len(shared) > 1:
        names = ", ".join(f"{one.name} ({one.id})" for one in shared[:_TOLD])
        more = f" and {len(shared) - _TOLD} more" if len(shared) > _TOLD else ""
        raise Conflict(
            "The project has no network of its own, and several are shared with it; "
            f"name one with nets (--net network=ID), or make one: {names}{more}."
        )
    return (own or shared)[0]


async def _groups(service: Networking, actor: Actor, names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        ids = await service.find_groups(actor.token, actor.project_id, name)
        if not ids:
            raise NotFound("security_group", name)
        if len(ids) > 1:
            raise Conflict(f"Several security groups have the name {name}; use the id.")
        found += ids
    return tuple(dict.fromkeys(found))


async def groups(cloud: Cloud, actor: Actor, name: str) -> tuple[str, str] | None:
    """The ids of a security group and of the project's default one; None where groups are Higgins' own."""
    if cloud.networking is None:
        return None
    (found,), (default,) = [await _groups(cloud.networking, actor, (one,)) for one in (name, "default")]
    return found, default


async def find_network(service: Networking, actor: Actor, ident: str) -> CloudNetwork:
    """One network that the caller sees, by id or name. Raises NotFound, Conflict."""
    found = await service.find_networks(actor.token, ident)
    if not found:
        raise NotFound("network", ident)
    own = [one for one in found if one.project_id == actor.project_id] or found
    if len(own) > 1:
        raise Conflict(f"Several networks have the name {ident}; use the id.")
    return own[0]


async def _given(service: Networking, actor: Actor, ident: str, field: str, net: NetRequest) -> PortAsk:
    """A port that the tenant gives."""
    found = await service.find_port(actor.token, ident)
    if found is None:
        raise NotFound("port", ident)
    if net.v4_fixed_ip or net.v6_fixed_ip:
        raise Invalid(f"{field}: a port has its addresses already; fixed addresses go with a network.")
    if found.project_id != actor.project_id:
        raise Forbidden(f"{field}: port {ident} is another project's.")
    if found.device or found.owner:
        raise Conflict(f"{field}: port {ident} is in use by {found.owner or 'something'} {found.device}.")
    return PortAsk(network=found.network, port=found.id)


async def _new(service: Networking, actor: Actor, net: NetRequest, field: str, groups: tuple[str, ...]) -> PortAsk:
    chosen = await find_network(service, actor, net.network or "")
    own = chosen.project_id == actor.project_id or actor.is_admin
    if chosen.external and not chosen.shared and not own:
        raise Forbidden(f"{field}: network {chosen.name} is an external one; containers are not put on it directly.")
    if not chosen.subnets:
        raise Invalid(f"{field}: network {chosen.name} has no subnet.")
    fixed = tuple(one for one in (net.v4_fixed_ip, net.v6_fixed_ip) if one)
    if fixed:
        if not own:
            raise Forbidden(f"{field}: on network {chosen.name}, which is another project's, no address can be chosen.")
        await _check_addresses(service, actor, chosen, field, fixed)
    return PortAsk(
        network=chosen.id, network_name=chosen.name, addresses=fixed, groups=groups, subnets=chosen.subnets
    )  # fmt: skip


async def _check_addresses(
    service: Networking, actor: Actor, chosen: CloudNetwork, field: str, fixed: tuple[str, ...]
) -> None:
    subnets = [one for one in await service.find_subnets(actor.token) if one.network == chosen.id]
    for address in fixed:
        if not any(ipaddress.ip_address(address) in ipaddress.ip_network(one.cidr) for one in subnets):
            ranges = ", ".join(one.cidr for one in subnets)
            raise Invalid(f"{field}: address {address} is in no subnet of network {chosen.name} ({ranges}).")


async def find(actor: Actor, service: Networking) -> list[NetworkInfo]:
    """The networks that containers of the caller's project can be on."""
    networks, subnets = await service.find_networks(actor.token), await service.find_subnets(actor.token)
    ranges: dict[str, list[str]] = {}
    for one in subnets:
        ranges.setdefault(one.network, []).append(one.cidr)
    return [
        NetworkInfo(
            uuid=one.id,
            name=one.name,
            project_id=one.project_id,
            user_id="",
            cidr=", ".join(ranges.get(one.id, ())),
            is_default=False,
        )
        for one in networks
        if not one.external or one.shared or one.project_id == actor.project_id
    ]
