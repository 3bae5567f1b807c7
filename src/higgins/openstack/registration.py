"""Make Higgins known to Keystone: its user, its roles, its entries in the catalogue. Twice is as once."""

import secrets
from collections.abc import Iterable, Iterator
from typing import Any, cast

from keystoneauth1 import exceptions as failures
from keystoneauth1 import session
from keystoneauth1.identity import v3
from msgspec import Struct
from openstack.connection import Connection
from openstack.identity.v3._proxy import Proxy

from higgins.openstack.tokens import ALIAS, SERVICE_TYPE

#: What the service user may be in its project: Keystone lets this role validate tokens, and other services take it for
#: one of their own.
SERVICE_ROLE = "service"


class Wanted(Struct, frozen=True, kw_only=True):
    """What Keystone is to know. ``urls`` are by interface: public, internal, admin.

    Without a ``password`` a user that is new gets a random one. ``limits``: the user may read unified limits, and these
    defaults are registered where there are none.
    """

    urls: dict[str, str]
    region: str
    user: str = "higgins"
    password: str | None = None
    project: str = "service"
    domain: str = "Default"
    name: str = "higgins"
    limits: dict[str, int] | None = None


class Registered(Struct, frozen=True):
    """What it knows now. ``password`` is None where the user was there and its password was not told.

    ``changes`` are sentences, one for each thing that was made or changed.
    """

    auth_url: str
    password: str | None
    changes: list[str]


def register(cloud: Connection, wanted: Wanted) -> Registered:
    """Bring Keystone to what is wanted, with an administrator's ``cloud``."""
    auth_url = str(cloud.config.auth["auth_url"])
    identity = cast(Proxy, cloud.identity)
    domain = _one(identity.domains(name=wanted.domain), f"domain {wanted.domain}")
    changes: list[str] = []
    project = next(iter(identity.projects(name=wanted.project, domain_id=domain.id)), None)
    if project is None:
        project = identity.create_project(name=wanted.project, domain_id=domain.id)
        changes.append(f"project {wanted.project} made")
    user, password, made = _user(cloud, identity, wanted, auth_url, domain.id, project.id)
    changes.extend(made)
    changes.extend(_roles(identity, wanted, user, project))
    for kind in (SERVICE_TYPE, ALIAS):
        changes.extend(_catalogue(identity, wanted, kind))
    if wanted.limits is not None:
        changes.extend(_limits(identity, wanted, wanted.limits))
    return Registered(auth_url, password, changes)


class Missing(Exception):
    """Keystone lacks what cannot be made here; the sentence names it."""


def _one(found: Iterable[Any], what: str) -> Any:
    """The first of what was found. Raises Missing."""
    for item in found:
        return item
    raise Missing(f"Keystone has no {what}")


def _user(
    cloud: Connection, identity: Proxy, wanted: Wanted, auth_url: str, domain: str, project: str
) -> tuple[Any, str | None, list[str]]:
    user = next(iter(identity.users(name=wanted.user, domain_id=domain)), None)
    if user is None:
        password = wanted.password or secrets.token_urlsafe(24)
        user = identity.create_user(name=wanted.user, domain_id=domain, password=password, default_project_id=project)
        return user, password, [f"user {wanted.user} made"]
    if wanted.password is None or _opens(cloud, auth_url, user.id, wanted.password):
        return user, wanted.password, []
    identity.update_user(user, password=wanted.password)
    return user, wanted.password, [f"password of user {wanted.user} set"]


def _opens(cloud: Connection, auth_url: str, user: str, password: str) -> bool:
    """Whether it is the user's password. Setting it again would revoke the tokens that the service has."""
    plugin = v3.Password(auth_url=auth_url, user_id=user, password=password, unscoped=True)
    verify = cloud.session.verify
    try:
        session.Session(auth=plugin, verify=verify).get_token()
    except failures.Unauthorized:
        return False
    return True


def _roles(identity: Proxy, wanted: Wanted, user: Any, project: Any) -> Iterator[str]:
    service = next(iter(identity.roles(name=SERVICE_ROLE)), None)
    if service is None:
        service = identity.create_role(name=SERVICE_ROLE)
        yield f"role {SERVICE_ROLE} made"
    if not identity.validate_user_has_project_role(project, user, service):
        identity.assign_project_role_to_user(project, user, service)
        yield f"role {SERVICE_ROLE} in project {wanted.project} given to {wanted.user}"
    if wanted.limits is not None:
        reader = _one(identity.roles(name="reader"), "role reader")
        if not identity.validate_user_has_system_role(user, reader, "all"):
            identity.assign_system_role_to_user(user, reader, "all")
            yield f"role reader of the system given to {wanted.user}"


def _catalogue(identity: Proxy, wanted: Wanted, kind: str) -> Iterator[str]:
    """The service of one type and its endpoints; a URL that changed is changed."""
    service = next(iter(identity.services(type=kind)), None)
    if service is None:
        service = identity.create_service(name=wanted.name, type=kind, description="Containers (Higgins, Zun's v1 API)")
        yield f"service {wanted.name} of type {kind} made"
    there = {
        endpoint.interface: endpoint
        for endpoint in identity.endpoints(service_id=service.id)
        if endpoint.region_id == wanted.region
    }
    for interface, url in wanted.urls.items():
        endpoint = there.get(interface)
        if endpoint is None:
            identity.create_endpoint(service_id=service.id, interface=interface, url=url, region_id=wanted.region)
            yield f"{interface} endpoint of {kind} made: {url}"
        elif endpoint.url != url:
            identity.update_endpoint(endpoint, url=url)
            yield f"{interface} endpoint of {kind} changed from {endpoint.url} to {url}"


def _limits(identity: Proxy, wanted: Wanted, defaults: dict[str, int]) -> Iterator[str]:
    """Registered limits, which are the defaults of all projects; one that is there stays as it is."""
    service = next(iter(identity.services(type=SERVICE_TYPE)))
    there = {
        limit.resource_name for limit in identity.registered_limits(service_id=service.id, region_id=wanted.region)
    }
    for resource, limit in defaults.items():
        if resource not in there:
            identity.create_registered_limit(
                service_id=service.id, region_id=wanted.region, resource_name=resource, default_limit=limit
            )
            yield f"registered limit of {resource} made: {limit}"
