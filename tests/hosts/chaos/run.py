"""A run: load and faults for a time, then rest, and the question whether all is as it should be."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.hosts.chaos.cloud import ChaosCloud, chaos_cloud
from tests.hosts.chaos.faults import Killer
from tests.hosts.chaos.history import Operation, faults
from tests.hosts.chaos.load import Client, Load

#: Seconds within which all has come to rest once nothing is broken any more: agents and hosts wait ever longer before
#: they try again, and a comparison of everything comes every half minute.
REST = 150.0
TENANTS = 3
#: Lines of logs that are shown of each process where something is wrong.
_LINES = 12

Tell = Callable[[str], None]


def chaos(busybox: Path, seconds: float, seed: int, tell: Tell) -> list[str]:
    """All that is wrong after so many seconds of chaos; nothing, if Higgins keeps what it promises."""
    began = time.monotonic()

    def stamped(words: str) -> None:
        tell(f"{time.monotonic() - began:6.1f}  {words}")

    stamped(f"chaos for {seconds:g} seconds, seed {seed}")
    with chaos_cloud(busybox) as cloud:
        stamped("the cloud is there")
        found = asyncio.run(_torment(cloud, seconds, seed, stamped))
        if found:
            for name, text in cloud.logs():
                bad = [line for line in text.splitlines() if " ERROR " in line or "Error:" in line]
                stamped("\n".join([f"the log of {name}:", *bad[-_LINES:]]))
    return found


async def _torment(cloud: ChaosCloud, seconds: float, seed: int, tell: Tell) -> list[str]:
    async with AsyncExitStack() as stack:
        client = Client([one.url for one in cloud.replicas], cloud.replicas[0].credentials())
        stack.push_async_callback(client.close)
        _, made = await client.insist("POST", "networks", json={"name": "beside"})
        cloud.network = made["uuid"]
        load = Load(client, cloud.network, seed)
        asking = asyncio.create_task(load.run(TENANTS))
        try:
            killer = Killer(cloud, seed, tell)
            await asyncio.to_thread(killer.run, seconds)
        finally:
            load.end()
            await asking
        outcomes = Counter(f"{one.verb} {one.outcome}" for one in load.history)
        tell(f"{len(killer.broken)} faults; {len(load.history)} operations: {_counts(outcomes)}")
        found = await rest(cloud, client, load.history)
        shown = await client.containers()
        tell(f"{len(shown)} containers are left: {_counts(Counter(one['status'] for one in shown))}")
        for one in shown:
            if one["status"] == "Error":
                tell(f"{one['name']} is in Error: {one['status_reason']}")
        found += [f"after all was deleted: {one}" for one in await remains(cloud, client)]
        for wrong in found:
            tell(f"WRONG: {wrong}")
        tell("something is wrong" if found else "all is as it should be")
        return found


async def rest(cloud: ChaosCloud, client: Client, history: list[Operation]) -> list[str]:
    """What is wrong still when everything has had its time to come to rest."""

    async def wrong() -> list[str]:
        return faults(history, await cloud.look(await client.containers()))

    return await _until_none(wrong)


async def remains(cloud: ChaosCloud, client: Client) -> list[str]:
    """Delete all containers; what is left of them still when it should all be gone."""
    for one in await client.containers():
        await client.insist("DELETE", f"containers/{one['uuid']}?force=true")
    return await _until_none(lambda: asyncio.to_thread(cloud.left))


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"


async def _until_none(look: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """What is found still when the time for it to go is over."""
    end = time.monotonic() + REST
    while True:
        found = await look()
        if not found or time.monotonic() > end:
            return found
        await asyncio.sleep(1)
