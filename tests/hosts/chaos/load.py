"""Tenants who go on whatever happens: each asks for one thing after the other, and whatever they hear is recorded."""

import asyncio
import random
import uuid as uuids
from typing import Any

import aiohttp
from msgspec import Struct

from tests.hosts.chaos.history import Answer, Operation

#: The first that knows an Idempotency-Key: any release since serves it.
VERSION = {"OpenStack-API-Version": "container 1.43"}
IDLE = ("sh", "-c", "trap exit TERM; while sleep 1; do :; done")
#: Seconds that one try may take, and between tries; how often a request is tried.
_TIMEOUT, _PAUSE, _TRIES = 60.0, 0.5, 120
#: Containers that a tenant has at a time.
_MOST = 3


class _Own(Struct):
    """A container as its owner sees it."""

    name: str
    uuid: str


class Client:
    """Speaks to either replica: to the other one where the first does not answer."""

    def __init__(self, urls: list[str], authorization: str) -> None:
        self._urls = urls
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT, sock_connect=5)
        connector = aiohttp.TCPConnector(limit=16)
        headers = VERSION | {"Authorization": authorization}
        self._session = aiohttp.ClientSession(timeout=timeout, headers=headers, connector=connector)
        self._turn = 0

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, **more: Any) -> tuple[Answer, Any]:
        """One try at the next replica: what came of it, and the body if it was JSON."""
        self._turn += 1
        url = f"{self._urls[self._turn % len(self._urls)]}/v1/{path}"
        try:
            async with self._session.request(method, url, **more) as response:
                text = await response.text()
                json = await response.json() if "json" in response.headers.get("Content-Type", "") else None
                return Answer(response.status, text if response.status >= 400 else ""), json
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Answer(None, f"{error!r}", sent=False), None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Answer(None, f"{error!r}"), None

    async def insist(self, method: str, path: str, **more: Any) -> tuple[list[Answer], Any]:
        """Try until there is an answer that settles it; all answers."""
        answers: list[Answer] = []
        while len(answers) < _TRIES:
            answer, body = await self.ask(method, path, **more)
            answers.append(answer)
            if answer.final:
                return answers, body
            await asyncio.sleep(_PAUSE)
        return answers, None

    async def containers(self) -> list[dict[str, Any]]:
        """All that are shown."""
        answers, body = await self.insist("GET", "containers?limit=1000")
        assert body is not None, answers[-1]
        shown: list[dict[str, Any]] = body["containers"]
        return shown


class Load:
    """``tenants`` who ask beside one another. ``network`` is the uuid of a second network, to attach and to leave."""

    def __init__(self, client: Client, network: str, seed: int) -> None:
        self._client = client
        self._network = network
        self._seed = seed
        self._over = asyncio.Event()
        self.history: list[Operation] = []

    async def run(self, tenants: int) -> None:
        """Until it is over, and what was begun has been answered."""
        await asyncio.gather(*(self._tenant(number) for number in range(tenants)))

    def end(self) -> None:
        self._over.set()

    async def _tenant(self, number: int) -> None:
        chance = random.Random(f"load {self._seed} {number}")
        mine: list[_Own] = []
        made = 0
        while not self._over.is_set():
            if len(mine) < _MOST and (not mine or chance.random() < 0.4):
                made += 1
                if (one := await self._create(f"c{number}-{made}", chance)) is not None:
                    mine.append(one)
            elif not await self._change(one := chance.choice(mine), chance):
                mine.remove(one)
            await asyncio.sleep(chance.uniform(0.1, 0.6))

    async def _create(self, name: str, chance: random.Random) -> _Own | None:
        body: dict[str, Any] = {
            "name": name,
            "image": "busybox",
            "command": list(IDLE),
            "cpu": 0.1,
            "memory": "32",
            "restart_policy": {"Name": "always"},
            "auto_heal": chance.random() < 0.5,
        }
        if chance.random() < 0.2:
            body["mounts"] = [{"type": "volume", "size": "1", "destination": "/data"}]
        operation = Operation(name, "create")
        self.history.append(operation)
        key = {"Idempotency-Key": str(uuids.UUID(int=chance.getrandbits(128)))}
        operation.answers, told = await self._client.insist("POST", "containers?run=true", json=body, headers=key)
        if operation.outcome != "accepted":
            return None
        operation.uuid = told["uuid"]
        return _Own(name, operation.uuid)

    async def _change(self, one: _Own, chance: random.Random) -> bool:
        """Ask for something that fits the container as it is; whether it can be asked for more."""
        answer, shown = await self._client.ask("GET", f"containers/{one.uuid}")
        if not answer.final:
            return True
        if shown is None or shown["status"] == "Error":
            return False
        path = f"containers/{one.uuid}"
        attached = self._network in shown["addresses"]
        beside = ("detach", "POST", f"{path}/network_detach?network={self._network}")
        if not attached:
            beside = ("attach", "POST", f"{path}/network_attach?network={self._network}")
        gone = ("delete", "DELETE", f"{path}?stop=true")
        match shown["status"]:
            case "Running":
                ways = [("stop", "POST", f"{path}/stop?timeout=1"), beside, gone]
            case "Stopped":
                ways = [("start", "POST", f"{path}/start"), ("start", "POST", f"{path}/start"), gone]
            case _:
                return True  # it is on its way
        verb, method, where = chance.choice(ways)
        operation = Operation(one.name, verb)
        self.history.append(operation)
        operation.answers, _ = await self._client.insist(method, where)
        # One that was not answered in time may yet be carried out, after whatever would be asked next.
        late = any(answer.status is None and "Timeout" in answer.text for answer in operation.answers)
        return verb != "delete" and not late
