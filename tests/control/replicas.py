"""Creates containers in a process of its own, as one of several replicas: ``python -m tests.control.replicas``."""

import asyncio
import sys

from cryptography.fernet import Fernet

from higgins.control import containers
from higgins.control.cloud import Actor, Cloud
from higgins.control.containers import Draft
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec
from higgins.store.database import open_store

#: No host is given more than it has, and memory alone decides.
EXACT = Settings(memory_allocation_ratio=1.0, cpu_allocation_ratio=1000.0)


async def create(url: str, project: str, number: int) -> None:
    """Create so many containers of 1024 MiB at once, and print what status each has."""
    cloud = Cloud(open_store(url), Fernet.generate_key(), EXACT)
    actor = Actor(user_id="user", project_id=project, request_id="req")
    draft = Draft(name=None, spec=ContainerSpec(image="busybox", memory=1024))
    made = await asyncio.gather(*[containers.create(cloud, actor, draft, run=True) for _ in range(number)])
    print("\n".join(one.status for one in made))
    await cloud.store.close()


if __name__ == "__main__":
    asyncio.run(create(sys.argv[1], sys.argv[2], int(sys.argv[3])))
