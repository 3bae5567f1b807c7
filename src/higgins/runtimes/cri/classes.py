"""Members of a runtime class in a sandbox that is held by the engine's default runtime.

A runtime that brings a kernel of its own (gVisor, Kata) reads the interfaces of its network namespace when it starts.
CRI would start it with the sandbox, before anything is plugged into the namespace. So the sandbox is made with the
default runtime, and each member of another class is handed over to that class' runtime after CRI has made it and
before it is started: its record in containerd is replaced by one with the other runtime, and its OCI specification
loses the annotations by which such runtimes would look for the sandbox that it is a part of. It is on its own then, in
the network namespace of the sandbox, and its kernel starts when everything is plugged. Docker does the same without
being asked.

containerd lets nobody change the runtime of a record, so that it is removed and made again, with a lease on its
snapshot meanwhile. An agent that ends in between leaves a container without a record, which CRI cannot even remove:
``mend`` gives it one for that, and the next start makes the container anew. Nothing is lost: it has never run, and has
not taken over an older one's files yet.

How to run a class is the engine's own setting, the table ``containerd.runtimes.<name>`` of its configuration.
"""

import json
import uuid as uuids
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cri_api.v1 import api_pb2 as cri
from msgspec import Struct, field

from higgins.model.errors import ContainerGone, EngineError
from higgins.runtimes.base import EngineContainer
from higgins.runtimes.cri.config import container_spec
from higgins.runtimes.cri.containerd import Containerd, entries, message

if TYPE_CHECKING:
    from higgins.runtimes.cri.client import Client

#: By these a runtime knows what part of which sandbox a container is.
_PART_OF = ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id")
#: containerd's name of an OCI specification's type.
_SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
#: How long a lease outlives an agent that could not end it.
_LEASE = timedelta(minutes=10)


class Handler(Struct, frozen=True):
    """A table ``containerd.runtimes.<name>``: the shim, and what it is told."""

    shim: str
    options: dict[str, Any] = field(default_factory=dict)


class Handlers(Struct, frozen=True):
    """Those of the engine. ``pause_image`` is what sandboxes run, empty where that is not told with them.

    ``user_namespaces`` are the names of those that can give sandboxes one; the empty name is the default's.
    """

    default: str
    named: dict[str, Handler]
    pause_image: str
    user_namespaces: frozenset[str] = frozenset()


def handlers(status: cri.StatusResponse) -> Handlers:
    """From the JSON that containerd gives with its verbose status. Pure."""
    settings = json.loads(status.info.get("config") or "{}")
    engine = settings.get("containerd") or {}
    named = {
        name: Handler(str(table.get("runtimeType") or ""), dict(table.get("options") or {}))
        for name, table in (engine.get("runtimes") or {}).items()
    }
    able = frozenset(one.name for one in status.runtime_handlers if one.features.user_namespaces)
    default = str(engine.get("defaultRuntimeName") or "runc")
    return Handlers(default, named, str(settings.get("sandboxImage") or ""), able)


def options(handler: Handler) -> tuple[str, bytes]:
    """What the shim is told, as containerd writes it: the type of the message and the message. Pure."""
    given = handler.options
    if handler.shim.startswith("io.containerd.runc."):
        told = message["RuncOptions"](
            no_pivot_root=bool(given.get("NoPivotRoot")),
            no_new_keyring=bool(given.get("NoNewKeyring")),
            shim_cgroup=given.get("ShimCgroup", ""),
            binary_name=given.get("BinaryName", ""),
            root=given.get("Root", ""),
            systemd_cgroup=bool(given.get("SystemdCgroup")),
        )
        return "containerd.runc.v1.Options", told.SerializeToString()
    if not given:
        return "", b""
    told = message["ShimOptions"](type_url=given.get("TypeUrl", ""), config_path=given.get("ConfigPath", ""))
    return "runtimeoptions.v1.Options", told.SerializeToString()


def on_its_own(spec: bytes, hostname: str) -> bytes:
    """An OCI specification without what makes the container a part of a sandbox. Pure.

    A kernel of its own takes the host name from here; others have the sandbox's namespace for it.
    """
    oci: dict[str, Any] = json.loads(spec)
    annotations: Mapping[str, str] = oci.get("annotations") or {}
    oci["annotations"] = {key: value for key, value in annotations.items() if key not in _PART_OF}
    if hostname:
        oci["hostname"] = hostname
    return json.dumps(oci).encode()


async def wanted(client: "Client", runtime: str | None) -> Handler | None:
    """What runs the container, None where that is how its sandbox runs.

    Raises ``EngineError`` for a runtime that the engine does not have.
    """
    if not runtime or not await client.is_containerd():
        return None
    held = await client.handlers()
    if runtime not in held.named:
        raise EngineError(f"The container engine of this host has no runtime {runtime}.")
    return None if runtime == held.default else held.named[runtime]


async def mend(client: "Client", container: cri.Container) -> bool:
    """Whether the container had lost its record in a handing over that was broken off.

    It has one again then, good for nothing but to let CRI remove the container.
    """
    if container.state != cri.CONTAINER_CREATED or not container_spec(container.annotations).runtime:
        return False
    if not await client.is_containerd():
        return False
    containerd = await client.containerd()
    try:
        await containerd.container(container.id)
    except ContainerGone:
        handlers = await client.handlers()
        record = message["Container"](id=container.id)
        record.runtime.name = handlers.named[handlers.default].shim
        record.spec.type_url, record.spec.value = _SPEC, b"{}"
        await _create(containerd, record)
        return True
    return False


async def hand_over(client: "Client", engine_id: str, spec: EngineContainer) -> None:
    """Let the container, which has had no task yet, be run by what its class says. Done already is done."""
    handler = await wanted(client, spec.runtime)
    if handler is None:
        return
    containerd = await client.containerd()
    record = await containerd.container(engine_id)
    kind, told = options(handler)
    now = record.runtime
    if (now.name, now.options.type_url, now.options.value) == (handler.shim, kind, told):
        return
    record.runtime.name = handler.shim
    record.runtime.options.type_url, record.runtime.options.value = kind, told
    record.spec.value = on_its_own(record.spec.value, spec.hostname)
    record.sandbox = ""
    async with _held(containerd, record):
        await containerd.ask("containers.v1.Containers/Delete", message["ContainerId"](id=engine_id), "Empty")
        await _create(containerd, record)


async def _create(containerd: Containerd, record: Any) -> None:
    request = message["OneContainer"](container=record)
    await containerd.ask("containers.v1.Containers/Create", request, "OneContainer")


@asynccontextmanager
async def _held(containerd: Containerd, record: Any) -> AsyncIterator[None]:
    """Keep the snapshot of a record that is away."""
    lease = f"higgins-class-{uuids.uuid4()}"
    expires = (datetime.now(UTC) + _LEASE).strftime("%Y-%m-%dT%H:%M:%SZ")
    request = message["Lease"](id=lease, labels=entries({"containerd.io/gc.expire": expires}))
    await containerd.ask("leases.v1.Leases/Create", request, "Empty")
    try:
        snapshot = message["Resource"](id=record.snapshot_key, type=f"snapshots/{record.snapshotter}")
        request = message["AddResource"](id=lease, resource=snapshot)
        await containerd.ask("leases.v1.Leases/AddResource", request, "Empty")
        yield
    finally:
        await containerd.ask("leases.v1.Leases/Delete", message["Lease"](id=lease), "Empty")
