"""The connection to the engine: CRI's two services, and containerd's own API on the same socket."""

import asyncio
from contextlib import suppress
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from higgins.model.errors import ContainerGone, EngineError, EngineUnavailable, NotImplementedHere
from higgins.runtimes.cri import config
from higgins.runtimes.cri.classes import Handlers, handlers
from higgins.runtimes.cri.containerd import Containerd
from higgins.runtimes.cri.errors import REFUSED, translated

#: A list of all containers of a large host, or the verbose status of one with many mounts, passes gRPC's 4 MiB.
_MESSAGE_LIMIT = 64 << 20
#: Seconds for a call that does nothing slow. Starting, stopping and pulling have no limit here: the agent has.
_QUICK = 60
#: Seconds within which CRI's own state follows an exit, and between looks at it.
_SETTLE, _LOOK = 10.0, 0.02
#: Seconds to wait for a connection, a little more than gRPC's longest pause between two tries.
_RECONNECT = 1.5


class Client:
    """Calls by name, errors translated. ``about`` is what an error's sentence names."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(
            endpoint,
            options=[
                ("grpc.default_authority", "localhost"),
                ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
                ("grpc.max_send_message_length", _MESSAGE_LIMIT),
                # A restarted engine is back within a second or two; do not wait out a long backoff for it.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.image: Any = api_pb2_grpc.ImageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._containerd = Containerd(self._channel)
        self._version: cri.VersionResponse | None = None
        self._handlers: Handlers | None = None

    async def close(self) -> None:
        await self._channel.close(None)

    async def ask(
        self,
        verb: Any,
        request: Any,
        about: str = "this",
        *,
        timeout: float | None = _QUICK,
        failed: str = REFUSED,
    ) -> Any:
        """One call. Raises ``EngineUnavailable``, ``ContainerGone``, ``EngineError``."""
        await self._connect()
        with translated(about, failed):
            return await verb(request, timeout=timeout)

    async def remove(self, verb: Any, request: Any, *containers: str) -> None:
        """A call that ends or removes these containers (the engine's ids), running or not. Raises as ``ask`` does.

        containerd ends what runs first, and refuses where a process is just ending by itself: its own state does not
        say so yet (seen with 2.1), or what watched the process has gone (1.6). It is asked again when it knows.
        """
        try:
            await self.ask(verb, request, timeout=None)
        except (ContainerGone, EngineUnavailable):
            raise
        except EngineError:
            for engine_id in containers:
                await self._ended(engine_id)
            await self.ask(verb, request, timeout=None)

    async def _ended(self, engine_id: str) -> None:
        """Wait a little until the container does not run, as far as CRI knows."""
        with suppress(ContainerGone, TimeoutError):
            async with asyncio.timeout(_SETTLE):
                while (await self.status(engine_id)).status.state == cri.CONTAINER_RUNNING:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK)

    async def _connect(self) -> None:
        """Give a connection that broke a moment to come back: gRPC tries at intervals, and fails calls between them."""
        now = self._channel.get_state(try_to_connect=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECONNECT):
                while now is not grpc.ChannelConnectivity.READY:
                    await self._channel.wait_for_state_change(now)
                    now = self._channel.get_state(try_to_connect=True)

    async def version(self) -> cri.VersionResponse:
        if self._version is None:
            self._version = await self.ask(self.runtime.Version, cri.VersionRequest())
        return self._version

    async def engine_status(self) -> cri.StatusResponse:
        answer: cri.StatusResponse = await self.ask(self.runtime.Status, cri.StatusRequest(verbose=True))
        return answer

    async def handlers(self) -> Handlers:
        """How the engine runs containers, by class; read once, as the engine reads its configuration once."""
        if self._handlers is None:
            self._handlers = handlers(await self.engine_status())
        return self._handlers

    async def pause_image(self) -> str:
        """The image that sandboxes run, empty where the engine does not tell.

        containerd 1 has it in its settings. Others have it among the images that they mark as never to be collected.
        """
        if told := (await self.handlers()).pause_image:
            return told
        held = (await self.ask(self.image.ListImages, cri.ListImagesRequest())).images
        kept = sorted(name for image in held if image.pinned for name in image.repo_tags)
        return min(kept, key=lambda name: "pause" not in name, default="")

    async def is_containerd(self) -> bool:
        return (await self.version()).runtime_name == "containerd"

    async def containerd(self) -> Containerd:
        """containerd's own API. Raises ``NotImplementedHere`` where the engine is another one."""
        if not await self.is_containerd():
            name = (await self.version()).runtime_name
            raise NotImplementedHere(f"The container engine {name} of this host cannot do that.")
        return self._containerd

    async def sandboxes(self, **labels: str) -> list[cri.PodSandbox]:
        """Ours with these labels, in the order of their attempts."""
        select = {config.OURS: "1"} | {config.PREFIX + key: value for key, value in labels.items()}
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=select))
        answer = await self.ask(self.runtime.ListPodSandbox, request)
        return sorted(answer.items, key=lambda one: one.metadata.attempt)

    async def containers(self, **labels: str) -> list[cri.Container]:
        """Ours with these labels, in the order of their attempts: the last is the newest."""
        select = {config.OURS: "1"} | {config.PREFIX + key: value for key, value in labels.items()}
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=select))
        answer = await self.ask(self.runtime.ListContainers, request)
        return sorted(answer.containers, key=lambda one: one.metadata.attempt)

    async def newest(self, uuid: str) -> cri.Container:
        """The container that ``uuid`` means now. Raises ``ContainerGone``."""
        held = await self.containers(uuid=uuid)
        if not held:
            raise ContainerGone(f"The container engine does not know container {uuid}.")
        return held[-1]

    async def status(self, engine_id: str, *, verbose: bool = False) -> cri.ContainerStatusResponse:
        request = cri.ContainerStatusRequest(container_id=engine_id, verbose=verbose)
        answer: cri.ContainerStatusResponse = await self.ask(self.runtime.ContainerStatus, request, "the container")
        return answer

    async def sandbox_status(self, engine_id: str) -> cri.PodSandboxStatusResponse:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=engine_id, verbose=True)
        answer: cri.PodSandboxStatusResponse = await self.ask(self.runtime.PodSandboxStatus, request, "the sandbox")
        return answer
