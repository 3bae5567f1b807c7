"""Private database servers for tests and benchmarks: each on a unix socket, its data in a directory of its own.

A test asks for ``database`` and gets an empty one of each kind in turn. Servers start once per session, when the first
test needs them; between tests the rows are deleted and the tables stay.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from higgins.store.database import make_engine
from higgins.store.migrate import migrate
from higgins.store.schema import metadata
from tests.engines import Daemon, wait_until

#: The kinds of stores. Every test of ``database`` runs on each.
SERVERS = ("postgresql", "mariadb")
KINDS = ("sqlite", *SERVERS)


class Server:
    """A database server that runs, and a database on it that has the tables."""

    def __init__(self, url: sa.URL, path: Path) -> None:
        self.url = url
        self._path = path
        self._made = 0
        self.refusal = ""
        admin = url.set(database="postgres" if url.get_backend_name() == "postgresql" else "mysql")
        self._admin = make_engine(admin).execution_options(isolation_level="AUTOCOMMIT")
        self._engine: Engine | None = None

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:  # since PyMySQL leaves one open that it cannot connect
                probe.connect(str(self._path))
        except OSError:
            return False
        try:
            with self._admin.connect():
                return True
        except sa.exc.OperationalError as error:
            self.refusal = str(error)
            return False

    def empty(self) -> str:
        """The URL of a database with all tables and no rows. It is the same one every time."""
        if self._engine is None:
            self._engine = make_engine(self.create("higgins"))
            migrate(self._engine)
        else:
            with self._engine.begin() as conn:
                for table in reversed(metadata.sorted_tables):
                    conn.execute(sa.delete(table))
        return self._engine.url.render_as_string(hide_password=False)

    def create(self, name: str | None = None) -> str:
        """The URL of a new database without tables."""
        self._made += 1
        name = name or f"higgins{self._made}"
        with self._admin.connect() as conn:
            conn.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.url.set(database=name).render_as_string(hide_password=False)

    def admin(self) -> Engine:
        """An engine of a user who may do everything, each statement its own transaction."""
        return self._admin

    def close(self) -> None:
        self._admin.dispose()
        if self._engine is not None:
            self._engine.dispose()


class Directories(Protocol):
    """Where servers keep their files: ``mktemp`` makes a new directory that begins with this name."""

    def mktemp(self, basename: str) -> Path: ...


def _program(name: str, package: str, *directories: Path) -> str:
    """The path of a program; fails the test, naming the package that brings it, where it is not installed."""
    path = os.pathsep.join([*(str(directory) for directory in directories), os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.fail(f"{name} is not installed: the tests of stores need the package {package}")
    return found


def _directory(factory: Directories, name: str, user: str) -> tuple[Path, list[str]]:
    """A directory that ``user`` owns and can reach, and the words that make a command run as that user.

    The servers refuse to run as root, or had better not; where the tests do not run as root, they run as who runs them.
    """
    directory = factory.mktemp(name)
    if os.geteuid() != 0:
        return directory, []
    entry = pwd.getpwnam(user)
    os.chown(directory, entry.pw_uid, entry.pw_gid)
    for parent in directory.parents:
        if parent == Path(tempfile.gettempdir()).parent or parent.stat().st_uid != 0:
            break
        parent.chmod(parent.stat().st_mode | 0o011)
    return directory, ["setpriv", f"--reuid={user}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]


def _run(command: list[str], directory: Path) -> None:
    """Run to its end; its output is shown where it fails."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")


def _serve(daemon: Daemon, server: Server) -> Iterator[Server]:
    daemon.start()
    try:
        try:
            wait_until(lambda: server.answers() or not daemon.running, "the database server does not answer")
        except TimeoutError as error:
            pytest.fail(f"{error}: {server.refusal}\n{daemon.log()}")
        if not daemon.running:
            pytest.fail(f"the database server ended:\n{daemon.log()}")
        yield server
    finally:
        server.close()
        daemon.kill()


class PostgreSQL:
    """The files of a PostgreSQL server of the newest version that is installed; ``settings`` as in postgresql.conf."""

    def __init__(self, factory: Directories, **settings: str) -> None:
        versions = Path("/usr/lib/postgresql").glob("*/bin")
        newest = sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
        initdb, postgres = (_program(name, "postgresql", *newest) for name in ("initdb", "postgres"))
        self.directory, as_user = _directory(factory, "postgresql", "postgres")
        data = self.directory / "data"
        made = [*as_user, initdb, "-D", str(data), "-U", "higgins", "-A", "trust", "-E", "UTF8", "--no-sync"]
        _run(made, self.directory)
        usual = {"listen_addresses": "", "unix_socket_directories": str(self.directory), "max_connections": "200"}
        options = [word for name, value in (usual | settings).items() for word in ("-c", f"{name}={value}")]
        self.daemon = Daemon([*as_user, postgres, "-D", str(data), *options], factory.mktemp("logs") / "postgresql")

    def server(self) -> Server:
        url = sa.URL.create("postgresql+psycopg", username="higgins", query={"host": str(self.directory)})
        return Server(url, self.directory / ".s.PGSQL.5432")


def serve_postgresql(directories: Directories, **settings: str) -> Iterator[Server]:
    """A PostgreSQL server; ``settings`` as in postgresql.conf."""
    files = PostgreSQL(directories, **settings)
    yield from _serve(files.daemon, files.server())


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A PostgreSQL server that is in no hurry to sync."""
    yield from serve_postgresql(
        tmp_path_factory,
        fsync="off",
        synchronous_commit="off",
        full_page_writes="off",
        autovacuum="off",
        shared_buffers="32MB",
        deadlock_timeout="100ms",
    )


@pytest.fixture(scope="session")
def mariadb_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a new MariaDB server, to copy: to make one takes seconds."""
    return new_mariadb_data(tmp_path_factory)


