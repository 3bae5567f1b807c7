"""Image registries, one that asks for a password and one that does not, on the loopback of the test's namespace."""

import contextlib
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from higgins.runtimes.base import RegistryAuth
from tests.engines import Daemon, need, wait_until

CONFIG = """
version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {root}/data}}}}
http: {{addr: "{address}", secret: tests}}
"""
ASKS = """
auth: {{htpasswd: {{realm: tests, path: {root}/htpasswd}}}}
"""


class Registry:
    """A registry; ``image`` is a busybox in it, and ``auth`` who may read it."""

    def __init__(self, root: Path, *, asks: bool = True) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.image = f"{self.address}/library/busybox:1"
        self.auth = RegistryAuth(username="reader", password="right", domain=self.address)
        password = bcrypt.hashpw(self.auth.password.encode(), bcrypt.gensalt(4)).decode()
        (root / "htpasswd").write_text(f"{self.auth.username}:{password}\n")
        config = CONFIG + (ASKS if asks else "")
        (root / "config.yml").write_text(config.format(root=root, address=self.address))
        self._daemon = Daemon(["docker-registry", "serve", str(root / "config.yml")], root / "log")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def start(self, archive: Path) -> None:
        self._daemon.start()
        wait_until(self._answers, "the registry does not answer")
        copy = ["skopeo", "copy", "--insecure-policy", "--quiet", "--dest-tls-verify=false"]
        copy += ["--dest-creds", f"{self.auth.username}:{self.auth.password}"]
        subprocess.run([*copy, f"docker-archive:{archive}", f"docker://{self.image}"], check=True, timeout=60)

    def stop(self) -> None:
        self._daemon.kill()


@contextlib.contextmanager
def _serving(made: Registry, archive: Path) -> Iterator[Registry]:
    try:
        made.start(archive)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def registry(
    own_namespaces: None, busybox_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    need("docker-registry", "skopeo")
    with _serving(Registry(tmp_path_factory.mktemp("registry")), busybox_archive) as made:
        yield made


@pytest.fixture(scope="session")
def open_registry(
    own_namespaces: None, busybox_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """A registry that anybody may read."""
    need("docker-registry", "skopeo")
    with _serving(Registry(tmp_path_factory.mktemp("registry"), asks=False), busybox_archive) as made:
        yield made
