"""Higgins comes and goes; containers stay, and it finds them again."""

from tests.engines.docker import DockerEngine
from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp
from tests.system.conftest import Naming

IDLE = ("sh", "-c", "trap exit TERM; echo born; while sleep 0.1; do :; done")


def test_containers_outlive_a_stop_and_a_crash_of_higgins(
    openstack: OpenStack, cloud: HigginsUp, docker_engine: DockerEngine, named: Naming
) -> None:
    name = named("outlive")
    openstack("run", "--name", name, "busybox", *IDLE)
    uuid = openstack.wait(name, "Running")["uuid"]
    openstack.wait_for_log(name, "born")
    held = set(docker_engine.command("ps", "--quiet", "--no-trunc").split())

    assert cloud.stop() == 0
    assert set(docker_engine.command("ps", "--quiet", "--no-trunc").split()) == held
    cloud.start()
    assert openstack.wait(name, "Running")["uuid"] == uuid

    cloud.kill()
    cloud.start()
    openstack.wait(name, "Running")
    assert openstack("logs", name).split() == ["born"]
    assert set(docker_engine.command("ps", "--quiet", "--no-trunc").split()) == held


def test_what_is_asked_for_before_a_crash_is_done_after_it(
    openstack: OpenStack, cloud: HigginsUp, named: Naming
) -> None:
    asked, gone = named("asked"), named("gone")
    openstack("run", "--name", gone, "busybox", *IDLE)
    openstack.wait(gone, "Running")
    openstack("run", "--name", asked, "busybox", *IDLE)
    openstack("delete", "--stop", gone)
    cloud.kill()
    cloud.start()
    openstack.wait(asked, "Running")
    openstack.wait(gone, None)


def test_the_credentials_are_made_once_and_for_the_owner_only(cloud: HigginsUp) -> None:
    before = cloud.openrc()
    cloud.stop()
    cloud.start()
    assert cloud.openrc() == before
    assert before["OS_AUTH_TYPE"] == "http_basic" and before["OS_ENDPOINT"].endswith("/v1")
    assert len(before["OS_PASSWORD"]) >= 16
    for secret in ("openrc", "openrc-token", "users"):
        assert (cloud.data / secret).stat().st_mode & 0o777 == 0o600