def new_mariadb_data(directories: Directories) -> Path:
    """The data directory of a new MariaDB server."""
    install = _program("mariadb-install-db", "mariadb-server")
    directory, as_user = _directory(directories, "mariadb-data", "mysql")
    _run(
        [*as_user, install, "--no-defaults", f"--datadir={directory}/data", "--skip-test-db",
         "--auth-root-authentication-method=normal", f"--tmpdir={directory}"],
        directory,
    )  # fmt: skip
    return directory / "data"


class MariaDB:
    """The files of a MariaDB server, and how it is started."""

    def __init__(self, factory: Directories, name: str, data: Path) -> None:
        self._mariadbd = _program("mariadbd", "mariadb-server")
        self.directory, self._as_user = _directory(factory, name, "mysql")
        self._log = factory.mktemp("logs") / name
        _run([*self._as_user, "cp", "-R", str(data), str(self.directory)], self.directory)

    def daemon(self, *options: str) -> Daemon:
        return Daemon(
            [
                *self._as_user,
                self._mariadbd,
                "--no-defaults",
                f"--datadir={self.directory}/data",
                f"--socket={self.directory}/socket",
                f"--pid-file={self.directory}/pid",
                f"--tmpdir={self.directory}",
                "--skip-networking",
                "--max-connections=200",
                *options,
            ],
            self._log,
        )

    def server(self) -> Server:
        path = self.directory / "socket"
        return Server(sa.URL.create("mysql+pymysql", username="root", query={"unix_socket": str(path)}), path)


def serve_mariadb(directories: Directories, data: Path, *options: str) -> Iterator[Server]:
    """A MariaDB server on a copy of ``data``; ``options`` as mariadbd takes them."""
    files = MariaDB(directories, "mariadb", data)
    yield from _serve(files.daemon(*options), files.server())


#: How tests want MariaDB: small, and in no hurry to sync.
_SMALL = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=8M",
)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory, mariadb_data: Path) -> Iterator[Server]:
    """A MariaDB server."""
    yield from serve_mariadb(tmp_path_factory, mariadb_data, *_SMALL)


#: Galera's nodes reach each other by TCP: on loopback, and by scripts/test in a network namespace of its own.
_GALERA_PORTS = (24567, 24577)


@pytest.fixture(scope="session")
def galera(
    tmp_path_factory: pytest.TempPathFactory, mariadb_data: Path, own_namespaces: None
) -> Iterator[tuple[Server, Server]]:
    """Two nodes of one Galera cluster."""
    provider = Path("/usr/lib/galera/libgalera_smm.so")
    if not provider.exists():
        pytest.fail(f"{provider} is not there: the tests of stores need the package galera-4")
    nodes = [MariaDB(tmp_path_factory, f"galera-{number}", mariadb_data) for number in range(2)]
    servers: list[Server] = []
    with contextlib.ExitStack() as stack:
        for files, port in zip(nodes, _GALERA_PORTS, strict=True):
            daemon = files.daemon(
                *_SMALL,
                "--binlog-format=ROW",
                "--wsrep-on=ON",
                f"--wsrep-provider={provider}",
                "--wsrep-cluster-name=higgins",
                "--wsrep-cluster-address=gcomm://" + ",".join(f"127.0.0.1:{one}" for one in _GALERA_PORTS),
                "--wsrep-node-address=127.0.0.1",
                "--wsrep-slave-threads=2",
                f"--wsrep-provider-options=base_port={port};gmcast.listen_addr=tcp://127.0.0.1:{port};"
                f"ist.recv_addr=127.0.0.1:{port + 1};gcache.size=16M",
                # Both begin with the same files, so the second says it has what the first one has: nothing is copied.
                f"--wsrep-start-position={_position(servers[0])}" if servers else "--wsrep-new-cluster",
            )
            serve = contextlib.contextmanager(_serve)(daemon, files.server())
            servers.append(stack.enter_context(serve))
        wait_until(lambda: all(_synced(server) for server in servers), "the Galera cluster does not come together")
        yield servers[0], servers[1]


def _position(server: Server) -> str:
    query = "SHOW STATUS WHERE Variable_name IN ('wsrep_local_state_uuid', 'wsrep_last_committed')"
    with server.admin().connect() as conn:
        status = {row[0]: row[1] for row in conn.exec_driver_sql(query)}
    return f"{status['wsrep_local_state_uuid']}:{status['wsrep_last_committed']}"


def _synced(server: Server) -> bool:
    query = "SHOW STATUS WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_local_state_comment')"
    with server.admin().connect() as conn:
        return {row[1] for row in conn.exec_driver_sql(query)} == {"2", "Synced"}


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all tables and no rows, to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "higgins.db"
    engine = make_engine(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with all tables and no rows, of each kind in turn."""
    if request.param == "sqlite":
        copy = shutil.copy(request.getfixturevalue("sqlite"), tmp_path / "higgins.db")
        return f"sqlite:///{copy}"
    server: Server = request.getfixturevalue(request.param)
    return server.empty()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    """A database server, of each kind in turn: for what only those do."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=KINDS)
def bare_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bare.db"
    server: Server = request.getfixturevalue(request.param)
    return server.create()
