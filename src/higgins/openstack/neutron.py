"""Networks and ports of Neutron. Implements ``higgins.model.networking``.

Looking is done with the caller's own token: what the caller may see, and whose it is, says Neutron. Ports are made,
bound and deleted in Higgins' own name, for the project of the container: Neutron lets a user with the role ``service``
do that, whenever it is, when the caller's token is long gone (docs/decisions/0009).
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from keystoneauth1 import adapter
from keystoneauth1 import exceptions as failures

from higgins.model.errors import Conflict, HigginsError, NotFound, Unauthorized
from higgins.model.networking import CloudNetwork, CloudPort, CloudSubnet, Described, Fixed, WantedPort
from higgins.openstack.errors import ServiceRefused, ServiceUnavailable
from higgins.openstack.sessions import Sessions

LOG = logging.getLogger(__name__)

SERVICE_TYPE = "network"
#: Refusals of Neutron with the status 409 that more patience does not change. Others are clashes with another request.
_FINAL_CONFLICTS = frozenset(
    {
        "OverQuota",
        "QuotaResourceUnknown",
        "IpAddressInUse",
        "IpAddressAlreadyAllocated",
        "IpAddressGenerationFailure",
        "MacAddressInUse",
        "MacAddressGenerationFailure",
    }
)
#: Ids in one query, so that no URL becomes too long.
_MOST_IDS = 100
_LOOKING = "networks cannot be looked up"
_MAKING = "no port can be made"
_METADATA_OWNER = "network:distributed"
#: What narrows a rule of a security group to some of those who may come.
_REMOTES = ("remote_ip_prefix", "remote_group_id", "remote_address_group_id")


class Neutron:
    """The network service of the catalogue. ``owner`` is the device_owner of ports of ours."""

    def __init__(self, sessions: Sessions, *, owner: str = "compute:higgins") -> None:
        self.owner = owner
        self._sessions = sessions
        self._client = sessions.own(SERVICE_TYPE)

    # the caller's own

    async def find_networks(self, token: str, ident: str | None = None) -> list[CloudNetwork]:
        found = await self._find(token, "networks", ident)
        return [network_of(one) for one in found]

    async def find_subnets(self, token: str) -> list[CloudSubnet]:
        return [subnet_of(one) for one in await self._find(token, "subnets", None)]

    async def find_port(self, token: str, ident: str) -> CloudPort | None:
        found = await self._find(token, "ports", ident)
        if len(found) > 1:
            raise Conflict(f"Several ports have the name {ident}; use the id.")
        return port_of(found[0]) if found else None

    async def find_groups(self, token: str, project_id: str, ident: str) -> list[str]:
        found = await self._find(token, "security-groups", ident)
        own = [one for one in found if one["project_id"] == project_id]
        return [str(one["id"]) for one in own or found]

    async def exposing_group(self, token: str, project_id: str, ports: tuple[str, ...]) -> str:
        doing = "exposed_ports cannot be opened"
        client = self._sessions.caller(SERVICE_TYPE, token)
        name = "higgins-expose-" + "-".join(sorted(set(ports))).replace("/", "-")
        # Others may share a group of that name with the project, and change what it lets in whenever they like.
        found = [one for one in await self._find(token, "security-groups", name) if one["project_id"] == project_id]
        if not found:
            body = {"name": name, "description": f"Lets in {', '.join(ports)}; made for containers that expose them."}
            answer = await _asked(doing, client, "POST", "/v2.0/security-groups", json={"security_group": body})
            found = [answer["security_group"]]
        group = str(found[0]["id"])
        # Of one that is there, too: who made it may have ended before its rules were made.
        missing = missing_rules(found[0].get("security_group_rules") or (), ports)
        if missing:
            rules = [{"security_group_id": group, **one} for one in missing]
            await _asked(doing, client, "POST", "/v2.0/security-group-rules", json={"security_group_rules": rules})
        return group

    async def _find(self, token: str, kind: str, ident: str | None) -> list[dict[str, Any]]:
        """What the caller sees of a kind, by id, else by name."""
        client = self._sessions.caller(SERVICE_TYPE, token)
        filters: list[dict[str, str]] = [{}] if ident is None else [{"id": ident}, {"name": ident}]
        for one in filters:
            answer = await _asked(_LOOKING, client, "GET", f"/v2.0/{kind}", params=one)
            found: list[dict[str, Any]] = answer[kind.replace("-", "_")]
            if found:
                return found
        return []

    # our own

    async def make_ports(self, wanted: list[WantedPort]) -> list[CloudPort | HigginsError]:
        bodies = [self._body(one) for one in wanted]
        if len(bodies) > 1:
            try:
                answer = await self._ask(_MAKING, "POST", "/ports", json={"ports": bodies})
            except ServiceRefused:
                LOG.info("Ports that cannot be made with one request are made one by one.")
            else:
                made = {one["name"]: port_of(one) for one in answer["ports"]}
                return [made[one.name] for one in wanted]
        return [await self._make(body) for body in bodies]

    async def _make(self, body: dict[str, Any]) -> CloudPort | HigginsError:
        try:
            return port_of((await self._ask(_MAKING, "POST", "/ports", json={"port": body}))["port"])
        except HigginsError as error:
            return error

    def _body(self, wanted: WantedPort) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": wanted.name,
            "network_id": wanted.network,
            "project_id": wanted.project_id,
            "device_id": wanted.device,
            "device_owner": self.owner,
            "binding:host_id": wanted.host,
        }
        if wanted.addresses:
            body["fixed_ips"] = [{"ip_address": address} for address in wanted.addresses]
        if wanted.groups:
            body["security_groups"] = list(wanted.groups)
        return body

    async def ports_of(self, devices: list[str]) -> list[CloudPort]:
        found = await self._list("ports", "device_id", devices, device_owner=self.owner)
        return [port_of(one) for one in found]

    async def ports(self, ids: list[str]) -> dict[str, CloudPort]:
        return {one["id"]: port_of(one) for one in await self._list("ports", "id", ids)}

    async def bind(self, port: str, *, host: str, device: str, groups: tuple[str, ...] | None = None) -> CloudPort:
        body: dict[str, Any] = {"binding:host_id": host, "device_id": device, "device_owner": self.owner}
        if groups:
            body["security_groups"] = list(groups)
        doing = f"port {port} cannot be bound to its host"
        return port_of((await self._ask(doing, "PUT", f"/ports/{port}", json={"port": body}))["port"])

    async def let_go(self, port: str, device: str) -> None:
        found = (await self.ports([port])).get(port)
        if found is None or found.device != device:
            return
        body = {"binding:host_id": "", "device_id": "", "device_owner": ""}
        try:
            await self._ask(f"port {port} cannot be given back", "PUT", f"/ports/{port}", json={"port": body})
        except NotFound:
            return

    async def delete(self, port: str) -> None:
        try:
            await self._ask(f"port {port} cannot be deleted", "DELETE", f"/ports/{port}")
        except NotFound:
            return

    async def describe(self, networks: list[str]) -> Described:
        found, subnets, services = await asyncio.gather(
            self._list("networks", "id", networks),
            self._list("subnets", "network_id", networks),
            self._list("ports", "network_id", networks, device_owner=_METADATA_OWNER),
        )
        return Described(
            {one["id"]: network_of(one) for one in found},
            {one["id"]: subnet_of(one) for one in subnets},
            {one["network_id"]: one["fixed_ips"][0]["ip_address"] for one in services if one["fixed_ips"]},
        )

    async def _list(self, kind: str, key: str, values: Iterable[str], **filters: str) -> list[dict[str, Any]]:
        """All of a kind whose ``key`` is one of the values."""
        found: list[dict[str, Any]] = []
        wanted = sorted(set(values))
        for start in range(0, len(wanted), _MOST_IDS):
            some = [*((key, one) for one in wanted[start : start + _MOST_IDS]), *filters.items()]
            found += (await self._ask(_LOOKING, "GET", f"/{kind}", params=some))[kind]
        return found

    async def _ask(self, doing: str, method: str, path: str, **more: Any) -> Any:
        return await _asked(doing, self._client, method, f"/v2.0{path}", **more)


async def _asked(doing: str, client: adapter.Adapter, method: str, path: str, **more: Any) -> Any:
    """What Neutron answers, from JSON; its failures as ours. Nothing that changes is sent twice without a look."""
    retries = {} if method == "GET" else {"connect_retries": 0}
    try:
        answer = await asyncio.to_thread(client.request, path, method, **retries, **more)
    except failures.HttpError as error:
        raise refusal(error, doing, path) from error
    except failures.ClientException as error:  # it does not answer, or the catalogue does not have it
        raise ServiceUnavailable("Neutron", doing) from error
    return answer.json() if answer.content else None


def refusal(error: failures.HttpError, doing: str, path: str) -> HigginsError:
    """Pure: what an answer of Neutron's that is no success means."""
    status = int(error.http_status or 0)
    kind, says = _said(error)
    if status == 401:
        return Unauthorized("Neutron does not accept the token; it expired or was revoked meanwhile.")
    if status == 429 or status >= 500 or (status == 409 and kind not in _FINAL_CONFLICTS):
        return ServiceUnavailable("Neutron", doing, f"answers {status} ({says})")
    _, _, place = path.rpartition("/ports/")
    if status == 404 and kind == "PortNotFound" and place:
        return NotFound("port", place)
    return ServiceRefused("Neutron", doing, says)


