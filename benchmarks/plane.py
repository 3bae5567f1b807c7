"""What the API is measured on: ``higgins api`` alone, on each database, with rows written straight into it.

The databases sync what they commit, as an operator's do. Hosts are rows that nobody speaks for, and their lease never
ends: so containers are placed, wired and written down, and no engine takes part.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from tests.engines.databases import Server, new_mariadb_data, serve_mariadb, serve_postgresql

from higgins.cli.credentials import user_line
from higgins.control.link import Known
from higgins.control.rows import to_json
from higgins.model.container import ContainerSpec, RestartPolicy
from higgins.model.resources import HostInfo
from higgins.store.database import make_engine
from higgins.store.schema import action, container, event, host, port, workload

#: The project of the administrator that Higgins makes.
PROJECT = "demo"
_USER = "admin"
_NOW = datetime(2026, 1, 1)
#: Rows in one statement.
_CHUNK = 500
_PATIENCE = 180
_HOSTS = 10


class Directories:
    """Directories that go with this object."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="bench-api"))

    def mktemp(self, basename: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{basename}-", dir=self.root))

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of an empty database of this kind (sqlite, postgresql, mariadb), while it is needed."""
    directories = Directories()
    with contextlib.ExitStack() as stack:
        stack.callback(directories.remove)
        if kind == "sqlite":
            yield f"sqlite:///{directories.mktemp('sqlite')}/higgins.db"
            return
        servers: Iterator[Server]
        if kind == "postgresql":
            servers = serve_postgresql(directories, shared_buffers="256MB", max_wal_size="4GB")
        else:
            servers = serve_mariadb(directories, new_mariadb_data(directories), "--innodb-buffer-pool-size=256M")
        yield stack.enter_context(contextlib.contextmanager(lambda: servers)()).create("higgins")


class ControlPlane:
    """``higgins api`` on a database, with hosts that take whatever comes."""

    def __init__(self, data: Path, url: str, hosts: Sequence[dict[str, Any]] = (), more: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.listen = f"127.0.0.1:{probe.getsockname()[1]}"
        self.engine: Engine = make_engine(url)
        self.data = data
        self._log = data / "log"
        conf = data / "higgins.conf"
        quota = "[quota]\ncontainers = -1\ncpu = -1\nmemory = -1\ndisk = -1\n"
        conf.write_text(f"[database]\nconnection = {url}\n{quota}{more}")
        self._hosts = hosts or [host_row(number) for number in range(_HOSTS)]
        self._command = [sys.executable, "-m", "higgins.cli.main", "api", "--data", str(data), "--listen", self.listen]
        self._command += ["--agent-listen", "127.0.0.1:0", "--config-file", str(conf)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + _PATIENCE
        while "Higgins serves http://" not in (said := self.log()):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"higgins api does not serve: {said[-3000:]}")
            time.sleep(0.05)
        with self.engine.begin() as conn:
            conn.execute(sa.insert(host), self._hosts)

    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self.engine.dispose()
        if self.process is not None:
            self.process.terminate()
            self.process.wait(_PATIENCE)

    def openrc(self) -> Mapping[str, str]:
        """As the file openrc has it."""
        lines = (self.data / "openrc").read_text().splitlines()
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def another(self, project: str) -> "Neighbour":
        """An administrator in another project."""
        found = Neighbour(self.listen, project)
        with (self.data / "users").open("a") as users:
            users.write(user_line(project, project, project, "admin"))
        return found

    def fill(self, first: int, last: int) -> None:
        """Containers with these numbers (the last one not), in the project of the administrator."""
        for start in range(first, last, _CHUNK):
            with self.engine.begin() as conn:
                _insert(conn, range(start, min(start + _CHUNK, last)))

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """What is made within is taken away again."""
        tables = (port, container, workload, action, event)
        with self.engine.begin() as conn:
            marks = [conn.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0 for table in tables]
        yield
        with self.engine.begin() as conn:
            for table, mark in zip(tables, marks, strict=True):
                conn.execute(sa.delete(table).where(table.c.id > mark))


class Neighbour:
    """A user of the same API; the name is also the password and the project."""

    def __init__(self, listen: str, name: str) -> None:
        self.listen = listen
        self._name = name

    def openrc(self) -> Mapping[str, str]:
        return {"OS_USERNAME": self._name, "OS_PASSWORD": self._name}


@contextlib.contextmanager
def control_plane(url: str, hosts: Sequence[dict[str, Any]] = (), more: str = "") -> Iterator[ControlPlane]:
    """It serves, while it is needed. ``hosts`` are rows, ten if none are given; ``more`` is of its configuration."""
    data = Path(tempfile.mkdtemp(prefix="bench-plane"))
    plane = ControlPlane(data, url, hosts, more)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(data, ignore_errors=True)


def host_row(number: int) -> dict[str, Any]:
    """A host that nobody speaks for, and that is never silent for too long."""
    return {
        "uuid": str(uuid.UUID(int=number)), "name": f"host-{number}", "zone": "nova", "info": to_json(HostInfo()),
        "cpus": 1e6, "memory": 2**30, "disk": 2**30, "seen_at": datetime(2100, 1, 1), "created_at": _NOW,
    }  # fmt: skip


def name_of(number: int) -> str:
    return f"web-{number}"


def uuid_of(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name_of(number)))


def _spec(number: int) -> str:
    """No two are the same."""
    return to_json(
        ContainerSpec(
            image="busybox:1.36", command=("sh", "-c", "exec serve --port 8080"), cpu=0.5, memory=64,
            environment={"DATABASE": "db.internal:5432", "NUMBER": str(number)}, labels={"app": "web", "tier": "front"},
            restart_policy=RestartPolicy("always"), exposed_ports=("8080/tcp",),
        )
    )  # fmt: skip


_KNOWN = to_json(Known(state="running", started_at=_NOW))


def _insert(conn: Connection, numbers: range) -> None:
    names = [(number, name_of(number), uuid_of(number), _NOW + timedelta(seconds=number)) for number in numbers]
    base = {"project_id": PROJECT, "user_id": _USER}
    hosts = conn.execute(sa.select(host.c.id).order_by(host.c.id)).scalars().all()
    conn.execute(
        sa.insert(workload),
        [
            base | {"uuid": its_uuid, "kind": "container", "name": name, "host_id": hosts[number % len(hosts)],
                    "cpu": 0.5, "memory": 64, "disk": 0, "spec": "{}", "status": "Running", "created_at": made}
            for number, name, its_uuid, made in names
        ],
    )  # fmt: skip
    found = sa.select(workload.c.uuid, workload.c.id).where(
        workload.c.uuid.in_([its_uuid for _, _, its_uuid, _ in names])
    )
    ids = dict(conn.execute(found).all())
    conn.execute(
        sa.insert(container),
        [
            base | {"uuid": its_uuid, "workload_id": ids[its_uuid], "role": "plain", "name": name,
                    "host": f"host-{number % len(hosts)}", "image": "busybox:1.36", "memory": 64, "goal": "running",
                    # One in fifty is stopped, for lists that look for those.
                    "status": "Running" if number % 50 else "Stopped", "spec": _spec(number), "known": _KNOWN,
                    "addresses": _addresses(number), "created_at": made}
            for number, name, its_uuid, made in names
        ],
    )  # fmt: skip
    conn.execute(
        sa.insert(action),
        [
            base | {"container_uuid": its_uuid, "request_id": f"req-{its_uuid}", "action": "create", "generation": 1,
                    "start_time": made, "finish_time": made, "result": "Success"}
            for _, _, its_uuid, made in names
        ],
    )  # fmt: skip


def _addresses(number: int) -> str:
    net, made = str(uuid.UUID(int=1)), str(uuid.uuid5(uuid.NAMESPACE_URL, name_of(number)))
    address = f"10.{192 + number // 65536}.{number // 256 % 256}.{number % 256}"
    return to_json(
        {net: [{"addr": address, "version": 4, "port": made, "subnet_id": net, "preserve_on_delete": False}]}
    )
