"""What a command of the client is driven on: a cloud, a version, and a container that runs."""

import json
import re
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.system.client import OpenStack, Outcome, succeeded
from tests.system.cloud import HigginsUp
from tests.system.rest import Rest

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
_ROW = re.compile(
    r"\| `(?P<name>[a-z -]+)` \| (?P<does>[^|]+) \| 1\.(?P<since>\d+) (?P<rest>[^|]+) \| (?P<remark>[^|]*)\|"
)
#: The newest version that the client knows.
NEWEST = 40

#: It says what it gets, so that its log tells.
TALKER = "echo first; trap 'echo caught' USR1; trap exit TERM; while sleep 0.1; do :; done"


class Row(Struct, frozen=True):
    """A command as the documents have it: the minor versions that have it, and what else there is to know."""

    name: str
    since: int
    until: int
    remark: str

    def serves(self, minor: int) -> bool:
        return self.since <= minor <= self.until


def table() -> dict[str, Row]:
    """The rows of ``docs/commands.md`` by command."""
    rows = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            found = _ROW.fullmatch(line)
            assert found is not None, line
            end = found["rest"].removeprefix("to 1.")
            until = NEWEST if end == "and later" else int(end)
            assert found["name"] not in rows, line
            rows[found["name"]] = Row(found["name"], int(found["since"]), until, found["remark"].strip())
    return rows


def installed() -> set[str]:
    """The commands of the client that is installed."""
    points = distribution("python-zunclient").entry_points.select(group="openstack.container.v1")
    return {point.name.replace("_", " ") for point in points}


class Scene:
    """A running container ``name`` in ``cloud``, and the client in one version.

    Whoever changes the container puts it right again.
    """

    def __init__(self, cloud: HigginsUp, openstack: OpenStack, version: str) -> None:
        self.cloud = cloud
        self.openstack = openstack  # in the newest version, to see what came of a command
        self.rest = Rest(cloud, "1.49")
        self._client = OpenStack(cloud.openrc() | {"OS_CONTAINER_API_VERSION": version})
        self.version = version
        self.minor = NEWEST if version == "1.latest" else int(version.removeprefix("1."))
        self.mark = version.replace(".", "-")
        self.name = f"scene-{self.mark}"
        self._made = [self.name]
        openstack("run", "--name", self.name, "busybox", "sh", "-c", TALKER)
        openstack.wait(self.name, "Running")
        openstack.wait_for_log(self.name, "first")
        self.host = str(openstack.show(self.name)["host"])

    def close(self) -> None:
        self._client.close()
        self.openstack.delete(self._made)

    def called(self, stem: str) -> str:
        """A name for a container, which goes with the scene."""
        name = f"{stem}-{self.mark}"
        self._made.append(name)
        return name

    def call(self, command: str, *arguments: str) -> Outcome:
        """The command in the version of the scene, whatever comes of it."""
        return self._client.program("openstack", *command.split(), *arguments)

    def do(self, command: str, *arguments: str) -> str:
        """What the command prints; it must succeed."""
        return succeeded(self.call(command, *arguments)).out

    def json(self, command: str, *arguments: str) -> Any:
        """What the command tells; it must succeed."""
        return json.loads(self.do(command, "-f", "json", *arguments))

    def refused(self, command: str, *arguments: str) -> str:
        """What is said of a command that must fail; the client ends some failures with 0."""
        done = self.call(command, *arguments)
        assert done.code != 0 or " failed: " in done.out, f"{command}: {done}"
        return done.out + done.err

    def until(self, claim: Callable[[], bool]) -> None:
        self.openstack.wait_until(claim)

    def inside(self, *command: str) -> str:
        """What a command inside prints, whether or not it can be run now."""
        return self.openstack.call("exec", self.name, *command).out
