"""gRPC statuses to errors with a tenant's sentence, by code and never by text.

But for one text: containerd 1.6 has no code of its own for the moment after its start in which it does not serve yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from higgins.model.errors import (
    ContainerGone,
    EngineError,
    EngineUnavailable,
    HigginsError,
    ImageNotFound,
    ImagePullFailed,
    NotImplementedHere,
)
from higgins.runtimes.wording import one_line

REFUSED = "The container engine refused"
_RUNTIME_SAYS = "unable to start container process: "
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}


_STARTING = "server is not initialized yet"


def _away(code: grpc.StatusCode, details: str) -> bool:
    return code in _AWAY or (code is grpc.StatusCode.UNKNOWN and _STARTING in details)


def engine_error(code: grpc.StatusCode, details: str, about: str, failed: str = REFUSED) -> HigginsError:
    """What a call about ``about`` (a uuid, or the engine) failed with; ``failed`` begins the sentence."""
    if _away(code, details):
        return EngineUnavailable("The container engine of this host does not answer.")
    if code is grpc.StatusCode.NOT_FOUND:
        return ContainerGone(f"The container engine does not know {about}.")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return NotImplementedHere("The container engine of this host cannot do that.")
    return EngineError(f"{failed}: {sentence(details)}")


def pull_error(code: grpc.StatusCode, details: str, image: str) -> HigginsError:
    """What fetching ``image`` failed with."""
    if _away(code, details):
        return EngineUnavailable("The container engine of this host does not answer.")
    if code is grpc.StatusCode.NOT_FOUND:
        return ImageNotFound(f"Image {image} could not be found.")
    return ImagePullFailed(f"Image {image} could not be fetched: {sentence(details)}")


def sentence(details: str) -> str:
    """An engine's message as one line with a full stop, short enough to show.

    Of a container that cannot be started, each layer down to the OCI runtime says that it failed; the last says why.
    """
    why = details.rpartition(_RUNTIME_SAYS)[2].removesuffix(": unknown")
    text = one_line(why)[:500].rstrip(".")
    return f"{text or 'it gave no reason'}."


@contextmanager
def translated(about: str, failed: str = REFUSED) -> Iterator[None]:
    """Turn what gRPC raises inside into an error of ours."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise engine_error(error.code(), error.details() or "", about, failed) from error


@contextmanager
def pulling(image: str) -> Iterator[None]:
    """Turn what gRPC raises inside into an error about an image."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise pull_error(error.code(), error.details() or "", image) from error
