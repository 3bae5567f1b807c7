"""The life of a container, and each verb of it done twice."""

import pytest

from higgins.model.errors import ContainerGone
from higgins.runtimes.base import Runtime
from tests.contract.workloads import Workloads, observe


async def test_a_container_goes_from_created_to_running_to_exited_to_gone(
    runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.create()
    assert (await observe(runtime, uuid)).state == "created"
    await runtime.start(uuid)
    running = await observe(runtime, uuid)
    assert running.state == "running"
    assert running.started_at is not None
    assert running.exit_code is None
    await runtime.stop(uuid, 0)
    stopped = await observe(runtime, uuid)
    assert stopped.state == "exited"
    assert stopped.finished_at is not None
    await runtime.remove(uuid)
    with pytest.raises(ContainerGone):
        await observe(runtime, uuid)
