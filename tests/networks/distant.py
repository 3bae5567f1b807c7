"""The driver on another host: a process in a network namespace, which does what it is told on its standard input."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from higgins.networks.base import Neighbour, Network, PortFilter, PortWire
from higgins.networks.local import open_local_network
from tests.networks.namespaces import Namespace


class Wish(Struct, frozen=True):
    """One of the verbs, by what is given."""

    netns: str = ""
    workload: str = ""
    ports: list[PortWire] = []
    unplugged: list[str] = []
    filters: list[PortFilter] | None = None
    neighbours: list[Neighbour] = []


class DistantHost:
    """A namespace with an address on the network between hosts, and the driver in it."""

    def __init__(self, place: Namespace, state: Path, address: str) -> None:
        self.place = place
        self.address = address
        command = [sys.executable, "-m", "tests.networks.distant", str(state), address]
        self._driver = subprocess.Popen(
            ["nsenter", f"--net={place.path}", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, wish: Wish) -> None:
        assert self._driver.stdin is not None and self._driver.stdout is not None
        self._driver.stdin.write(msgspec.json.encode(wish).decode() + "\n")
        self._driver.stdin.flush()
        answer: Any = json.loads(self._driver.stdout.readline() or '"it ended"')
        assert answer is None, answer

    def close(self) -> None:
        assert self._driver.stdin is not None and self._driver.stdout is not None
        self._driver.stdin.close()
        self._driver.wait()
        self._driver.stdout.close()
        self.place.close()


async def do(network: Network, wish: Wish) -> None:
    if wish.ports:
        await network.plug(wish.netns, wish.workload, wish.ports)
    if wish.unplugged:
        await network.unplug(wish.workload, wish.unplugged)
    if wish.filters is not None:
        await network.apply(wish.filters, wish.neighbours)


async def serve(state: Path, address: str) -> None:
    network = open_local_network(state, tunnel_address=address)
    await network.setup()
    for line in sys.stdin:
        try:
            await do(network, msgspec.json.decode(line, type=Wish))
        except Exception as error:
            print(json.dumps(repr(error)), flush=True)
        else:
            print("null", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
