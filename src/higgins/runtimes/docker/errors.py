"""The one place where the engine's errors become ours, by HTTP status and never by the words of a message."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiodocker.exceptions import DockerError

from higgins.model.errors import EngineError, EngineUnavailable, HigginsError, NotImplementedHere
from higgins.runtimes.wording import one_line

#: What aiodocker calls a connection that could not be made or broke, in the place of an HTTP status.
NO_CONNECTION = 900


def translate(status: int, message: str, missing: HigginsError | None = None) -> HigginsError:
    """The error for an engine's answer; ``missing`` is what 404 means for the call that was made."""
    said = f"{one_line(message).rstrip('.') or 'it gave no reason'}."
    if status == NO_CONNECTION or status in (502, 503, 504):
        return EngineUnavailable("The container engine of this host does not answer now.")
    if status == 404 and missing is not None:
        return missing
    if status == 501:
        return NotImplementedHere(f"The container engine of this host cannot do that: {said}")
    return EngineError(f"The container engine answered: {said}")


@contextmanager
def engine_errors(missing: HigginsError | None = None) -> Iterator[None]:
    """Translate what the calls inside raise. Put engine calls alone in it: a caller's OSError is not the engine's."""
    try:
        yield
    except DockerError as error:
        raise translate(error.status, error.message, missing) from error
    except (aiohttp.ClientError, OSError) as error:  # OSError has TimeoutError in it
        raise EngineUnavailable("The container engine of this host does not answer now.") from error
