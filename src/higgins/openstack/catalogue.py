"""Where the cloud's other services are, by the catalogue that the service user sees."""

import asyncio

from keystoneauth1 import loading, session
from keystoneauth1.exceptions import ClientException
from oslo_config import cfg

from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.tokens import GROUP, register

#: Seconds that any request to Keystone may take.
_TIMEOUT = 10


class Catalogue:
    """Endpoints of services, each looked up once."""

    def __init__(self, asked: session.Session, *, region: str | None, interface: str) -> None:
        self._session = asked
        self._region = region
        self._interface = interface
        self._found: dict[str, str] = {}

    async def endpoint(self, service_type: str) -> str:
        """The URL of a service, without a slash at its end. Raises ServiceUnavailable."""
        if service_type not in self._found:
            self._found[service_type] = await asyncio.to_thread(self._look_up, service_type)
        return self._found[service_type]

    def _look_up(self, service_type: str) -> str:
        try:
            url = self._session.get_endpoint(
                service_type=service_type, interface=self._interface, region_name=self._region
            )
        except ClientException as error:
            raise ServiceUnavailable("Keystone", f"the {service_type} service cannot be found") from error
        if url is None:
            raise ServiceUnavailable("Keystone", f"the {service_type} service is not in its catalogue")
        return url.rstrip("/")


def open_catalogue(conf: cfg.ConfigOpts) -> Catalogue:
    """With the credentials of [keystone_authtoken]."""
    register(conf)
    auth = loading.load_auth_from_conf_options(conf, GROUP)
    group = conf[GROUP]
    verify = group.cafile or not group.insecure
    asked = session.Session(auth=auth, verify=verify, timeout=_TIMEOUT)
    return Catalogue(asked, region=group.region_name, interface=group.interface)
