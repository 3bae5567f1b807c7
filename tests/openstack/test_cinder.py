"""Volumes of a real Cinder, in containers of an unmodified client: made, found, attached, and given back."""

import contextlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import structs

from tests.openstack import cloud, needs
from tests.openstack.between import Between, Next
from tests.openstack.cloud import cinder
from tests.openstack.conftest import HigginsInCloud, Login
from tests.openstack.volumes import becomes, name, shown, volume, wait_until
from tests.system.client import OpenStack

#: Some start Higgins several times, which takes its time beside a whole cloud on two cores.
pytestmark = [needs("keystone", "cinder"), pytest.mark.timeout(600), pytest.mark.usefixtures("volume_types")]

#: Ends at once when it is told to, and never by itself.
IDLE = "trap exit TERM; while sleep 0.1; do :; done"


def volumes(project: str = "demo") -> set[str]:
    return {one["id"] for one in cinder("GET", "volumes", project)["volumes"]}


def run(client: OpenStack, mount: str, script: str = IDLE) -> str:
    """A container that runs a script with a volume, once it does; its name."""
    called = name("container")
    client("run", "--name", called, "--mount", mount, "busybox", "sh", "-c", script)
    runs(client, called)
    return called


def runs(client: OpenStack, called: str) -> None:
    """Wait until it does. It may be in error until Cinder is asked again."""
    wait_until(lambda: client.status(called) == "Running", f"{called} does not run")


@pytest.fixture
def demo(login: Login, higgins: HigginsInCloud) -> Iterator[OpenStack]:
    """demo's client; afterwards nothing is left: no container, attachment, trust, nor record on the host."""
    client = login("demo")
    before = trusts()
    yield client
    for one in client.json("list"):
        remove(client, one["uuid"])
    wait_until(lambda: not cinder("GET", "attachments")["attachments"], "attachments are left")
    wait_until(lambda: trusts() <= before, "a trust is left")
    wait_until(lambda: not list((higgins.data / "cinder").glob("*.json")), "a record is left on the host")


@pytest.fixture
def mortal(demo: OpenStack, higgins: HigginsInCloud) -> Iterator[HigginsInCloud]:
    """Higgins, to be killed; afterwards it runs, and dies no more."""
    yield higgins
    if higgins.process is not None and higgins.process.poll() is None:
        higgins.kill()
    higgins.start()


def trusts() -> set[str]:
    return {one["id"] for one in cloud.keystone("GET", "/OS-TRUST/trusts")["trusts"]}


def remove(client: OpenStack, called: str) -> None:
    client("delete", "--stop", called)
    client.wait(called, None)


def fails(client: OpenStack, mount: str) -> str:
    """Why no container can be made with it."""
    done = client.call("run", "--mount", mount, "busybox", "true")
    assert done.code != 0, done
    return done.err


def attachments(ident: str) -> int:
    return len(shown(ident)["attachments"])


@pytest.mark.parametrize("kind", ["loop", "nfs"])
def test_what_is_written_to_a_volume_is_there_for_the_next_container(demo: OpenStack, kind: str) -> None:
    made = volume(volume_type=kind)
    first = run(demo, f"source={made},destination=/data", f"echo kept > /data/file; sync; echo done; {IDLE}")
    demo.wait_for_log(first, "done")
    assert shown(made)["status"] == "in-use"
    assert f"in use by container {first}" in fails(demo, f"source={made},destination=/data")
    remove(demo, first)
    # At once, while the volume is still on its way back.
    second = run(demo, f"source={shown(made)['name']},destination=/data", f"cat /data/file; {IDLE}")
    demo.wait_for_log(second, "kept")
    remove(demo, second)
    becomes(made, "available")
    cinder("DELETE", f"volumes/{made}")


def test_a_volume_made_for_a_container_goes_with_it(demo: OpenStack) -> None:
    before = volumes()
    made = run(demo, "size=1,destination=/data", f"mount | grep /data; {IDLE}")
    demo.wait_for_log(made, "ext4")
    (ident,) = volumes() - before
    assert shown(ident)["status"] == "in-use" and shown(ident)["size"] == 1
    remove(demo, made)
    wait_until(lambda: volumes() == before, "the volume is left")


def test_whose_volume_it_is_cinder_says_and_one_in_use_elsewhere_is_refused(demo: OpenStack) -> None:
    theirs = volume(project="alt")
    assert "could not be found" in fails(demo, f"source={theirs},destination=/data")
    cinder("DELETE", f"volumes/{theirs}", "alt")
    mine = volume()
    body = {"volume_uuid": mine, "instance_uuid": str(uuid.uuid4())}
    other = cinder("POST", "attachments", json={"attachment": body})["attachment"]["id"]
    assert "is reserved in Cinder" in fails(demo, f"source={mine},destination=/data")
    cinder("DELETE", f"attachments/{other}")
    cinder("DELETE", f"volumes/{mine}")


