"""Sandboxes: made or found, looked at, removed, and made again where a boot of the host has ended them.

The engine may hold several of one uuid, told apart by CRI's attempt: the newest is the one that counts. Older ones have
ended, and are kept for the containers in them until these have been started in the newest (see ``restart``).
"""

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import ContainerGone, SandboxGone
from higgins.runtimes.base import Sandbox, SandboxSpec
from higgins.runtimes.cri import classes, config, state, users
from higgins.runtimes.cri.client import Client


class Sandboxes:
    """``logs`` is the directory that each sandbox gets one in; ``ids`` are the users of their namespaces, if any."""

    def __init__(self, client: Client, *, logs: Path, cgroup_parent: str, ids: users.Ids | None) -> None:
        self._client = client
        self._logs = logs
        self._cgroup_parent = cgroup_parent
        self._ids = ids
        self._taking: dict[str, int] = {}  # first ids of those that are being made
        self._netns: dict[str, str] = {}
        self._made: dict[str, tuple[str, cri.PodSandboxConfig]] = {}  # by uuid: as this process made it last

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make it, or find it ready."""
        held = await self._client.sandboxes(sandbox=spec.uuid)
        if not held or held[-1].state != cri.SANDBOX_READY:
            attempt = held[-1].metadata.attempt + 1 if held else 0
            first_id = users.of(held[-1].annotations) if held else await self._take_ids(spec)
            wanted = self._config(spec, attempt, first_id)
            Path(wanted.log_directory).mkdir(mode=0o700, parents=True, exist_ok=True)
            # containerd's members are handed over to their class one by one: see ``classes``.
            handler = "" if await self._client.is_containerd() else spec.runtime or ""
            try:
                made = await self._client.ask(
                    self._client.runtime.RunPodSandbox,
                    cri.RunPodSandboxRequest(config=wanted, runtime_handler=handler),
                    "the sandbox",
                    timeout=None,
                )
            finally:
                self._taking.pop(spec.uuid, None)
            if held:
                await self.remove_emptied(spec.uuid)
            now = await self._client.sandbox_status(made.pod_sandbox_id)
            self._netns[made.pod_sandbox_id] = state.netns(now)
            self._made[spec.uuid] = made.pod_sandbox_id, wanted
            return state.sandbox(now.status, self._netns[made.pod_sandbox_id])
        return await self.observed(held[-1])

    async def remove(self, uuid: str) -> None:
        """Remove all of that uuid, with their containers and logs."""
        self._made.pop(uuid, None)
        for sandbox in await self._client.sandboxes(sandbox=uuid):
            await self._remove_one(sandbox.id)
        await asyncio.to_thread(shutil.rmtree, self._logs / config.plain(uuid), ignore_errors=True)

    def expected(self, uuid: str) -> tuple[str, cri.PodSandboxConfig] | None:
        """What ``ready`` would most likely say, without asking; None where there is nothing to go by."""
        return self._made.get(uuid)

    async def ready(self, uuid: str) -> tuple[str, cri.PodSandboxConfig]:
        """The engine's id of the newest, and what it was made from, for a container to join. Raises ``SandboxGone``."""
        held = await self._client.sandboxes(sandbox=uuid)
        if not held or held[-1].state != cri.SANDBOX_READY:
            raise SandboxGone(f"The sandbox {uuid} is not ready.")
        spec = config.sandbox_spec(held[-1].annotations)
        return held[-1].id, self._config(spec, held[-1].metadata.attempt, users.of(held[-1].annotations))

    async def observed(self, held: cri.PodSandbox) -> Sandbox:
        if held.state != cri.SANDBOX_READY:
            return state.sandbox(held, "")
        if held.id not in self._netns:  # it never changes
            try:
                self._netns[held.id] = state.netns(await self._client.sandbox_status(held.id))
            except ContainerGone:
                return state.sandbox(held, "")
        return state.sandbox(held, self._netns[held.id])

    async def remove_emptied(self, uuid: str) -> None:
        """Remove the ended ones whose containers have moved to the newest."""
        sandboxes = await self._client.sandboxes(sandbox=uuid)
        if len(sandboxes) > 1:
            used = {one.pod_sandbox_id for one in await self._client.containers(sandbox=uuid)}
            for old in sandboxes[:-1]:
                if old.id not in used:
                    await self._remove_one(old.id)

    async def _take_ids(self, spec: SandboxSpec) -> int | None:
        """The first id of those that a new sandbox gets; None for one that shall have the host's users.

        Those are the privileged ones, whose members are to be root of the host, and those of a class with a kernel of
        its own, which keeps users apart by itself.
        """
        if self._ids is None or spec.privileged or await classes.wanted(self._client, spec.runtime) is not None:
            return None
        if (spec.runtime or "") not in (await self._client.handlers()).user_namespaces:
            return None
        held = await self._client.sandboxes()
        taken = {users.of(one.annotations) for one in held} | set(self._taking.values())
        self._taking[spec.uuid] = first_id = self._ids.free({first for first in taken if first is not None})
        return first_id

    def _config(self, spec: SandboxSpec, attempt: int, first_id: int | None) -> cri.PodSandboxConfig:
        return config.sandbox_config(
            spec, attempt=attempt, logs=self._logs, cgroup_parent=self._cgroup_parent, first_id=first_id
        )

    async def _remove_one(self, engine_id: str) -> None:
        with suppress(ContainerGone):
            members = [one.id for one in await self._client.containers() if one.pod_sandbox_id == engine_id]
            stop = cri.StopPodSandboxRequest(pod_sandbox_id=engine_id)
            await self._client.remove(self._client.runtime.StopPodSandbox, stop, *members)
            remove = cri.RemovePodSandboxRequest(pod_sandbox_id=engine_id)
            await self._client.remove(self._client.runtime.RemovePodSandbox, remove, *members)
        self._netns.pop(engine_id, None)
