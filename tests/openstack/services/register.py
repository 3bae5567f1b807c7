"""Service users, their roles, the catalogue, two tenants (demo, alt): ``register.py SERVICE…``. Twice is as once."""

import sys
from typing import cast

from openstack.identity.v3._proxy import Proxy
from openstack.identity.v3.role import Role

import openstack

DOMAIN = "default"
PASSWORD = "secret"
ENDPOINTS = {
    "glance": ("image", "http://127.0.0.1:9292"),
    "placement": ("placement", "http://127.0.0.1:8778"),
    "neutron": ("network", "http://127.0.0.1:9696"),
    "cinder": ("block-storage", "http://127.0.0.1:8776/v3"),
    "nova": ("compute", "http://127.0.0.1:8774/v2.1"),
    "heat": ("orchestration", "http://127.0.0.1:8004/v1/%(tenant_id)s"),
}


class Registration:
    """What is in Keystone, and what is to be."""

    def __init__(self, identity: Proxy) -> None:
        self._identity = identity
        self._roles = {role.name: role for role in self._identity.roles()}
        self._services = {service.name: service for service in self._identity.services()}
        self._endpoints = {(endpoint.service_id, endpoint.interface) for endpoint in self._identity.endpoints()}

    def user(self, name: str, project_name: str, *roles: str) -> None:
        """A user with these roles in the project, both made where they are not there."""
        identity = self._identity
        project = identity.find_project(project_name, domain_id=DOMAIN) or identity.create_project(
            name=project_name, domain_id=DOMAIN
        )
        user = identity.find_user(name, domain_id=DOMAIN) or identity.create_user(
            name=name, domain_id=DOMAIN, password=PASSWORD, default_project_id=project.id
        )
        for role in roles:
            identity.assign_project_role_to_user(project, user, self.role(role))

    def role(self, name: str) -> Role:
        if name not in self._roles:
            self._roles[name] = self._identity.create_role(name=name)
        return self._roles[name]

    def endpoints(self, name: str, kind: str, url: str) -> None:
        """The service's entry in the catalogue."""
        service = self._services.get(name) or self._identity.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            if (service.id, interface) not in self._endpoints:
                self._identity.create_endpoint(
                    service_id=service.id, interface=interface, url=url, region_id="RegionOne"
                )

    def heat(self) -> None:
        """The domain of the users that stacks make, and the role that lets a user own stacks."""
        identity = self._identity
        self.role("heat_stack_user")
        domain = identity.find_domain("heat") or identity.create_domain(name="heat")
        admin = identity.find_user("heat_domain_admin", domain_id=domain.id) or identity.create_user(
            name="heat_domain_admin", domain_id=domain.id, password=PASSWORD
        )
        identity.assign_domain_role_to_user(domain, admin, self.role("admin"))
        self.user("admin", "admin", "heat_stack_owner")


def main(names: list[str]) -> None:
    registration = Registration(cast(Proxy, openstack.connect().identity))
    for name in names:
        registration.user(name, "service", "admin", "service")
        registration.endpoints(name, *ENDPOINTS[name])
    for tenant in ("demo", "alt"):
        registration.user(tenant, tenant, "member")
    if "heat" in names:
        registration.heat()


if __name__ == "__main__":
    main(sys.argv[1:])
