"""Containers that are made and started for the first time, without asking about them before: nearly all are.

The engine refuses what cannot be: a second container of a name, a sandbox that has ended, an image that is not here.
Where it refuses to make one, the caller looks at what is there, as it does for all that this process does not know.
"""

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import ContainerGone, EngineError, EngineUnavailable
from higgins.runtimes.base import EngineContainer
from higgins.runtimes.cri import classes, config, restart
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.sandboxes import Sandboxes


class Fresh:
    """What this process has made: of a sandbox that it made too, it knows all containers by that."""

    def __init__(self, client: Client, sandboxes: Sandboxes) -> None:
        self._client = client
        self._sandboxes = sandboxes
        self._made: dict[str, tuple[str, EngineContainer] | None] = {}  # None: it may be otherwise by now

    async def make(self, spec: EngineContainer) -> bool:
        """Make it in its sandbox; whether that was done. Raises ``EngineUnavailable``, or why it has no such class."""
        sandbox = self._sandboxes.expected(spec.sandbox)
        if sandbox is None or spec.uuid in self._made:
            return False
        if await classes.wanted(self._client, spec.runtime) is not None:
            return False
        self._made[spec.uuid] = None
        wanted = config.container_config(spec, attempt=config.attempt_number(spec.incarnation, 0))
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=wanted, sandbox_config=sandbox[1])
        try:
            made = await self._client.ask(self._client.runtime.CreateContainer, request, timeout=None)
        except EngineUnavailable:
            raise
        except EngineError:
            return False
        await restart.bound(self._client, made.container_id, spec)
        self._made[spec.uuid] = made.container_id, spec
        return True

    async def start(self, uuid: str) -> bool:
        """Start it if it was made just now; whether that was done. Raises as a start does that has looked before."""
        found = self._made.get(uuid)
        if found is None:
            return False
        self._made[uuid] = None
        engine_id, spec = found
        try:
            await restart.run(self._client, engine_id, spec)
        except EngineUnavailable:
            raise
        except ContainerGone:
            return False
        except EngineError:
            if (await self._client.status(engine_id)).status.state == cri.CONTAINER_UNKNOWN:
                return False
            raise
        return True

    def changed(self, uuid: str) -> None:
        """Something else was done to it."""
        if uuid in self._made:
            self._made[uuid] = None

    def gone(self, uuid: str) -> None:
        """Nothing of it is left."""
        self._made.pop(uuid, None)
