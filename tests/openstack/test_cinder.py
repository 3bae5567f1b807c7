"""Volumes of a real Cinder, in containers of an unmodified client: made, found, attached, and given back."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines import wait_until
from tests.openstack import needs
from tests.openstack.cloud import cinder
from tests.openstack.conftest import Login
from tests.system.client import OpenStack

pytestmark = needs("keystone", "cinder")

#: Ends at once when it is told to, and never by itself.
IDLE = "trap exit TERM; while sleep 0.1; do :; done"


def name(kind: str = "volume") -> str:
    """One that no other test uses."""
    return f"{kind}-{uuid.uuid4()}"


def volume(**more: Any) -> str:
    """A new volume of demo's, of 1 GiB and available; its id."""
    project = more.pop("project", "demo")
    body = {"size": 1, "name": name()} | more
    made = cinder("POST", "volumes", project, {"volume": body})["volume"]["id"]
    wait_until(lambda: shown(made, project)["status"] == "available", "the volume is not made")
    return str(made)


def shown(ident: str, project: str = "demo") -> dict[str, Any]:
    found: dict[str, Any] = cinder("GET", f"volumes/{ident}", project)["volume"]
    return found


def volumes(project: str = "demo") -> set[str]:
    return {one["id"] for one in cinder("GET", "volumes", project)["volumes"]}


def becomes(ident: str, status: str) -> None:
    wait_until(lambda: shown(ident)["status"] == status, f"the volume is not {status}")


def run(client: OpenStack, mount: str, script: str = IDLE) -> str:
    """A container that runs a script with a volume, once it does; its name."""
    called = name("container")
    client("run", "--name", called, "--mount", mount, "busybox", "sh", "-c", script)
    client.wait(called, "Running")
    return called


@pytest.fixture(scope="module", autouse=True)
def types() -> None:
    """Volume types: one for each backend, and one whose volumes may be attached several times."""
    there = {one["name"] for one in cinder("GET", "types", "admin")["volume_types"]}
    for called, more in (
        ("loop", {"volume_backend_name": "loop"}),
        ("nfs", {"volume_backend_name": "nfs"}),
        ("shared", {"volume_backend_name": "loop", "multiattach": "<is> True"}),
    ):
        if called not in there:
            cinder("POST", "types", "admin", {"volume_type": {"name": called, "extra_specs": more}})


@pytest.fixture
def demo(login: Login) -> Iterator[OpenStack]:
    """demo's client; afterwards nothing of demo's is left, neither container nor attachment."""
    client = login("demo")
    yield client
    there = [one["uuid"] for one in client.json("list")]
    if there:
        client("delete", "--stop", *there)
    for one in there:
        client.wait(one, None)
    wait_until(lambda: not cinder("GET", "attachments")["attachments"], "attachments are left")


def test_what_is_written_to_a_volume_is_there_for_the_next_container(demo: OpenStack) -> None:
    made = volume()
    first = run(demo, f"source={made},destination=/data", f"echo kept > /data/file; sync; echo done; {IDLE}")
    demo.wait_for_log(first, "done")
    assert shown(made)["status"] == "in-use"
    demo("delete", "--stop", first)
    demo.wait(first, None)
    becomes(made, "available")
    second = run(demo, f"source={made},destination=/data", f"cat /data/file; {IDLE}")
    demo.wait_for_log(second, "kept")
    demo("delete", "--stop", second)
    demo.wait(second, None)
    becomes(made, "available")
    cinder("DELETE", f"volumes/{made}")


def test_a_volume_made_for_a_container_goes_with_it(demo: OpenStack) -> None:
    before = volumes()
    made = run(demo, "size=1,destination=/data", f"mount | grep /data; df -h /data; {IDLE}")
    demo.wait_for_log(made, "ext4")
    (ident,) = volumes() - before
    assert shown(ident)["status"] == "in-use" and shown(ident)["size"] == 1
    demo("delete", "--stop", made)
    demo.wait(made, None)
    wait_until(lambda: volumes() == before, "the volume is left")