def test_a_multiattach_volume_is_shared_by_containers_and_given_back_by_the_last(demo: OpenStack) -> None:
    made = volume(volume_type="shared")
    writer = run(demo, f"source={made},destination=/data", f"echo shared > /data/file; sync; {IDLE}")
    reader = run(demo, f"source={made},destination=/d", f"until grep shared /d/file; do sleep 0.1; done; {IDLE}")
    demo.wait_for_log(reader, "shared")
    remove(demo, writer)
    assert attachments(made) == 1
    remove(demo, reader)
    becomes(made, "available")
    cinder("DELETE", f"volumes/{made}")


def test_members_of_a_capsule_share_a_volume(demo: OpenStack, higgins: HigginsInCloud) -> None:
    made = volume()
    called = name("capsule")
    mount = [{"name": "data", "mountPath": "/data"}]
    write = ["sh", "-c", f"echo shared > /data/file; sync; {IDLE}"]
    read = ["sh", "-c", f"until grep shared /data/file; do sleep 0.1; done; {IDLE}"]
    template = {
        "capsuleVersion": "beta",
        "kind": "capsule",
        "metadata": {"name": called},
        "spec": {
            "containers": [
                {
                    "image": "busybox",
                    "command": command,
                    "volumeMounts": mount,
                    "resources": {"requests": {"memory": 64}},
                }
                for command in (write, read)
            ],
            "volumes": [{"name": "data", "cinder": {"volumeID": made}}],
        },
    }
    token = cloud.token(cloud.password("demo", "demo"))

    def ask(method: str, path: str, json: Any = None) -> cloud.Reply:
        return cloud.ask(f"{higgins.url}/{path}", method, token=token, json=json)

    assert ask("POST", "capsules", {"template": template}).status == 202
    wait_until(lambda: ask("GET", f"capsules/{called}").body["status"] == "Running", "the capsule does not run")
    assert attachments(made) == 1
    (reader,) = (one for one in ask("GET", f"capsules/{called}").body["containers"] if "until" in str(one["command"]))
    wait_until(lambda: "shared" in str(ask("GET", f"containers/{reader['uuid']}/logs").body), "it is not shared")
    ask("DELETE", f"capsules/{called}")
    becomes(made, "available")
    cinder("DELETE", f"volumes/{made}")


def test_the_quota_of_cinder_ends_as_an_error_and_start_tries_again(demo: OpenStack) -> None:
    quota = f"os-quota-sets/{cloud.identifier('projects', 'demo')}"
    cinder("PUT", quota, "admin", {"quota_set": {"volumes": 0}})
    called = name("container")
    demo("run", "--name", called, "--mount", "size=1,destination=/data", "busybox", "sh", "-c", IDLE)
    demo.wait_until(lambda: demo.status(called) == "Error")
    assert "Cinder refuses" in demo.show(called)["status_reason"] and "413" in demo.show(called)["status_reason"]
    cinder("PUT", quota, "admin", {"quota_set": {"volumes": 20}})
    demo("start", called)
    runs(demo, called)


FAULTS = (
    Next(method="POST", path="/volumes", status=500, times=2),
    Next(method="POST", path="/volumes", done=True),
    Next(method="GET", path="/volumes/", status=503),
    Next(method="POST", path="/attachments", status=409),
    Next(method="POST", path="/attachments", status=429),
    Next(method="POST", path="/attachments", done=True),
    Next(method="POST", path="/action", status=401),
    Next(method="POST", path="/action", done=True),
    Next(method="GET", path="/attachments", delay=3),
    Next(method="DELETE", path="/attachments", status=500),
    Next(method="DELETE", path="/attachments", done=True),
    Next(method="DELETE", path="/volumes", status=429),
    Next(method="DELETE", path="/volumes", done=True),
)


def test_whatever_cinder_answers_a_container_comes_and_goes(demo: OpenStack, cinder_proxy: Between) -> None:
    before = volumes()
    faults = [structs.replace(fault) for fault in FAULTS]
    with contextlib.ExitStack() as stack:
        for fault in faults:
            stack.enter_context(cinder_proxy.failing(fault))
        made = run(demo, "size=1,destination=/data", IDLE)
        (ident,) = volumes() - before
        assert attachments(ident) == 1
        remove(demo, made)
        wait_until(lambda: volumes() == before, "the volume is left")
    assert not any(fault.times for fault in faults), faults


