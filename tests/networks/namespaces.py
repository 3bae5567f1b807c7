"""Network namespaces with real sockets in them, for tests that send real packets."""

import contextlib
import ctypes
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE = 30.0  # seconds until a claim that should hold is given up
SILENCE = 0.7  # seconds without an answer that count as none
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace, held by a process that sleeps; it ends with ``close``."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self.pid = self._holder.pid
        self.path = f"/proc/{self.pid}/ns/net"

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()

    def run(self, *command: str) -> str:
        return subprocess.run(
            ["nsenter", f"--net={self.path}", *command], check=True, capture_output=True, text=True
        ).stdout

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket stays in the namespace that its thread was in: so a short-lived thread makes it there."""
        made: list[socket.socket] = []

        def make() -> None:
            with Path(self.path).open() as namespace:
                if _libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    return
            made.append(socket.socket(family, kind, protocol))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        assert made, f"no socket in {self.path}"
        return made[0]


class Host(Namespace):
    """The namespace that the test itself is in."""

    def __init__(self) -> None:
        self.path = "/proc/thread-self/ns/net"

    def close(self) -> None:
        pass

    def run(self, *command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return socket.socket(family, kind, protocol)


@contextlib.contextmanager
def listening(place: Namespace, *ports: int) -> Iterator[None]:
    """TCP servers in the namespace that tell each client the address it came from."""
    servers = [place.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in ports]
    for server, port in zip(servers, ports, strict=True):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", port))
        server.listen()

    def serve(server: socket.socket) -> None:
        while True:
            try:
                client, address = server.accept()
            except OSError:  # shut down: the test has ended
                return
            with client:
                client.sendall(address[0].encode())

    threads = [threading.Thread(target=serve, args=(server,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for server in servers:
            server.close()


def seen_as(source: Namespace, address: str, port: int, patience: float) -> str | None:
    """Connect once; the address under which the server sees us, None if there is no connection."""
    with source.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(patience)
        try:
            client.connect((address, port))
            return client.recv(100).decode()
        except OSError:
            return None


def reaches(source: Namespace, address: str, port: int) -> str:
    """Claim that a connection comes about; the address under which the server sees it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        seen = seen_as(source, address, port, 3.0)
        if seen:
            return seen
        time.sleep(0.05)
    raise AssertionError(f"{address}:{port} was not reached in {PATIENCE} s")


def is_kept_from(source: Namespace, address: str, port: int) -> bool:
    """Whether nothing answers."""
    return seen_as(source, address, port, SILENCE) is None


def pings(source: Namespace, address: str, seconds: int) -> bool:
    """Whether an echo comes back in that time."""
    probe = ["busybox", "ping", "-c", "1", "-W", str(seconds), "-w", str(seconds), address]
    command = ["nsenter", f"--net={source.path}", *probe]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "ping statistics" in ended.stdout, ended.stderr
    return ended.returncode == 0


def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.02)
