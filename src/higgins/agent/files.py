"""The files that tell a container its name, its neighbours and its name servers: one set for each sandbox.

They are bound into every member, so ``hosts`` is rewritten in place (the same inode) when a neighbour comes or goes.
Members only read them: what one writes would fill the host's disk, past every limit of the container's, and its
neighbours would believe it. Users of the host cannot come to them.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from higgins.runtimes.base import Bind

#: File → where a container sees it.
DESTINATIONS = {"hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf", "hostname": "/etc/hostname"}
_LOCAL = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def hosts(names: Mapping[str, tuple[str, ...]]) -> str:
    """The content of /etc/hosts; addresses without a name are left out."""
    return _LOCAL + "".join(f"{address}\t{' '.join(own)}\n" for address, own in sorted(names.items()) if own)


def resolv_conf(servers: tuple[str, ...]) -> str:
    return "".join(f"nameserver {server}\n" for server in servers)


def name_servers(text: str) -> tuple[str, ...]:
    """Those of a resolv.conf that can be reached from another network namespace: not those on loopback."""
    words = [line.split() for line in text.splitlines()]
    servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return tuple(server for server in servers if not server.startswith("127.") and server != "::1")


class Files:
    """The sets of files under ``root``, one directory for each sandbox."""

    def __init__(self, root: Path, servers: tuple[str, ...]) -> None:
        self._root = root
        self._servers = servers
        self._written: dict[str, dict[str, str]] = {}  # of each sandbox, what this process wrote

    def write(
        self, workload: str, hostname: str, names: Mapping[str, tuple[str, ...]], servers: tuple[str, ...] = ()
    ) -> None:
        """Write the set, or of one that this process wrote what is another by now. Raises OSError.

        The host's name servers are named where the sandbox has none of its own, its ``servers``.
        """
        directory = self._root / workload
        before = self._written.pop(workload, {}) if self.there(workload) else {}
        if not before:
            directory.mkdir(parents=True, exist_ok=True)
            for private in (self._root, directory):
                private.chmod(0o700)
        texts = {
            "hosts": hosts(names),
            "resolv.conf": resolv_conf(servers or self._servers),
            "hostname": f"{hostname}\n" if hostname else "",
        }
        for name, text in texts.items():
            if before.get(name) != text:
                (directory / name).write_text(text)
                (directory / name).chmod(0o644)  # in the container all users read them, whatever the agent's umask
        self._written[workload] = texts

    def binds(self, workload: str, taken: frozenset[str]) -> tuple[Bind, ...]:
        """How a member sees them, except where its owner mounts something of their own."""
        directory = self._root / workload
        return tuple(
            Bind(str(directory / name), destination, read_only=True)
            for name, destination in DESTINATIONS.items()
            if destination not in taken
        )

    def remove(self, workload: str) -> None:
        """Done already is done. Raises OSError."""
        self._written.pop(workload, None)
        if self.there(workload):
            shutil.rmtree(self._root / workload)

    def there(self, workload: str) -> bool:
        return (self._root / workload).is_dir()

    def all(self) -> frozenset[str]:
        """The workloads that have files here."""
        return frozenset(path.name for path in self._root.iterdir()) if self._root.is_dir() else frozenset()
