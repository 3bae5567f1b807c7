"""A short run of ``make chaos``: whatever is killed, what was accepted happens, once, and nothing is left behind."""

from pathlib import Path

import pytest

from tests.engines import need
from tests.engines.images import busybox_archive
from tests.hosts.chaos.run import chaos

__all__ = ["busybox_archive"]


@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_leaked_when_every_process_is_killed_in_turn(
    own_namespaces: None, busybox_archive: Path
) -> None:
    need("dockerd", "docker", "runc", "catatonit", "ip", "nsenter", "nft")
    told: list[str] = []
    assert chaos(busybox_archive, 25, seed=7, tell=told.append) == [], "\n".join(told)
