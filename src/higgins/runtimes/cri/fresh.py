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
        self._members: dict[str, set[str]] = {}  # of each sandbox, all that were ever asked for
        self._unstarted: dict[str, tuple[str, EngineContainer]] = {}  # made just now, and so the newest of its uuid

    async def make(self, spec: EngineContainer) -> bool:
        """Make it in its sandbox; whether that was done. Raises ``EngineUnavailable``, or why it has no such class."""
        self._unstarted.pop(spec.uuid, None)
        sandbox, members = self._sandboxes.expected(spec.sandbox), self._members.setdefault(spec.sandbox, set())
        if sandbox is None or spec.uuid in members:
            return False
        members.add(spec.uuid)
        if await classes.wanted(self._client, spec.runtime) is not None:
            return False
        wanted = config.container_config(spec, attempt=config.attempt_number(spec.incarnation, 0))
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=wanted, sandbox_config=sandbox[1])
        try:
            made = await self._client.ask(self._client.runtime.CreateContainer, request, timeout=None)
        except EngineUnavailable:
            raise
        except EngineError:
            return False
        await restart.bound(self._client, made.container_id, spec)
        self._unstarted[spec.uuid] = made.container_id, spec
        return True

    async def start(self, uuid: str) -> bool:
        """Start it if it was made just now; whether that was done. Raises as a start does that has looked before."""
        engine_id, spec = self._unstarted.pop(uuid, ("", None))
        if spec is None:
            return False
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
        """Something else was done to the container."""
        self._unstarted.pop(uuid, None)

    def sandbox_removed(self, uuid: str) -> None:
        """With all that was in it."""
        for member in self._members.pop(uuid, ()):
            self._unstarted.pop(member, None)