def test_killed_after_whatever_cinder_did_it_goes_on(
    demo: OpenStack, mortal: HigginsInCloud, cinder_proxy: Between
) -> None:
    before = volumes()
    dead = threading.Event()

    def kill() -> None:
        mortal.kill()
        dead.set()

    deadly = Next(method="", path="", times=0, done=True, then=kill)

    def dies_at(method: str, path: str) -> None:
        deadly.method, deadly.path, deadly.times = method, path, 1

    def again(method: str = "", path: str = "") -> None:
        """Start it after it died, to die again there."""
        assert dead.wait(60), cinder_proxy.seen
        dead.clear()
        dies_at(method, path)
        mortal.start()

    called = name("container")
    with cinder_proxy.failing(deadly):
        dies_at("POST", "/volumes")
        demo("run", "--name", called, "--mount", "size=1,destination=/data", "busybox", "sh", "-c", IDLE)
        again("POST", "/attachments")
        again("POST", "/action")
        again()
        runs(demo, called)
        (ident,) = volumes() - before
        assert attachments(ident) == 1
        dies_at("DELETE", "/attachments")
        demo("delete", "--stop", called)
        again("DELETE", "/volumes")
        again()
        demo.wait(called, None)
    wait_until(lambda: volumes() == before, "the volume is left")


def test_killed_at_its_steps_on_the_host_it_goes_on(demo: OpenStack, mortal: HigginsInCloud) -> None:
    made = volume()
    called = name("container")

    def dies_then(step: str = "") -> None:
        """It dies where it was told to, and goes on, to die again there."""
        mortal.wait_for_end()
        mortal.start(**({"HIGGINS_FAILPOINT": step} if step else {}))

    mortal.kill()
    mortal.start(HIGGINS_FAILPOINT="AttachVolume:before")
    demo("run", "--name", called, "--mount", f"source={made},destination=/data", "busybox", "sh", "-c", IDLE)
    dies_then("AttachVolume:after")
    dies_then("DeleteVolume:before")
    runs(demo, called)
    demo("delete", "--stop", called)
    dies_then("DeleteVolume:after")
    dies_then()
    demo.wait(called, None)
    becomes(made, "available")
    cinder("DELETE", f"volumes/{made}")


def test_while_cinder_is_stopped_its_name_is_told_and_deletes_are_done_afterwards(demo: OpenStack) -> None:
    made = volume()
    gone = run(demo, f"source={made},destination=/data")
    called = name("container")
    cloud.service("stop", "cinder")
    try:
        assert "Cinder does not answer now" in fails(demo, "source=any,destination=/data")
        demo("run", "--name", called, "--mount", "size=1,destination=/data", "busybox", "sh", "-c", IDLE)
        demo.wait_until(lambda: "Cinder does not answer now" in (demo.show(called)["status_reason"] or ""))
        assert demo.status(called) == "Creating"
        remove(demo, gone)
    finally:
        cloud.service("start", "cinder")
    runs(demo, called)
    becomes(made, "available")
    cinder("DELETE", f"volumes/{made}")


def test_a_volume_stuck_in_detaching_is_told_and_comes_back(demo: OpenStack) -> None:
    made = volume()
    used = run(demo, f"source={made},destination=/data")
    cinder("POST", f"volumes/{made}/action", "admin", {"os-reset_status": {"status": "detaching"}})
    remove(demo, used)
    becomes(made, "available")
    cinder("POST", f"volumes/{made}/action", "admin", {"os-reset_status": {"status": "detaching"}})
    assert "is detaching in Cinder" in fails(demo, f"source={made},destination=/data")
    cinder("POST", f"volumes/{made}/action", "admin", {"os-reset_status": {"status": "available"}})
    cinder("DELETE", f"volumes/{made}")


def test_after_its_user_is_gone_an_administrator_of_cinder_cleans_up(demo: OpenStack, login: Login) -> None:
    before = volumes()
    rita = cloud.member("demo", "member")
    run(login(rita, "demo"), "size=1,destination=/data")
    (made,) = demo.json("list")
    cloud.keystone("DELETE", f"/users/{cloud.identifier('users', rita)}")
    own = [cloud.identifier(*one) for one in (("projects", "service"), ("users", "higgins"), ("roles", "admin"))]
    role = "/projects/{}/users/{}/roles/{}".format(*own)
    cloud.keystone("PUT", role)
    try:
        remove(demo, made["uuid"])
        wait_until(lambda: volumes() == before, "the volume is left")
    finally:
        cloud.keystone("DELETE", role)
