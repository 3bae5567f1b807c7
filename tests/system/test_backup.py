"""A backup is taken while Higgins works, as the operators' guide says, and restored after everything was lost."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from tests.engines.databases import KINDS, Server
from tests.engines.docker import DockerEngine
from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp
from tests.system.launcher import Launcher

IDLE = ("sh", "-c", "trap exit TERM; echo born; while sleep 0.1; do :; done")
SMALL = ("secret.key", "users")


class SQLite:
    """What ``sqlite3 higgins.db '.backup …'`` does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def back_up(self, backup: Path) -> None:
        with closing(sqlite3.connect(self.path)) as here, closing(sqlite3.connect(backup / "higgins.db")) as there:
            here.backup(there)

    def lose(self) -> None:
        for path in self.path.parent.glob("higgins.db*"):
            path.unlink()

    def restore(self, backup: Path) -> None:
        shutil.copy2(backup / "higgins.db", self.path)


class PostgreSQL:
    def __init__(self, url: URL) -> None:
        self.name = str(url.database)
        self._environment = {"PGHOST": str(url.query["host"]), "PGUSER": str(url.username)}

    def back_up(self, backup: Path) -> None:
        self._run(f"pg_dump --format=custom --file={backup}/higgins.dump {self.name}")

    def lose(self) -> None:
        self._run(f"dropdb {self.name}")

    def restore(self, backup: Path) -> None:
        self._run(f"createdb {self.name}")
        self._run(f"pg_restore --exit-on-error --dbname={self.name} {backup}/higgins.dump")

    def _run(self, command: str) -> None:
        shell(command, **self._environment)


class MariaDB:
    def __init__(self, url: URL) -> None:
        self.name = str(url.database)
        self._how = f"--no-defaults --socket={url.query['unix_socket']} --user={url.username}"

    def back_up(self, backup: Path) -> None:
        shell(f"mariadb-dump {self._how} --single-transaction {self.name} > {backup}/higgins.sql")

    def lose(self) -> None:
        shell(f"mariadb {self._how} --execute='DROP DATABASE {self.name}'")

    def restore(self, backup: Path) -> None:
        shell(f"mariadb {self._how} --execute='CREATE DATABASE {self.name} CHARACTER SET utf8mb4'")
        shell(f"mariadb {self._how} {self.name} < {backup}/higgins.sql")


def shell(command: str, **environment: str) -> None:
    done = subprocess.run(["sh", "-c", command], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.fixture(params=KINDS)
def kept(
    request: pytest.FixtureRequest, cloud: HigginsUp, docker_engine: DockerEngine, launcher: Launcher
) -> Iterator[tuple[HigginsUp, SQLite | PostgreSQL | MariaDB]]:
    """A cloud that has the engine to itself, and its database, of each kind in turn."""
    assert cloud.stop() == 0
    data = Path(tempfile.mkdtemp(prefix="higgins-kept"))
    options = tuple(docker_engine.options)
    database: SQLite | PostgreSQL | MariaDB = SQLite(data / "higgins.db")
    if request.param != "sqlite":
        server: Server = request.getfixturevalue(request.param)
        connection = server.create()
        (data / "higgins.conf").write_text(f"[database]\nconnection = {connection}\n")
        options += ("--config-file", str(data / "higgins.conf"))
        url = make_url(connection)
        database = PostgreSQL(url) if request.param == "postgresql" else MariaDB(url)
    up = HigginsUp(data, options, launcher)
    try:
        up.start()
        yield up, database
    finally:
        up.end()
        shutil.rmtree(data)
        cloud.start()


@pytest.mark.timeout(600)
def test_after_a_restore_running_containers_are_found_again_and_later_ones_go(
    kept: tuple[HigginsUp, SQLite | PostgreSQL | MariaDB], docker_engine: DockerEngine, tmp_path: Path
) -> None:
    cloud, database = kept
    openstack = OpenStack(cloud.openrc())
    openstack("run", "--name", "kept", "busybox", *IDLE)
    uuid = openstack.wait("kept", "Running")["uuid"]
    openstack.wait_for_log("kept", "born")
    database.back_up(tmp_path)
    for name in SMALL:
        shutil.copy2(cloud.data / name, tmp_path)
    openstack("run", "--name", "later", "busybox", *IDLE)
    gone = openstack.wait("later", "Running")["uuid"]

    cloud.kill()
    database.lose()
    for name in SMALL:
        (cloud.data / name).unlink()
    database.restore(tmp_path)
    for name in SMALL:
        shutil.copy2(tmp_path / name, cloud.data)
    cloud.start()

    assert openstack.wait("kept", "Running")["uuid"] == uuid
    assert openstack("logs", "kept").split() == ["born"]
    openstack.wait("later", None)
    openstack.wait_until(lambda: gone not in docker_engine.command("ps", "--all", "--format", "{{.Names}}"))
    assert uuid in docker_engine.command("ps", "--format", "{{.Names}}")
    openstack.delete(["kept"])
    openstack.close()
