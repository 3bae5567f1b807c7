"""Keystone's tokens, validated by keystonemiddleware. Blocking: it is called in threads.

keystonemiddleware is made to stand in front of a WSGI application. Here it gets a request that carries only what it may
judge by (method, path, tokens), in front of an application that always agrees; what it learnt of the token stays in the
request's environment.
"""

import copy
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import webob  # type: ignore[import-untyped]
from keystoneauth1 import exceptions as failures
from keystonemiddleware import auth_token  # type: ignore[import-untyped]
from msgspec import Struct
from oslo_config import cfg

from higgins.model.errors import Forbidden, Unauthorized
from higgins.openstack.errors import ServiceUnavailable

GROUP = "keystone_authtoken"
#: The type of this service in the catalogue, and the other name that clients and access rules know it by.
SERVICE_TYPE, ALIAS = "application-container", "container"
#: Seconds that a token is believed without asking Keystone, at most: as long as a revoked one may live on.
LONGEST_BELIEF = 60


class Credentials(Struct, frozen=True):
    """What a request carries. ``path`` is the canonical one; tokens are printable ASCII, the second may be empty."""

    method: str
    path: str
    token: str
    service_token: str = ""


class Token(Struct, frozen=True):
    """A token that Keystone vouches for. ``project_id`` is empty for a token of system scope (``system_scope`` all).

    ``roles`` hold the implied ones too. ``restricted``: it is good for this method and path, perhaps for no other.
    ``service_roles`` are those of the service that passed the token on.
    """

    user_id: str
    project_id: str
    roles: frozenset[str]
    expires: datetime
    system_scope: str | None = None
    service_roles: frozenset[str] = frozenset()
    restricted: bool = False


def register(conf: cfg.ConfigOpts) -> None:
    """Let ``conf`` know the group [keystone_authtoken] as every OpenStack service has it.

    Two defaults differ: a Keystone that hangs is given up after ten seconds, and one that refuses is asked twice.
    """
    for group, options in auth_token.list_opts():
        conf.register_opts(options, group=group)
    conf.set_default("http_connect_timeout", 10, group=GROUP)
    conf.set_default("http_request_max_retries", 1, group=GROUP)


def belief(conf: cfg.ConfigOpts) -> tuple[float, float]:
    """Seconds that a token is believed by this process, and by a memcached that all share.

    Together never longer than ``token_cache_time`` and ``LONGEST_BELIEF``, since what one took from the other may be as
    old as that one keeps it.
    """
    group = conf[GROUP]
    whole = max(0, min(group.token_cache_time, LONGEST_BELIEF))
    return (whole / 2, whole / 2) if group.memcached_servers else (whole, 0)


def public_url(conf: cfg.ConfigOpts) -> str:
    """Where callers get tokens."""
    return str(conf[GROUP].www_authenticate_uri or conf[GROUP].auth_url or "")


class Validator:
    """Validates tokens with the credentials of [keystone_authtoken]; may be called by many threads at once."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        register(conf)
        _, shared = belief(conf)
        overrides = {
            "oslo_config_config": conf,
            "delay_auth_decision": False,  # else an outage of Keystone looks like a wrong token
            "include_service_catalog": True,  # access rules are compared with it
            "service_type": conf[GROUP].service_type or SERVICE_TYPE,
            "token_cache_time": int(shared) or -1,
        }
        self._middleware = _Middleware(_agree, overrides)

    def __call__(self, credentials: Credentials) -> Token:
        """Raises Unauthorized, Forbidden for a scope that Higgins has no use for, and ServiceUnavailable."""
        headers = {"X-Auth-Token": credentials.token}
        if credentials.service_token:
            headers["X-Service-Token"] = credentials.service_token
        request = webob.Request.blank(quote(credentials.path), method=credentials.method, headers=headers)
        try:
            status = request.get_response(self._middleware).status_int
        except failures.ClientException as error:  # no endpoint, a certificate that does not fit, …
            raise ServiceUnavailable("Keystone", "tokens cannot be checked") from error
        if status == 401:
            raise Unauthorized(
                "The token is not valid: it is unknown, expired or revoked, or its access rules do not allow this."
            )
        if status != 204:
            raise ServiceUnavailable("Keystone", "tokens cannot be checked")
        return token_of(request.environ["keystone.token_auth"], request.environ["keystone.token_info"])


def token_of(auth: Any, info: dict[str, Any]) -> Token:
    """What counts of keystonemiddleware's findings. Raises Forbidden for a token of a domain or of nothing."""
    user = auth.user
    system = user.system_scoped and bool(user.system.get("all"))
    if not user.project_id and not system:
        scope = "a domain" if user.domain_id else "nothing"
        raise Forbidden(f"The token is scoped to {scope}; a token that is scoped to a project or the system is wanted.")
    application_credential = info["token"].get("application_credential") or {}
    return Token(
        user_id=user.user_id,
        project_id="" if system else user.project_id,
        roles=frozenset(user.role_names),
        expires=user.expires,
        system_scope="all" if system else None,
        service_roles=frozenset(auth.service.role_names) if auth.service else frozenset(),
        restricted=application_credential.get("access_rules") is not None,
    )


class _Middleware(auth_token.AuthProtocol):  # type: ignore[misc]
    """Takes both names of the service for one, in access rules and in the catalogue."""

    def validate_allowed_request(self, request: Any, token: dict[str, Any]) -> None:
        super().validate_allowed_request(request, with_one_name(token, self._conf.get("service_type")))


def with_one_name(token: dict[str, Any], name: str) -> dict[str, Any]:
    """The token as if rules and catalogue knew the service as ``name`` only; pure."""
    if not (token.get("application_credential") or {}).get("access_rules"):
        return token
    renamed = copy.deepcopy(token)
    for rule in renamed["application_credential"]["access_rules"]:
        if rule["service"] in (SERVICE_TYPE, ALIAS):
            rule["service"] = name
    for service in renamed["catalog"]:
        if service["type"] in (SERVICE_TYPE, ALIAS):
            service["type"] = name
    return renamed


def _agree(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return ()
