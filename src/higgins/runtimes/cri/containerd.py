"""containerd's own API, for what CRI does not have. The same socket, the namespace ``k8s.io`` that CRI keeps to.

The messages are described here, field by field, instead of with generated code: only those that are needed, and only
their fields that are. Names and numbers are those of containerd's ``api/services/*/v1/*.proto``, which are the same
from 1.6 to 2.x.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, field_mask_pb2, message_factory

from higgins.model.errors import ContainerGone
from higgins.runtimes.cri.errors import translated

#: Seconds for a call that does nothing slow, and for the diff of a large root or a large layer.
_QUICK, _SLOW = 60, 1800
_NAMESPACE = (("containerd-namespace", "k8s.io"),)
_LIFE = 'namespace==k8s.io,topic~="^/(tasks|containers)/"'

#: message: {field: (number, type)}. A type is a scalar, the name of a message, or either with a ``*``: repeated.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Empty": {},
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "Mount": {"type": (1, "string"), "source": (2, "string"), "target": (3, "string"), "options": (4, "string*")},
    "Descriptor": {"media_type": (1, "string"), "digest": (2, "string"), "size": (3, "int64")},
    "Snapshot": {"snapshotter": (1, "string"), "key": (2, "string"), "parent": (3, "string"), "labels": (4, "Entry*")},
    "SnapshotInfo": {"name": (1, "string"), "parent": (2, "string")},
    "SnapshotStat": {"info": (1, "SnapshotInfo")},
    "Mounts": {"mounts": (1, "Mount*")},
    "Container": {
        "id": (1, "string"),
        "labels": (2, "Entry*"),
        "image": (3, "string"),
        "runtime": (4, "Runtime"),
        "spec": (5, ".google.protobuf.Any"),
        "snapshotter": (6, "string"),
        "snapshot_key": (7, "string"),
        "extensions": (10, "Extension*"),
        "sandbox": (11, "string"),
    },
    "Runtime": {"name": (1, "string"), "options": (2, ".google.protobuf.Any")},
    "Extension": {"key": (1, "string"), "value": (2, ".google.protobuf.Any")},
    "RuncOptions": {
        "no_pivot_root": (1, "bool"),
        "no_new_keyring": (2, "bool"),
        "shim_cgroup": (3, "string"),
        "binary_name": (6, "string"),
        "root": (7, "string"),
        "systemd_cgroup": (9, "bool"),
    },
    "ShimOptions": {"type_url": (1, "string"), "config_path": (2, "string")},
    "ContainerId": {"id": (1, "string")},
    "OneContainer": {"container": (1, "Container")},
    "UpdateContainer": {"container": (1, "Container"), "update_mask": (2, ".google.protobuf.FieldMask")},
    "Task": {"container_id": (1, "string"), "id": (2, "string"), "pid": (3, "uint32"), "status": (4, "int32")},
    "TaskId": {"container_id": (1, "string")},
    "Tasks": {"tasks": (1, "Task*")},
    "OneTask": {"process": (1, "Task")},
    "ProcessId": {"container_id": (1, "string"), "exec_id": (2, "string")},
    "Exec": {
        "container_id": (1, "string"),
        "stdin": (2, "string"),
        "stdout": (3, "string"),
        "stderr": (4, "string"),
        "terminal": (5, "bool"),
        "spec": (6, ".google.protobuf.Any"),
        "exec_id": (7, "string"),
    },
    "CloseIO": {"container_id": (1, "string"), "exec_id": (2, "string"), "stdin": (3, "bool")},
    "Resize": {
        "container_id": (1, "string"),
        "exec_id": (2, "string"),
        "width": (3, "uint32"),
        "height": (4, "uint32"),
    },
    "ExitStatus": {"exit_status": (1, "uint32")},
    "Kill": {"container_id": (1, "string"), "exec_id": (2, "string"), "signal": (3, "uint32"), "all": (4, "bool")},
    "Subscribe": {"filters": (1, "string*")},
    "Envelope": {"namespace": (2, "string"), "topic": (3, "string"), "event": (4, ".google.protobuf.Any")},
    "LifeEvent": {"container_id": (1, "string"), "id": (2, "string")},
    "Diff": {
        "left": (1, "Mount*"),
        "right": (2, "Mount*"),
        "media_type": (3, "string"),
        "ref": (4, "string"),
        "labels": (5, "Entry*"),
    },
    "DiffResult": {"diff": (3, "Descriptor")},
    "ReadContent": {"digest": (1, "string"), "offset": (2, "int64"), "size": (3, "int64")},
    "ContentPart": {"offset": (1, "int64"), "data": (2, "bytes")},
    "WriteContent": {
        "action": (1, "int32"),
        "ref": (2, "string"),
        "total": (3, "int64"),
        "expected": (4, "string"),
        "offset": (5, "int64"),
        "data": (6, "bytes"),
        "labels": (7, "Entry*"),
    },
    "ContentDigest": {"digest": (1, "string")},
    "Image": {"name": (1, "string"), "labels": (2, "Entry*"), "target": (3, "Descriptor")},
    "ImageName": {"name": (1, "string")},
    "OneImage": {"image": (1, "Image")},
    "Resource": {"id": (1, "string"), "type": (2, "string")},
    "AddResource": {"id": (1, "string"), "resource": (2, "Resource")},
    "Lease": {"id": (1, "string"), "labels": (3, "Entry*")},
}


def _message_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="higgins/containerd.proto",
        package="higgins.containerd",
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name, field_mask_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            scalar = f"TYPE_{kind.rstrip('*').upper()}"
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            if scalar in descriptor_pb2.FieldDescriptorProto.Type.keys():  # noqa: SIM118  an EnumTypeWrapper is no dict  # noqa: SIM118  an EnumTypeWrapper is no dict
                field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(scalar)
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = kind.rstrip("*") if kind.startswith(".") else f".{file.package}.{kind.rstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, field_mask_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in _MESSAGES
    }


message: dict[str, Any] = _message_classes()
_PAUSED = {4, 5}  # containerd.v1.types.Status: PAUSED, PAUSING


def entries(values: dict[str, str]) -> list[Any]:
    """A map field as what it is on the wire."""
    return [message["Entry"](key=key, value=value) for key, value in values.items()]


class Containerd:
    """Verbs named after what they do here. Ids and keys are the engine's. Raises as ``Client.ask`` does."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def container(self, engine_id: str) -> Any:
        """The record that the next task of this container is made from."""
        return (
            await self.ask("containers.v1.Containers/Get", message["ContainerId"](id=engine_id), "OneContainer")
        ).container

    async def change_container(self, record: Any, *fields: str) -> None:
        """Write these fields of the record: ``spec``, ``snapshotkey``."""
        request = message["UpdateContainer"](container=record, update_mask={"paths": fields})
        await self.ask("containers.v1.Containers/Update", request, "OneContainer")

    async def paused(self) -> frozenset[str]:
        """The ids of all that are paused."""
        answer = await self.ask("tasks.v1.Tasks/List", message["Empty"](), "Tasks")
        return frozenset(task.container_id or task.id for task in answer.tasks if task.status in _PAUSED)

    async def is_paused(self, engine_id: str) -> bool:
        """Whether this one is. Cheaper than ``paused``, for which the engine asks the shim of every container."""
        try:
            answer = await self.ask("tasks.v1.Tasks/Get", message["TaskId"](container_id=engine_id), "OneTask")
        except ContainerGone:  # it has no task
            return False
        return answer.process.status in _PAUSED

    async def pause(self, engine_id: str) -> None:
        await self.ask("tasks.v1.Tasks/Pause", message["TaskId"](container_id=engine_id), "Empty")

    async def resume(self, engine_id: str) -> None:
        await self.ask("tasks.v1.Tasks/Resume", message["TaskId"](container_id=engine_id), "Empty")

    async def kill(self, engine_id: str, signal: int) -> None:
        await self.ask("tasks.v1.Tasks/Kill", message["Kill"](container_id=engine_id, signal=signal), "Empty")

    async def mounts(self, snapshotter: str, key: str) -> Sequence[Any]:
        """How to mount the snapshot ``key``, an active one."""
        request = message["Snapshot"](snapshotter=snapshotter, key=key)
        mounts: Sequence[Any] = (await self.ask("snapshots.v1.Snapshots/Mounts", request, "Mounts")).mounts
        return mounts

    async def remove_image(self, name: str) -> None:
        """Take a name away, in full; what it meant goes with its last name."""
        await self.ask("images.v1.Images/Delete", message["ImageName"](name=name), "Empty")

    async def life_events(self) -> AsyncIterator[tuple[str, str, str]]:
        """(topic, container id, process id) of each event of containers and tasks from now on.

        The process is told for exits only, where it is the container for its own first process.
        """
        stream = self._channel.unary_stream(
            "/containerd.services.events.v1.Events/Subscribe",
            request_serializer=message["Subscribe"].SerializeToString,
            response_deserializer=message["Envelope"].FromString,
        )(message["Subscribe"](filters=[_LIFE]), metadata=_NAMESPACE)
        try:
            with translated("the engine"):
                async for envelope in stream:
                    event = message["LifeEvent"].FromString(envelope.event.value)
                    yield envelope.topic, event.container_id, event.id if envelope.topic == "/tasks/exit" else ""
        finally:
            stream.cancel()

    async def ask(
        self, verb: str, request: Any, answer: str, *, timeout: float | None = _QUICK, lease: str = ""
    ) -> Any:
        """One call of ``containerd.services.…``, its answer of the named type; ``lease`` keeps what it makes."""
        call = self._channel.unary_unary(
            f"/containerd.services.{verb}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message[answer].FromString,
        )
        with translated("the container"):
            return await call(request, timeout=timeout, metadata=metadata(lease))

    async def read(self, digest: str) -> bytes:
        """A blob, whole: for manifests and configurations, which are small."""
        return b"".join([piece async for piece in self.pieces(digest, timeout=_QUICK)])

    async def pieces(self, digest: str, *, timeout: float = _SLOW) -> AsyncIterator[bytes]:
        """A blob as it is read."""
        call = self._channel.unary_stream(
            "/containerd.services.content.v1.Content/Read",
            request_serializer=message["ReadContent"].SerializeToString,
            response_deserializer=message["ContentPart"].FromString,
        )
        stream = call(message["ReadContent"](digest=digest), timeout=timeout, metadata=_NAMESPACE)
        try:
            with translated(digest):
                async for part in stream:
                    yield part.data
        finally:
            stream.cancel()

    async def write(self, parts: Iterator[Any] | AsyncIterator[Any], lease: str) -> None:
        """Send these ``WriteContent`` messages."""
        call = self._channel.stream_stream(
            "/containerd.services.content.v1.Content/Write",
            request_serializer=message["WriteContent"].SerializeToString,
            response_deserializer=message["Empty"].FromString,
        )
        with translated("the image"):
            async for _ in call(parts, timeout=_SLOW, metadata=metadata(lease)):
                pass

    async def diff(self, left: Sequence[Any], right: Sequence[Any], media_type: str, lease: str) -> Any:
        """The layer between two mounts as a blob; its descriptor."""
        request = message["Diff"](left=left, right=right, media_type=media_type, ref=lease)
        return (await self.ask("diff.v1.Diff/Diff", request, "DiffResult", timeout=_SLOW, lease=lease)).diff


def metadata(lease: str) -> tuple[tuple[str, str], ...]:
    """The headers of a call."""
    return (*_NAMESPACE, ("containerd-lease", lease)) if lease else _NAMESPACE
