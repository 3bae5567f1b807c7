"""Sandboxes made ahead: a workload that wants nothing special of its sandbox takes one that is there already.

An engine can neither rename a sandbox nor change its labels, so a taken one keeps the uuid it was made with; this is
where the two are told apart. Nothing of it is written down: after a restart a container tells which sandbox it is in
(``learn``), and a sandbox that nothing is in is removed like any that has no owner.
"""

import asyncio
import logging
import uuid as uuids
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from higgins.control.link import Assignment
from higgins.model.errors import EngineError
from higgins.runtimes.base import Holdings, Runtime, Sandbox, SandboxSpec

LOG = logging.getLogger(__name__)

#: Seconds of quiet before the pool is filled again, so that filling it is in nobody's way.
QUIET = 0.5


def there(netns: str) -> bool:
    """Whether a network namespace is still there: that of a killed process is not."""
    return Path(netns).exists()


class Spares:
    """Keeps ``count`` sandboxes ready. Names of workloads go in and come out; the engine's go to the engine."""

    def __init__(self, runtime: Runtime, count: int) -> None:
        self._runtime = runtime
        self._count = count
        self._ready: dict[str, Sandbox] = {}
        self._making: set[str] = set()
        self._lost: set[str] = set()
        self._real: dict[str, str] = {}  # workload → the uuid that its sandbox was made with
        self._workload: dict[str, str] = {}  # and back
        self._filling = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._wanted.set()

    def real(self, workload: str) -> str:
        """The engine's uuid of a workload's sandbox."""
        return self._real.get(workload, workload)

    def workload(self, sandbox: str) -> str | None:
        """Whose sandbox this is; None for one that nobody has taken yet."""
        if sandbox in self._making or sandbox in self._ready or sandbox in self._lost:
            return None
        return self._workload.get(sandbox, sandbox)

    @property
    def ready(self) -> int:
        """How many nobody has taken."""
        return len(self._ready)

    def take(self, assignment: Assignment) -> Sandbox | None:
        """A sandbox for this workload, at once, if one is ready and will do."""
        specs = [member.spec for member in assignment.members]
        special = assignment.hostname or any(spec.runtime or spec.privileged for spec in specs)
        if special or assignment.deleting or not self._ready:
            return None
        uuid, sandbox = self._ready.popitem()
        self._wanted.set()
        if not there(sandbox.netns):  # its process was killed just now
            self._lost.add(uuid)
            return None
        self._bind(assignment.uuid, uuid)
        return replace(sandbox, uuid=assignment.uuid, project_id=assignment.project_id)

    def forget(self, workload: str) -> None:
        """The workload's sandbox is no more."""
        self._workload.pop(self._real.pop(workload, workload), None)

    def renamed(self, holdings: Holdings) -> Holdings:
        """What the engine holds, by workload; what nobody has taken is left out."""
        sandboxes = ((one, self.workload(one.uuid)) for one in holdings.sandboxes)
        return Holdings(
            tuple(replace(one, uuid=workload) for one, workload in sandboxes if workload is not None),
            tuple(replace(one, sandbox=self.workload(one.sandbox) or one.sandbox) for one in holdings.containers),
        )

    def learn(self, holdings: Holdings, owners: Mapping[str, str]) -> None:
        """Find out after a restart who has taken what: ``owners`` tells the workload of each assigned container."""
        for one in holdings.containers:
            owner = owners.get(one.uuid)
            if owner is not None and one.sandbox != owner and self.real(owner) != one.sandbox:
                self._bind(owner, one.sandbox)

    def _bind(self, workload: str, sandbox: str) -> None:
        self._real[workload] = sandbox
        self._workload[sandbox] = workload

    async def run(self) -> None:
        """Keep the pool full until cancelled. Raises what the engine raises."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(QUIET)
            if self._wanted.is_set():
                continue  # not quiet yet
            async with self._filling:
                await self._drop_ended()
                while len(self._ready) < self._count and not self._wanted.is_set():
                    await self._make()

    async def _make(self) -> None:
        uuid = str(uuids.uuid4())
        self._making.add(uuid)
        try:
            self._ready[uuid] = await self._runtime.create_sandbox(
                SandboxSpec(uuid=uuid, project_id="", hostname=uuid[:12])
            )
        finally:
            self._making.discard(uuid)

    async def _drop_ended(self) -> None:
        """One whose process was killed would be of no use to whoever took it."""
        for uuid in list(self._ready):
            held = await self._runtime.list(uuid)
            if uuid in self._ready and not any(one.ready for one in held.sandboxes):
                del self._ready[uuid]
                self._lost.add(uuid)
        for uuid in list(self._lost):
            await self._runtime.remove_sandbox(uuid)
            self._lost.discard(uuid)

    def renew(self) -> None:
        """Look at the pool again, after the engine was away or at a comparison."""
        self._wanted.set()

    async def clear(self) -> None:
        """Remove what nobody has taken, as far as the engine lets us."""
        self._count = 0
        async with self._filling:
            spare, self._ready = list(self._ready), {}
            done = await asyncio.gather(*(self._runtime.remove_sandbox(uuid) for uuid in spare), return_exceptions=True)
        for fault in done:
            if isinstance(fault, EngineError):
                LOG.warning("A spare sandbox stays until the next start: %s", fault)
            elif isinstance(fault, BaseException):
                raise fault
