"""Containers on containerd (1.6 to 2.x) over the Kubernetes Container Runtime Interface, v1.

What was decided, and why:

* **The network is wired by Higgins, not by the engine.** Every sandbox has a network namespace of its own, and the
  engine's CNI configuration is one ``loopback`` plugin that leaves nothing but ``lo`` (``docs/engines.md`` has it).
* **Nothing is asked of the engine that the agent does better on all engines**: no restart policy, no health check.
* **A stopped container starts again with its files.** CRI cannot start an exited container, so a new one is made from
  the same specification, and takes over the old one's snapshot (``restart``).
* **What CRI does not have** (pause, signals, events that older engines lack, limits on processes, mounts of a stopped
  container's root, commit) is asked of containerd's own API on the same socket (``containerd``). An engine that is
  not containerd answers ``NotImplementedHere`` to these.
"""

from pathlib import Path

from higgins.runtimes.base import Runtime
from higgins.runtimes.cri import users
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.driver import CriRuntime


def open_cri(
    endpoint: str = "unix:///run/containerd/containerd.sock",
    *,
    logs: Path = Path("/var/lib/higgins/logs"),
    log_bytes: int = 64 << 20,
    cgroup_parent: str = "",
    user_ids: str = "",
    readers: Path | None = None,
) -> Runtime:
    """A driver for the engine at ``endpoint``; to be called where an event loop runs, which its connection belongs to.

    The engine is first spoken to by the first verb.

    ``logs`` is a directory that the engine can write to as well; each sandbox gets a directory in it,
    and a log that has more than ``log_bytes`` is begun anew, one older part being kept. The pause image
    is the engine's own setting (``sandbox_image``): CRI has no way to ask for one. ``cgroup_parent`` as CRI takes it:
    a path with the cgroupfs driver, ``….slice`` with systemd's. ``user_ids`` are the host's ids for user namespaces
    (first:count), none if empty; raises ``EngineError`` for what is no such range. ``readers`` is the file in which it
    is kept who may use which image; without one that is forgotten with the process.
    """
    ids = users.parse(user_ids)
    return CriRuntime(
        Client(endpoint), logs=logs, log_bytes=log_bytes, cgroup_parent=cgroup_parent, ids=ids, readers=readers
    )
