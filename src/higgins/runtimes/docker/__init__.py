"""Docker Engine, and Podman through its compatible socket, as a container runtime.

A workload's sandbox is a container ``higgins-sandbox-<uuid>`` without network whose one process only waits; its members
are containers ``higgins-<uuid>-<incarnation>`` that join its network and IPC namespaces. Labels under ``org.higgins.``
say what belongs to what, and are all that a restarted agent needs.
"""

from pathlib import Path

from higgins.runtimes.base import Runtime
from higgins.runtimes.docker.client import Client
from higgins.runtimes.docker.driver import DockerRuntime
from higgins.runtimes.docker.images import Images

__all__ = ["DockerRuntime", "open_docker"]


def open_docker(
    url: str = "unix:///var/run/docker.sock",
    *,
    pause_image: str | None = None,
    pause_binary: str = "catatonit",
    readers: Path | None = None,
) -> Runtime:
    """A driver for the engine at ``url``; to be called where an event loop runs, to which its connections belong.

    The engine is first spoken to, and the version of its API agreed, by the first verb: it may be down until then.

    ``pause_image`` names an image whose ``/pause -P`` waits for ever; without it one is built from ``pause_binary``, a
    static program of this host, found on the PATH. ``readers`` is the file in which it is kept who may use which
    image; without one that is forgotten with the process. Raises ``EngineError`` where it cannot be read.
    """
    client = Client(url)
    return DockerRuntime(client, Images(client, pause_image, pause_binary, readers))
