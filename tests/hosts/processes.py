"""A small cloud on one machine: a control plane, and hosts that are network namespaces, each with its own engine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.engines.docker import DockerEngine
from tests.networks.namespaces import Namespace
from tests.system.client import PATIENCE

#: The network between the control plane (.1) and hosts.
NETWORK = "192.0.2"
BRIDGE = "hgtest"
OVERLAY = "[network]\noverlay = true\n"


def wait_for(claim: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


class Process:
    """A command of Higgins while it runs; its output in a file. ``source`` is where another version's packages lie."""

    def __init__(self, log: Path, *command: str, within: tuple[str, ...] = (), source: Path | None = None) -> None:
        self._log = log
        self._from = len(self.log())
        with log.open("ab") as out:
            whole = [*within, sys.executable, "-m", "higgins.cli.main", *command]
            environment = os.environ if source is None else {**os.environ, "PYTHONPATH": str(source)}
            self._process = subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def says(self, pattern: str) -> str:
        """Wait until it says this; the first group of the pattern."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.log()[self._from :])) is None:
            assert self._process.poll() is None, f"it ended: {self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"it does not say {pattern!r}: {self.log()[-3000:]}"
            time.sleep(0.05)
        return found.group(1) if found.groups() else found.group()

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(timeout=PATIENCE)


def command(*words: str, within: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A command of Higgins, run to its end."""
    whole = [*within, sys.executable, "-m", "higgins.cli.main", *words]
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=PATIENCE)


class ControlPlane:
    """``higgins api`` with its data directory."""

    def __init__(self, data: Path, settings: str = OVERLAY, listen: str = "127.0.0.1:0") -> None:
        self.data = data
        self.url = ""
        self.process: Process | None = None
        self._listen, self._agent_listen = listen, f"{NETWORK}.1:0"
        (data / "higgins.conf").write_text(settings)

    def start(self) -> None:
        """Serve, where it did before if it did."""
        listen = ("--listen", self._listen, "--agent-listen", self._agent_listen)
        self.process = Process(self.data / "api.log", "api", *self._options(), *listen)
        self.url = self.process.says(r"Agents are served at (https://\S+[0-9])")
        self._agent_listen = self.url.removeprefix("https://")
        self._listen = self.process.says(r"Higgins serves http://(\S+)/v1")

    def _options(self) -> tuple[str, ...]:
        return ("--data", str(self.data), "--config-file", str(self.data / "higgins.conf"))

    def restart(self, *, crash: bool) -> None:
        """End it and start it again where it was."""
        assert self.process is not None
        if crash:
            self.process.kill()
        else:
            assert self.process.stop() == 0
        self.start()

    def token(self) -> str:
        done = command("host", "token", *self._options(), "--ttl", "600")
        assert done.returncode == 0, done.stderr
        found = re.search(r"^Token: +(\S+)$", done.stdout, re.MULTILINE)
        assert found, done.stdout
        return found.group(1)

    def revoke(self, name: str) -> None:
        done = command("host", "revoke", name, *self._options())
        assert done.returncode == 0, done.stderr

    def drain(self, name: str, verb: str = "drain") -> str:
        """What the command says."""
        done = command("host", verb, name, *self._options())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> Any:
        done = command("status", "--json", *self._options())
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def openrc(self) -> dict[str, str]:
        read = ["sh", "-c", '. "$1" && env -0', "sh", str(self.data / "openrc")]
        shell = subprocess.run(read, env={"PATH": os.environ["PATH"]}, check=True, capture_output=True, text=True)
        return dict(entry.split("=", 1) for entry in shell.stdout.split("\0") if entry)


class Machine:
    """A network namespace on the network, with an engine in it and an agent while that runs."""

    def __init__(
        self, name: str, namespace: Namespace, engine: DockerEngine, data: Path, link: str, settings: str
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.link = link
        self.engine = engine
        self.data = data
        self.within = ("nsenter", f"--net={namespace.path}")
        self.agent: Process | None = None
        self.source: Path | None = None  # of the agent's packages, where they are another version's
        (data / "higgins.conf").write_text(f"[DEFAULT]\nhost = {name}\n{settings}")

    def options(self) -> list[str]:
        return [
            *("--data", str(self.data), "--config-file", str(self.data / "higgins.conf")),
            *("--runtime", "docker", "--docker-url", self.engine.url),
        ]

    def join(self, url: str, token: str) -> subprocess.CompletedProcess[str]:
        return command("agent", "join", url, "--token", token, *self.options(), within=self.within)

    def start(self, *more: str) -> Process:
        words = ("agent", *self.options(), *more)
        self.agent = Process(self.data / "agent.log", *words, within=self.within, source=self.source)
        self.agent.says(f"Higgins keeps host {self.name} for https://")
        return self.agent

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Its network is cut for as long as the block lasts."""
        ip("link", "set", self.link, "down")
        try:
            yield
        finally:
            ip("link", "set", self.link, "up")

    def containers(self) -> set[str]:
        """The ids of tenants' containers that run here; sandboxes, of which some are made ahead, are not counted."""
        rows = self.engine.command("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}").splitlines()
        running = dict(row.split(" ", 1) for row in rows)
        return {ident for ident, name in running.items() if not name.startswith("higgins-sandbox-")}

    def stop(self) -> None:
        """End the agent. What it wired ends with the namespace."""
        if self.agent is not None:
            self.agent.stop()


@contextmanager
def machine(name: str, number: int, busybox: Path, settings: str = OVERLAY) -> Iterator[Machine]:
    """A machine at ``NETWORK``.``number``; it and all that is in it ends with the block."""
    with ExitStack() as stack:
        namespace = Namespace()
        stack.callback(namespace.close)
        far = f"hg{number}"
        ip("link", "add", far, "type", "veth", "peer", "name", "up0", "netns", str(namespace.pid))
        # A process left in the namespace would keep it, and with it this end, for the tests that come after.
        stack.callback(ip, "link", "delete", far)
        ip("link", "set", far, "master", BRIDGE, "up")
        namespace.run("ip", "address", "add", f"{NETWORK}.{number}/24", "dev", "up0")
        namespace.run("ip", "link", "set", "up0", "up")
        root = Path(tempfile.mkdtemp(prefix=f"h{number}"))  # short: the path of a Unix socket has 108 bytes at most
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        engine = DockerEngine(root, within=("nsenter", f"--net={namespace.path}"))
        stack.callback(engine.kill)
        engine.start()
        engine.command("load", "--input", str(busybox))
        data = root / "higgins"
        data.mkdir()
        made = Machine(name, namespace, engine, data, far, settings)
        stack.callback(engine.close)
        stack.callback(made.stop)
        yield made


@contextmanager
def bridge() -> Iterator[None]:
    """The network's switch, with the control plane's address on it."""
    ip("link", "add", BRIDGE, "type", "bridge")
    try:
        ip("address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        yield
    finally:
        ip("link", "delete", BRIDGE)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