def _said(error: failures.HttpError) -> tuple[str, str]:
    """The kind of a refusal and Neutron's own sentence."""
    try:
        told = error.response.json()["NeutronError"] if error.response is not None else {}
        kind, message = (told["type"], told["message"]) if isinstance(told, dict) else ("", str(told))
    except (ValueError, KeyError, TypeError):  # not Neutron's own words, but those of what stands before it
        kind, message = "", error.response.reason if error.response is not None else str(error.message)
    return kind, " ".join(str(message).split())[:300].rstrip(".")


def missing_rules(there: Iterable[dict[str, Any]], ports: Iterable[str]) -> list[dict[str, Any]]:
    """Pure: the rules that let in these ports (80/tcp), from anywhere and by both IPs, as far as they are not there."""
    anywhere = [one for one in there if not any(one.get(remote) for remote in _REMOTES)]
    wanted = [
        {
            "direction": "ingress",
            "ethertype": version,
            "protocol": port.partition("/")[2] or "tcp",
            "port_range_min": int(port.partition("/")[0]),
            "port_range_max": int(port.partition("/")[0]),
        }
        for port in dict.fromkeys(ports)
        for version in ("IPv4", "IPv6")
    ]
    return [rule for rule in wanted if not any(rule.items() <= one.items() for one in anywhere)]


