"""Clients of the cloud's other services, in three names: Higgins' own, a caller's, and a user's who trusts Higgins.

All of it blocks and is called in threads. Credentials and the region are those of [keystone_authtoken].
"""

import asyncio
from collections.abc import Callable
from typing import Any

from keystoneauth1 import adapter, loading, service_token, session
from keystoneauth1.exceptions import ClientException
from keystoneauth1.plugin import BaseAuthPlugin
from oslo_config import cfg

from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.tokens import GROUP, register

#: Seconds without a byte after which a request is given up.
_TIMEOUT = 30


class Sessions:
    """``trusted`` makes the credentials that a trust gives, from its id."""

    def __init__(
        self,
        own: BaseAuthPlugin,
        trusted: Callable[[str], BaseAuthPlugin],
        *,
        region: str | None = None,
        interface: str = "internal",
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
    ) -> None:
        self._own = own
        self._trusted = trusted
        self._session = session.Session(verify=verify, cert=cert, timeout=_TIMEOUT)
        self._region = region
        self._interface = interface
        self._endpoints: dict[str, str] = {}

    def own(self, service_type: str) -> adapter.Adapter:
        """In Higgins' own name: a user with the role ``service``, and nothing of any tenant's."""
        return self._client(service_type, self._own)

    def require_own(self) -> None:
        """Keystone lets Higgins itself in now, so that what a trust does not give is the trust's fault.

        Raises ServiceUnavailable where it does not: with a password that is none any more no trust gives anything.
        """
        own = self.own("identity")
        own.invalidate()
        try:
            own.get_token()
        except ClientException as error:
            raise ServiceUnavailable("Keystone", "nobody can be acted for", "does not let Higgins in now") from error

    def caller(self, service_type: str, token: str) -> adapter.Adapter:
        """In the name of who sent this token. It goes with a token of Higgins', so that its expiry in the middle of a
        long piece of work does no harm (services take it for as long as Keystone lets them)."""
        given = service_token.ServiceTokenAuthWrapper(user_auth=_Given(token, self._own), service_auth=self._own)
        return self._client(service_type, given)

    def trusting(self, service_type: str, trust: str) -> adapter.Adapter:
        """In the name of a user who gave Higgins a trust, whenever that was; see ``trusts``. It goes with a token of
        Higgins', by which services know one of their own."""
        given = service_token.ServiceTokenAuthWrapper(user_auth=self._trusted(trust), service_auth=self._own)
        return self._client(service_type, given)

    def _client(self, service_type: str, auth: BaseAuthPlugin) -> adapter.Adapter:
        return adapter.Adapter(
            self._session,
            auth=auth,
            service_type=service_type,
            interface=self._interface,
            region_name=self._region,
            connect_retries=2,
        )

    async def endpoint(self, service_type: str) -> str:
        """The URL of a service, looked up once, without a slash at its end. Raises ServiceUnavailable."""
        if service_type not in self._endpoints:
            self._endpoints[service_type] = await asyncio.to_thread(self._look_up, service_type)
        return self._endpoints[service_type]

    def _look_up(self, service_type: str) -> str:
        try:
            url = self.own(service_type).get_endpoint()
        except ClientException as error:
            raise ServiceUnavailable("Keystone", f"the {service_type} service cannot be found") from error
        if url is None:
            raise ServiceUnavailable(
                "Keystone", f"the {service_type} service, which is not in the catalogue, is missing"
            )
        return url.rstrip("/")


class _Given(BaseAuthPlugin):
    """A token that somebody sent us, good or not: it cannot be renewed. Endpoints are those that Higgins sees."""

    def __init__(self, token: str, catalogue: BaseAuthPlugin) -> None:
        super().__init__()
        self._token = token
        self._catalogue = catalogue

    def get_token(self, session: session.Session, **kwargs: Any) -> str | None:
        return self._token

    def get_endpoint_data(self, session: session.Session, **kwargs: Any) -> Any:
        return self._catalogue.get_endpoint_data(session, **kwargs)

    def get_endpoint(self, session: session.Session, **kwargs: Any) -> str | None:
        return self._catalogue.get_endpoint(session, **kwargs)


def open_sessions(conf: cfg.ConfigOpts) -> Sessions:
    """As [keystone_authtoken] says."""
    register(conf)
    group = conf[GROUP]

    def trusted(trust: str) -> BaseAuthPlugin:
        unscoped = dict.fromkeys(
            ("project_id", "project_name", "project_domain_id", "project_domain_name", "system_scope")
        )
        return _plugin(conf, trust_id=trust, **unscoped)

    cert = (group.certfile, group.keyfile) if group.certfile and group.keyfile else group.certfile
    return Sessions(
        _plugin(conf),
        trusted,
        region=group.region_name,
        interface=group.interface,
        verify=False if group.insecure else group.cafile or True,
        cert=cert,
    )


def _plugin(conf: cfg.ConfigOpts, **more: Any) -> BaseAuthPlugin:
    loaded = loading.load_auth_from_conf_options(conf, GROUP, **more)
    assert isinstance(loaded, BaseAuthPlugin), "[keystone_authtoken] has no auth_type"
    return loaded
