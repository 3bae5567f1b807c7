"""``make run``, ``stop``, ``clean`` and the rest, for real: a fresh checkout, an engine that the scripts start.

Only the Python environment is this one, so that nothing is downloaded.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need

ROOT = Path(__file__).parent.parent.parent
KEPT = ("Makefile", "pyproject.toml", "README.md", "scripts", "src")


class Checkout:
    """A copy of the project, with ``var/`` of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.var = root / "var"
        for name in KEPT:
            source, copy = ROOT / name, root / name
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy2(source, copy)

    def make(self, *arguments: str, ok: bool = True) -> str:
        """What ``make`` says. It must end well, or must not."""
        environment = os.environ | {
            "HIGGINS_VENV": sys.prefix,
            "PYTHON": sys.executable,
            "HIGGINS_LISTEN": "127.0.0.1:9517",
        }
        for name in ("DOCKER_HOST", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "SUDO_UID"):
            environment.pop(name, None)
        # To a file and not to a pipe: what goes on in the background keeps its output open.
        said = self.root / "said"
        with said.open("w") as out:
            command = ["make", "--no-print-directory", *arguments]
            done = subprocess.run(
                command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=150
            )
        text = said.read_text()
        assert (done.returncode == 0) is ok, text + self._logs()
        return text

    def _logs(self) -> str:
        logs = [self.var / "higgins.log", self.var / "dockerd.log"]
        return "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists())


@pytest.fixture
def checkout(own_namespaces: None) -> Iterator[Checkout]:
    need("make", "dockerd", "docker", "busybox", "catatonit", "nft", "ip", "openstack")
    root = Path(os.path.realpath(os.environ["TMPDIR"])) / "checkout"
    root.mkdir()
    copy = Checkout(root)
    yield copy
    copy.make("clean")
    shutil.rmtree(root)


def traces() -> dict[str, str]:
    """What a workload leaves in the kernel: interfaces, rules, mounts, named namespaces."""
    commands = {
        "interfaces": ["ip", "-brief", "link"],
        "rules": ["nft", "list", "ruleset"],
        "namespaces": ["ip", "netns"],
    }
    found = {
        name: subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name, command in commands.items()
    }
    found["mounts"] = "\n".join(
        sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    )
    found["loops"] = subprocess.run(["losetup", "-a"], check=True, capture_output=True, text=True).stdout
    return found


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
    before = traces()
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
    assert traces() == before
    assert "nothing to remove" in checkout.make("clean")


def test_an_operator_is_told_why_it_does_not_start(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 9517)):
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
