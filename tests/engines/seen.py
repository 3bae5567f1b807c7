"""What the contract suite saw of an engine, kept in ``tests/contract/seen/``: the page of differences is made from it.

A file for each engine that the suite was run on: its version, what a test observed of its ways, and which claims were
left out because the engine has no means for them. ``make differences`` has them written; a run in which an engine of
the same version does otherwise than is written fails.
"""

import re
from pathlib import Path

import msgspec

PLACE = Path(__file__).parents[1] / "contract" / "seen"
#: In the order in which they are shown, with the names that people know them by.
TITLES = {
    "containerd": "containerd {}",
    "containerd-trixie": "containerd {}",
    "containerd-sid": "containerd {}",
    "containerd-users": "containerd {}, `user_ids`",
    "plain-cri": "CRI alone",
    "docker": "Docker {}",
    "docker-trixie": "Docker {}",
    "docker-sid": "Docker {}",
    "docker-store": "Docker {}, containerd's store",
    "podman": "Podman {}",
}


class LeftOut(msgspec.Struct, frozen=True):
    """A claim that was not tried: ``part`` is what the engine would need for it."""

    claim: str
    part: str
    reason: str


class Sight(msgspec.Struct, kw_only=True):
    """Of one engine. ``held`` is how many claims held, ``observed`` what was done how."""

    version: str
    held: int = 0
    observed: dict[str, str] = {}
    left_out: list[LeftOut] = []


def read(engine: str) -> Sight | None:
    """What is kept, None where the suite was never run on it."""
    path = PLACE / f"{engine}.json"
    return msgspec.json.decode(path.read_bytes(), type=Sight) if path.exists() else None


def write(engine: str, sight: Sight) -> None:
    sight.observed = dict(sorted(sight.observed.items()))
    sight.left_out.sort(key=lambda one: (one.part, one.claim))
    text = msgspec.json.format(msgspec.json.encode(sight), indent=1)
    PLACE.mkdir(exist_ok=True)
    (PLACE / f"{engine}.json").write_bytes(text + b"\n")


def title(engine: str, sight: Sight) -> str:
    """Its name with the first two parts of its version."""
    return TITLES[engine].format(".".join(re.findall(r"\d+", sight.version)[:2]))


def claim(test: str) -> str:
    """A test's name as people read it."""
    return test.partition("[")[0].removeprefix("test_").replace("_", " ")


def plain(text: str) -> str:
    """A message without what is another in each run: uuids, ids, addresses."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", text)
    text = re.sub(r"\b[0-9a-f]{12,64}\b", "…", text)
    return re.sub(r"127\.0\.0\.1:\d+", "…", text)
