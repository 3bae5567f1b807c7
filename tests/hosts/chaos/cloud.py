"""A cloud to be tormented: PostgreSQL, two replicas of the control plane, and hosts that reach either by one name."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import Fernet

from higgins.control import status
from higgins.control.cloud import Cloud
from higgins.networks.local import wires
from higgins.store.database import open_store
from higgins.store.schema import attachment, container, core, host, port, volume, workload
from tests.engines.databases import PostgreSQL, Server
from tests.hosts.chaos.history import Found, Held, Shown
from tests.hosts.processes import BRIDGE, NETWORK, Machine, Process, bridge, command, ip, machine, wait_for

NAMES = ("one", "two")
#: The name of the control plane; it has an address for each replica.
CONTROL = "control"
_API_PORT, _AGENT_PORT = 9617, 9618
#: Sandboxes that each host makes ahead, and how its agent is told.
SPARES = 1
SPARE = ("--spare-sandboxes", str(SPARES))
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: What a container engine is asked for each container: its kind, uuid and state.
_ROW = '{{.Label "org.higgins.kind"}} {{.Label "org.higgins.uuid"}} {{.State}}'


class Directories:
    """New directories below one that goes when all is over."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def mktemp(self, basename: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{basename}-", dir=self._root))


class Database:
    """A PostgreSQL server that forgets nothing that it has promised when it is killed."""

    def __init__(self, directories: Directories) -> None:
        # What a killed process has written is there; only a machine that loses its power would need more.
        self._files = PostgreSQL(directories, fsync="off", full_page_writes="off", shared_buffers="32MB")
        self._server: Server = self._files.server()
        self.start()
        self.url = self._server.create("higgins")

    def start(self) -> None:
        """Until it answers. What is left of a killed one ends by itself, and as long as that takes this one refuses."""

        def answers() -> bool:
            if not self._files.daemon.running:
                self._files.daemon.start()
            return self._server.answers()

        wait_for(answers, lambda: f"{self._server.refusal}\n{self._files.daemon.log()}")

    def kill(self) -> None:
        self._files.daemon.kill()

    def close(self) -> None:
        self._server.close()
        self.kill()


class Replica:
    """``higgins api`` as one of several: where its tenants and its agents come to. ``source`` as ``Process`` has it."""

    def __init__(self, number: int, data: Path, database: str, settings: str = "", source: Path | None = None) -> None:
        self.name = f"replica {number}"
        self.data = data
        self.url = f"http://127.0.0.1:{_API_PORT + number - 1}"
        self.process: Process | None = None
        self.source = source
        self._listen = ("--listen", f"127.0.0.1:{_API_PORT + number - 1}")
        self._agent_listen = ("--agent-listen", f"{NETWORK}.{number}:{_AGENT_PORT}")
        text = f"[database]\nconnection = {database}\n[network]\noverlay = true\n{settings}"
        (data / "higgins.conf").write_text(text)

    def options(self) -> tuple[str, ...]:
        return ("--data", str(self.data), "--config-file", str(self.data / "higgins.conf"))

    def start(self) -> None:
        words = ("api", *self.options(), *self._listen, *self._agent_listen)
        self.process = Process(self.data / "api.log", *words, source=self.source)
        self.process.says(r"Higgins serves http://\S+/v1")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def token(self) -> str:
        done = command("host", "token", *self.options(), "--ttl", "600")
        assert done.returncode == 0, done.stderr
        found = re.search(r"^Token: +(\S+)$", done.stdout, re.MULTILINE)
        assert found, done.stdout
        return found.group(1)

    def credentials(self) -> str:
        """What the first user sends as ``Authorization``."""
        text = (self.data / "openrc").read_text()
        user, password = (re.search(rf"OS_{name}=(\S+)", text) for name in ("USERNAME", "PASSWORD"))
        assert user and password, text
        return f"Basic {base64.b64encode(f'{user.group(1)}:{password.group(1)}'.encode()).decode()}"


class ChaosCloud:
    """All of it, while it stands."""

    def __init__(self, database: Database, replicas: list[Replica], machines: list[Machine]) -> None:
        self.database, self.replicas, self.machines = database, replicas, machines
        self.network = ""  # the uuid of the second network

    def logs(self) -> Iterator[tuple[str, str]]:
        """What each process wrote, by its name."""
        for replica in self.replicas:
            yield replica.name, (replica.data / "api.log").read_text(errors="replace")
        for one in self.machines:
            yield f"agent {one.name}", (one.data / "agent.log").read_text(errors="replace")

    async def look(self, containers: list[dict[str, Any]]) -> Found:
        """What is there, beside the ``containers`` that the API shows. Hosts are to have their engines and cables."""
        store = open_store(self.database.url, threads=2)
        try:
            report = await status.report(Cloud(store, Fernet.generate_key()))
        finally:
            await store.close()
        return Found(
            shown=tuple(self._shown(one) for one in containers),
            hosts={one.name: held(one) for one in self.machines},
            differences=tuple(f"{one.kind} {one.name}: {one.says}" for one in report.differences),
            restless=report.backlog + report.moving,
        )

    def _shown(self, view: dict[str, Any]) -> Shown:
        ports = [entry["port"] for entries in view["addresses"].values() for entry in entries]
        return Shown(
            uuid=view["uuid"],
            name=view["name"],
            status=view["status"],
            reason=view["status_reason"],
            host=view["host"],
            beside=self.network in view["addresses"],
            ports=tuple(wires.port_name(one) for one in ports),
        )

    def left(self) -> list[str]:
        """What is there though all was deleted: there should be nothing."""
        found = [f"host {one.name} has {what}" for one in self.machines for what in left_on(one)]
        engine = sa.create_engine(self.database.url, poolclass=sa.NullPool)
        try:
            with engine.connect() as conn:
                for table in (workload, container, port, volume, core, attachment):
                    count = conn.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
                    found += [f"the database has {count} rows of {table.name}"] if count else []
                claims = sa.select(
                    host.c.name, host.c.containers, host.c.cpu_used, host.c.memory_used, host.c.disk_used
                )
                for name, *claimed in conn.execute(claims):
                    found += [f"host {name} has claims: {claimed}"] if any(abs(one) > 1e-4 for one in claimed) else []
        finally:
            engine.dispose()
        return found


