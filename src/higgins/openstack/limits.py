"""Quotas as Keystone keeps them: unified limits, read by oslo.limit.

Only the limits come from Keystone. What a project uses is counted and compared in the transaction that raises it, as
with limits of one's own, so that of a hundred creates at once exactly as many pass as fit. What can be late is the
limit: for ``KEPT`` seconds after it was lowered or raised, the one before holds.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException
from oslo_config import cfg
from oslo_limit import exception, limit

from higgins.model.limits import LimitsUnknown
from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.tokens import SERVICE_TYPE, register

LOG = logging.getLogger(__name__)

GROUP = "oslo_limit"
#: Seconds that a limit is believed.
KEPT = 30.0
_MOST_KEPT = 10_000


class UnifiedLimits:
    """The limits of projects on ``resources``; implements ``higgins.model.limits.Limits``.

    oslo.limit blocks and is not made for threads: one thread asks for all.
    """

    def __init__(self, resources: tuple[str, ...], *, kept: float = KEPT) -> None:
        self._resources = resources
        self._kept = kept
        self._known: dict[str, tuple[float, dict[str, int]]] = {}
        self._learning: dict[str, asyncio.Task[dict[str, int]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="limits")
        self._enforcer: limit.Enforcer | None = None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def known(self, project_id: str) -> dict[str, int]:
        until, limits = self._known.get(project_id, (0.0, {}))
        if until <= time.monotonic():
            raise LimitsUnknown(project_id)
        return limits

    async def learn(self, project_id: str) -> None:
        task = self._learning.get(project_id)
        if task is None:
            task = asyncio.create_task(self._ask(project_id))
            self._learning[project_id] = task
            task.add_done_callback(lambda _: self._learning.pop(project_id, None))
        limits = await asyncio.shield(task)
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[project_id] = (time.monotonic() + self._kept, limits)

    async def defaults(self) -> dict[str, int]:
        return await self._ask(None)

    async def _ask(self, project_id: str | None) -> dict[str, int]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, project_id)

    def _read(self, project_id: str | None) -> dict[str, int]:
        """Blocking. Raises ServiceUnavailable."""
        try:
            if self._enforcer is None:
                self._enforcer = limit.Enforcer(_no_usage, cache=False)
            if project_id is None:
                return dict(self._enforcer.get_registered_limits(self._resources))
            return dict(self._enforcer.get_project_limits(project_id, self._resources))
        except (ClientException, SDKException, exception.SessionInitError, ValueError, NotImplementedError) as error:
            # The last two are how oslo.limit tells of an endpoint that is not registered and of a model it cannot do.
            LOG.error("the limits of %s cannot be read: %s", project_id or "all projects", error)
            raise ServiceUnavailable("Keystone", "the project's limits cannot be read") from error


def _no_usage(project_id: str | None, resources: object) -> dict[str, int]:
    raise AssertionError("usage is counted in the transaction")


def open_limits(conf: cfg.ConfigOpts, resources: tuple[str, ...]) -> UnifiedLimits:
    """As [oslo_limit] says. oslo.limit reads the process-wide configuration only, so that is read from the same files.

    The endpoint whose limits count is this service's, in the region of [keystone_authtoken], if nothing else is said.
    """
    register(conf)
    cfg.CONF([], project="higgins", default_config_files=list(conf.config_file), default_config_dirs=[])
    if not (cfg.CONF.oslo_limit.endpoint_id or cfg.CONF.oslo_limit.endpoint_service_name):
        cfg.CONF.set_default("endpoint_service_type", SERVICE_TYPE, group=GROUP)
    cfg.CONF.set_default("endpoint_region_name", conf.keystone_authtoken.region_name, group=GROUP)
    cfg.CONF.set_default("timeout", 10, group=GROUP)
    return UnifiedLimits(resources)
