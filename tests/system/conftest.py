"""A cloud, its client, and names for containers that are removed when a test is over."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.engines.containerd import containerd_engine
from tests.engines.docker import docker_engine
from tests.engines.images import busybox_archive
from tests.system.client import OpenStack
from tests.system.cloud import cloud, launcher, openstack
from tests.system.stage import stage

__all__ = ["busybox_archive", "cloud", "containerd_engine", "docker_engine", "launcher", "openstack", "stage"]

_numbers = itertools.count(1)

Naming = Callable[[str], str]


@pytest.fixture
def named(openstack: OpenStack) -> Iterator[Naming]:
    """``named("web")``: a name that no other test uses, whose container goes when the test is over."""
    names: list[str] = []

    def name(stem: str) -> str:
        names.append(f"{stem}-{next(_numbers)}")
        return names[-1]

    yield name
    openstack.delete(names)