def held(one: Machine) -> Held:
    """What a host's engine runs and keeps, and the ports that it has wired."""
    rows = [row.split() for row in one.engine.command("ps", "--all", "--format", _ROW).splitlines()]
    mine = [(uuid, state) for kind, uuid, state in rows if kind == "container"]
    return Held(
        running=tuple(uuid for uuid, state in mine if state == "running"),
        others=tuple(uuid for uuid, state in mine if state != "running"),
        ports=frozenset(name for name in interfaces(one) if wires.is_port_name(name)),
    )


def interfaces(one: Machine) -> list[str]:
    """The interfaces of Higgins in a host's namespace."""
    links = json.loads(_within(one, "ip", "-json", "link"))
    prefixes = (wires.BRIDGE_PREFIX, wires.PORT_PREFIX, wires.TUNNEL_PREFIX, wires.UNFINISHED_PREFIX)
    return [link["ifname"] for link in links if link["ifname"].startswith(prefixes)]


def left_on(one: Machine) -> Iterator[str]:
    """What a host has that belongs to no workload any more; the sandboxes made ahead are no leak."""
    rows = [row.split() for row in one.engine.command("ps", "--all", "--format", _ROW).splitlines()]
    for kind, uuid, state in rows:
        if kind != "sandbox":
            yield f"{kind} {uuid}, which is {state}"
    sandboxes = sum(kind == "sandbox" for kind, _, _ in rows)
    if sandboxes > SPARES:
        yield f"{sandboxes} sandboxes, {SPARES} of them made ahead"
    for name in interfaces(one):
        yield f"interface {name}"
    for entry in json.loads(_within(one, "nft", "-j", "list", "sets"))["nftables"]:
        if elements := entry.get("set", {}).get("elem"):
            yield f"{len(elements)} elements in the set {entry['set']['name']}"
    for path in one.data.rglob("*"):
        if _UUID.fullmatch(path.name.partition(".")[0]):
            yield str(path.relative_to(one.data))


def _within(one: Machine, *words: str) -> str:
    return subprocess.run([*one.within, *words], check=True, capture_output=True, text=True).stdout


@contextmanager
def named(addresses: list[str]) -> Iterator[None]:
    """The control plane's name leads to these addresses, in this mount namespace, as long as the block lasts."""
    with tempfile.NamedTemporaryFile("w", prefix="hosts") as file:
        file.write(Path("/etc/hosts").read_text() + "".join(f"\n{one} {CONTROL}\n" for one in addresses))
        file.flush()
        Path(file.name).chmod(0o644)
        subprocess.run(["mount", "--bind", file.name, "/etc/hosts"], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "/etc/hosts"], check=True)


@contextmanager
def chaos_cloud(
    busybox: Path, names: tuple[str, ...] = NAMES, settings: str = "", source: Path | None = None
) -> Iterator[ChaosCloud]:
    """The cloud; it and all that is in it ends with the block. ``settings`` go into the replicas' configuration.

    With ``source`` all of it is the version whose packages lie there, and the second replica is not started yet.
    """
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="chaos"))
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        directories = Directories(root)
        database = Database(directories)
        stack.callback(database.close)
        stack.enter_context(bridge())
        ip("address", "add", f"{NETWORK}.2/24", "dev", BRIDGE)
        stack.enter_context(named([f"{NETWORK}.1", f"{NETWORK}.2"]))
        first, second = (Replica(n, directories.mktemp("api"), database.url, settings, source) for n in (1, 2))
        for one in (first, second):
            stack.callback(one.stop)
        first.start()
        for name in ("secret.key", "users", "openrc"):
            shutil.copy(first.data / name, second.data / name)
        if source is None:
            second.start()
        machines = []
        for number, name in enumerate(names, 11):
            made = stack.enter_context(machine(name, number, busybox))
            made.source = source
            made.start("--join", f"https://{CONTROL}:{_AGENT_PORT}", "--token", first.token(), *SPARE)
            machines.append(made)
        yield ChaosCloud(database, [first, second], machines)
