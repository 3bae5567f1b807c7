"""Creates containers of several kinds in a process of its own: ``python -m tests.control.placement_process``."""

import asyncio
import sys

from cryptography.fernet import Fernet
from msgspec import structs

from higgins.control import containers
from higgins.control.cloud import Actor, Cloud
from higgins.store.database import open_store
from tests.control.conftest import draft
from tests.control.replicas import EXACT


async def create(url: str, project: str, number: int) -> None:
    """Create so many containers at once, every second with whole cores; print what status each has."""
    rules = structs.replace(EXACT, tenant_isolation=("all",), cpu_allocation_ratio=1.0, placement_age=1.0)
    cloud = Cloud(open_store(url), Fernet.generate_key(), rules)
    actor = Actor(user_id="user", project_id=project, request_id="req")
    drafts = [
        draft(memory=512, cpu=2.0, cpu_policy="dedicated") if n % 2 else draft(memory=512, cpu=1.0)
        for n in range(number)
    ]
    made = await asyncio.gather(*[containers.create(cloud, actor, one, run=True) for one in drafts])
    print("\n".join(one.status for one in made))
    await cloud.store.close()


if __name__ == "__main__":
    asyncio.run(create(sys.argv[1], sys.argv[2], int(sys.argv[3])))
