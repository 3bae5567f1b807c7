"""``make run``, ``stop``, ``clean`` and the rest, for real: a fresh checkout, an engine that the scripts start.

Only the Python environment is this one, so that nothing is downloaded.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import need, wait_until

ROOT = Path(__file__).parent.parent.parent
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--propagation", "private")
KEPT = ("Makefile", "pyproject.toml", "README.md", "scripts", "src")


class Checkout:
    """A copy of the project with ``var/`` of its own, in namespaces of its own, as if on another machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.var = root / "var"
        for name in KEPT:
            source, copy = ROOT / name, root / name
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy2(source, copy)
        ready = root / "ready"
        prepare = f"mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up && touch {ready} && exec sleep infinity"
        self._machine = subprocess.Popen([*NAMESPACES, "--fork", "--kill-child", "--mount-proc", "sh", "-c", prepare])
        wait_until(ready.exists, "the namespaces were not made")
        [first] = Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children").read_text().split()
        self._enter = ["nsenter", "--target", first, "--net", "--mount", "--pid", f"--wdns={root}"]

    def run(self, *command: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """A program, on that machine."""
        environment = os.environ | {"HIGGINS_VENV": sys.prefix, "PYTHON": sys.executable}
        for name in ("DOCKER_HOST", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "SUDO_UID"):
            environment.pop(name, None)
        enter = [*self._enter, *command]
        return subprocess.run(enter, env=environment, stdin=subprocess.DEVNULL, text=True, timeout=150, **options)

    def make(self, *arguments: str, ok: bool = True) -> str:
        """What ``make`` says. It must end well, or must not."""
        # To a file and not to a pipe: what goes on in the background keeps its output open.
        said = self.root / "said"
        with said.open("w") as out:
            done = self.run("make", "--no-print-directory", *arguments, stdout=out, stderr=out)
        text = said.read_text()
        assert (done.returncode == 0) is ok, text + self._logs()
        return text

    def traces(self) -> dict[str, list[str]]:
        """What workloads leave in the kernel: interfaces, rules, namespaces, mounts, loop devices."""
        commands = {
            "interfaces": ["ip", "-brief", "link"],
            "rules": ["nft", "list", "ruleset"],
            "namespaces": ["ip", "netns"],
            "mounts": ["findmnt", "--noheadings", "--list", "--output", "TARGET"],
            "loops": ["losetup", "--all"],
        }
        said = {name: self.run(*command, check=True, capture_output=True).stdout for name, command in commands.items()}
        found = {name: text.splitlines() for name, text in said.items()}
        # These two also show what is there because of other tests.
        found["mounts"] = [line for line in found["mounts"] if line.startswith((str(self.root), "/run/"))]
        found["loops"] = [line for line in found["loops"] if str(self.root) in line]
        return found

    def listens(self, port: int) -> bool:
        """Whether something listens there."""
        return f":{port} " in self.run("ss", "-Hltn", check=True, capture_output=True).stdout

    def close(self) -> None:
        """With its first process everything on that machine ends."""
        self._machine.kill()
        self._machine.wait()
        shutil.rmtree(self.root)

    def _logs(self) -> str:
        logs = [self.var / "higgins.log", self.var / "dockerd.log"]
        return "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists())


@pytest.fixture
def checkout(own_namespaces: None) -> Iterator[Checkout]:
    need("make", "dockerd", "docker", "busybox", "catatonit", "nft", "ip", "nsenter", "findmnt")
    copy = Checkout(Path(tempfile.mkdtemp(prefix="checkout")))
    yield copy
    copy.close()


def processes(words: str) -> set[str]:
    """The processes whose command line holds these words."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words in line:
            found.add(entry.name)
    return found


def test_make_run_serves_a_first_container_and_make_clean_removes_all_of_it(checkout: Checkout) -> None:
    before = checkout.traces()
    first = checkout.make("run")
    assert re.search(r"Hello from \S+, a container on Higgins", first), first
    assert "Higgins serves http://127.0.0.1:9517/v1" in first
    assert (checkout.var / "openrc").stat().st_mode & 0o777 == 0o600
    hello = processes("Hello from")
    assert len(hello) == 1

    assert "Higgins runs already" in checkout.make("run")

    checkout.make("stop")
    assert processes("Hello from") == hello
    assert not processes(f"up --data {checkout.var}")
    assert "does not run" in checkout.make("stop")

    again = checkout.make("run")
    assert "Starting Higgins" in again and "Running a first container" not in again
    assert processes("Hello from") == hello

    checkout.make("clean")
    assert not checkout.var.exists()
    assert not processes("Hello from")
    assert not processes(str(checkout.var))
    assert checkout.traces() == before
    assert "nothing to remove" in checkout.make("clean")


def test_an_operator_is_told_why_it_does_not_start(checkout: Checkout) -> None:
    occupant = "import socket, time; server = socket.create_server(('127.0.0.1', 9517)); time.sleep(1000)"
    checkout.run("sh", "-c", f'setsid {sys.executable} -c "{occupant}" >/dev/null 2>&1 &')
    wait_until(lambda: checkout.listens(9517), "nothing listens on the port")
    said = checkout.make("run", ok=False)
    assert "higgins: Higgins does not start" in said and "address already in use" in said
    assert "Traceback" not in said


def test_a_stale_pid_file_ends_nobody_else(checkout: Checkout) -> None:
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        checkout.var.mkdir()
        (checkout.var / "higgins.pid").write_text(f"{bystander.pid}\n")
        assert "does not run" in checkout.make("stop")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_make_help_lists_every_target(checkout: Checkout) -> None:
    targets = re.findall(r"^([a-z-]+):", (checkout.root / "Makefile").read_text(), re.MULTILINE)
    said = checkout.make("help")
    assert all(f"make {target} " in said for target in targets), said
