"""Glance as the cloud's catalogue and Keystone know it: where it is, and in whose name it is asked."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
from keystoneauth1 import exceptions as failures
from oslo_config import cfg

from higgins.images.glance import PATIENCE, Glance
from higgins.model.errors import Forbidden, Unauthorized
from higgins.openstack import trusts
from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.sessions import Sessions, open_sessions
from higgins.openstack.tokens import GROUP, Token

LOG = logging.getLogger(__name__)

_SERVICE = "image"


class CloudImages(Glance):
    """Glance, with the trusts of those whose images are read when their tokens are long gone."""

    def __init__(self, session: aiohttp.ClientSession, sessions: Sessions, endpoint: str = "") -> None:
        """``endpoint``: where it is, if not where the catalogue says."""
        super().__init__(session, self._where, self._own_token)
        self._sessions = sessions
        self._fixed = endpoint.rstrip("/")

    async def _where(self) -> str:
        return self._fixed or (await self._sessions.endpoint(_SERVICE)).removesuffix("/v2")

    async def _own_token(self) -> str:
        return await asyncio.to_thread(self._token, None)

    async def entrust(self, token: str, *, user_id: str, project_id: str, roles: frozenset[str]) -> str | None:
        """None for application credentials: unless they are unrestricted, Keystone lets them give no trust."""
        who = Token(user_id=user_id, project_id=project_id, roles=roles, expires=datetime.now(UTC))
        try:
            return await asyncio.to_thread(trusts.entrust, self._sessions, token, who)
        except Forbidden as refusal:
            LOG.info("User %s gives no trust: %s", user_id, refusal)
            return None

    async def token_by(self, trust: str) -> str:
        return await asyncio.to_thread(self._token, trust)

    async def give_back(self, trust: str) -> None:
        await asyncio.to_thread(trusts.give_back, self._sessions, trust)

    def _token(self, trust: str | None) -> str:
        sessions = self._sessions
        client = sessions.own(_SERVICE) if trust is None else sessions.trusting(_SERVICE, trust)
        try:
            token = client.get_token()
        except (failures.Unauthorized, failures.NotFound, failures.Forbidden) as error:
            sessions.require_own()
            raise Unauthorized("Keystone gives no token for this any more.") from error
        except failures.ClientException as error:
            raise ServiceUnavailable("Keystone", "the image cannot be read") from error
        if token is None:
            raise Unauthorized("Keystone gives no token for this any more.")
        return token


@asynccontextmanager
async def open_images(conf: cfg.ConfigOpts) -> AsyncIterator[CloudImages]:
    """As [keystone_authtoken] and [glance] say."""
    sessions = open_sessions(conf)
    group = conf[GROUP]
    checked = False if group.insecure else ssl.create_default_context(cafile=group.cafile or None)
    async with aiohttp.ClientSession(timeout=PATIENCE, connector=aiohttp.TCPConnector(ssl=checked)) as session:
        yield CloudImages(session, sessions, conf.glance.endpoint)
