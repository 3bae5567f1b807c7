"""A backup is taken while Higgins works, as the operators' guide says, and restored after everything was lost."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.engines.docker import DockerEngine
from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp
from tests.system.conftest import Naming

IDLE = ("sh", "-c", "trap exit TERM; echo born; while sleep 0.1; do :; done")


def back_up(data: Path, backup: Path) -> None:
    """What ``sqlite3 higgins.db '.backup …'`` does, and a copy of the small files."""
    with (
        closing(sqlite3.connect(data / "higgins.db")) as here,
        closing(sqlite3.connect(backup / "higgins.db")) as there,
    ):
        here.backup(there)
    for name in ("secret.key", "users"):
        shutil.copy2(data / name, backup)


def restore(backup: Path, data: Path) -> None:
    for path in data.glob("higgins.db*"):
        path.unlink()
    for name in ("higgins.db", "secret.key", "users"):
        shutil.copy2(backup / name, data)


def test_after_a_restore_running_containers_are_found_again_and_later_ones_go(
    openstack: OpenStack, cloud: HigginsUp, docker_engine: DockerEngine, named: Naming, tmp_path: Path
) -> None:
    kept, later = named("kept"), named("later")
    openstack("run", "--name", kept, "busybox", *IDLE)
    uuid = openstack.wait(kept, "Running")["uuid"]
    openstack.wait_for_log(kept, "born")
    back_up(cloud.data, tmp_path)
    openstack("run", "--name", later, "busybox", *IDLE)
    gone = openstack.wait(later, "Running")["uuid"]

    cloud.kill()
    for name in ("secret.key", "users"):
        (cloud.data / name).unlink()
    restore(tmp_path, cloud.data)
    cloud.start()

    assert openstack.wait(kept, "Running")["uuid"] == uuid
    assert openstack("logs", kept).split() == ["born"]
    openstack.wait(later, None)
    openstack.wait_until(lambda: gone not in docker_engine.command("ps", "--all", "--format", "{{.Names}}"))
    assert uuid in docker_engine.command("ps", "--format", "{{.Names}}")