def network_of(found: dict[str, Any]) -> CloudNetwork:
    return CloudNetwork(
        id=found["id"],
        name=found["name"] or found["id"],
        project_id=found.get("project_id") or "",
        mtu=found.get("mtu") or 1500,
        shared=bool(found.get("shared")),
        external=bool(found.get("router:external")),
        subnets=tuple(found.get("subnets") or ()),
        created=found.get("created_at") or "",
    )


def subnet_of(found: dict[str, Any]) -> CloudSubnet:
    return CloudSubnet(
        id=found["id"],
        network=found["network_id"],
        cidr=found["cidr"],
        gateway=found.get("gateway_ip"),
        dns=tuple(found.get("dns_nameservers") or ()),
        routes=tuple((one["destination"], one["nexthop"]) for one in found.get("host_routes") or ()),
    )


def port_of(found: dict[str, Any]) -> CloudPort:
    details = found.get("binding:vif_details") or {}
    return CloudPort(
        id=found["id"],
        name=found.get("name") or "",
        network=found["network_id"],
        project_id=found.get("project_id") or "",
        mac=found["mac_address"],
        device=found.get("device_id") or "",
        owner=found.get("device_owner") or "",
        host=found.get("binding:host_id") or "",
        kind=found.get("binding:vif_type") or "",
        bridge=details.get("bridge_name") or "",
        answers="ovn" in (details.get("bound_drivers") or {}).values(),
        fixed=tuple(Fixed(one["ip_address"], one["subnet_id"]) for one in found.get("fixed_ips") or ()),
        groups=tuple(found.get("security_groups") or ()),
    )
