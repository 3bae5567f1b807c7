"""Whether containers really run with a runtime: one is started, looked at and removed, the same on every engine."""

import asyncio
import uuid as uuids

from higgins.model.errors import EngineError
from higgins.runtimes.base import EngineContainer, Runtime, SandboxSpec

#: Seconds for removing what a probe made, when the runtime that it was made with hangs.
_REMOVAL = 30.0


def probe_uuid(name: str) -> str:
    """The sandbox and container of a runtime's probe: always the same, so that the next one finds what was left."""
    return str(uuids.uuid5(uuids.NAMESPACE_OID, f"higgins probe {name}"))


async def probe(runtime: Runtime, name: str, image: str, entrypoint: tuple[str, ...] | None = None) -> None:
    """Run ``image``, which must be one that waits, with the runtime that the engine calls ``name``.

    Raises ``EngineError``. What it makes is labelled as ours: an agent that dies meanwhile finds and removes it.
    """
    uuid = probe_uuid(name)
    await runtime.remove_sandbox(uuid)
    try:
        await runtime.create_sandbox(SandboxSpec(uuid=uuid, project_id="", runtime=name))
        await runtime.create(
            EngineContainer(uuid=uuid, incarnation=1, sandbox=uuid, image=image, entrypoint=entrypoint, runtime=name)
        )
        await runtime.start(uuid)
        (seen,) = (await runtime.list(uuid)).containers
        if seen.state != "running":
            raise EngineError(f"The container ended at once with exit code {seen.exit_code}. {seen.reason}".rstrip())
    finally:
        async with asyncio.timeout(_REMOVAL):
            await runtime.remove_sandbox(uuid)
