"""What the control plane and hosts write to each other over HTTPS: paths, errors, and the pieces of streams.

Both sides are of the same project but not always of the same version: paths carry one, unknown fields of JSON are
passed over, and what is missing has a default.
"""

import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from higgins.control.link import Observation
from higgins.model import errors
from higgins.model.errors import HigginsError
from higgins.model.images import FoundImage
from higgins.runtimes.base import LogChunk, RegistryAuth

#: What hosts ask of the control plane, and what the control plane asks of a host.
AGENTS = "/agents/v1"
STREAMS = "/streams/v1"

#: Bytes that one piece of a stream has at most, and one JSON body.
PIECE = 256 * 1024
LARGEST_BODY = 64 * 2**20

#: The header by which every answer to a host tells the fingerprints of the authorities that it is to trust.
AUTHORITIES_HEADER = "Higgins-Authorities"
#: The header that tells what an archive holds, as base64 of JSON.
STAT_HEADER = "Higgins-Path-Stat"


class JoinRequest(Struct, frozen=True, kw_only=True):
    """What a machine sends to become a host. ``request`` is a certificate request in PEM for a key of its own."""

    token: str
    name: str
    zone: str
    request: str
    bundle: bool = False  # whether it keeps ``Joined.authorities``


class Joined(Struct, frozen=True, kw_only=True):
    """What a host is given: the uuid and name it goes by, and a certificate (PEM) for its key.

    ``authorities`` are those that it is to trust from now on (PEM, one after the other); empty from an older version.
    """

    uuid: str
    name: str
    certificate: str
    authorities: str = ""


class Observations(Struct, frozen=True):
    """A batch, as a host posts it."""

    observations: list[Observation]


class Uuids(Struct, frozen=True):
    """The volumes whose data is gone."""

    uuids: list[str]


class Renewal(Struct, frozen=True):
    """A certificate request (PEM) for a new key of a host that has a certificate."""

    request: str
    bundle: bool = False  # whether it keeps ``Joined.authorities``; without it, no new authority signs


class AuthorityCertificate(Struct, frozen=True):
    """The authority's own certificate (PEM)."""

    certificate: str


class Registered(Struct, frozen=True):
    """The number that a host goes by."""

    host: int


class ExecStart(Struct, frozen=True):
    """What a terminal is opened for: a command, or (without one) the container's own streams."""

    command: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    exec_id: str | None = None


class Resize(Struct, frozen=True):
    """The size that terminals of an exec (None: of the container itself) shall have, in columns and rows."""

    exec_id: str | None
    width: int
    height: int


class Word(Struct, frozen=True, omit_defaults=True):
    """What is told beside the bytes of a terminal: that it is open, its size, that no more is typed, and its end."""

    opened: bool = False
    size: tuple[int, int] | None = None
    no_more_input: bool = False
    ended: bool = False
    exit_code: int | None = None
    error: "Told | None" = None


class PullImage(Struct, frozen=True):
    image: str
    auth: RegistryAuth | None = None


class FetchImage(Struct, frozen=True):
    uuid: str
    found: FoundImage


class Named(Struct, frozen=True):
    name: str


def token_text(secret: str, authority_fingerprint: str) -> str:
    """What is given to the machine: the secret, and how to recognise the authority that it may be told to."""
    return f"{secret}.{authority_fingerprint}"


def split_token(token: str) -> tuple[str, str]:
    """The secret and the fingerprint. Raises ValueError with a sentence."""
    secret, dot, digits = token.strip().partition(".")
    if not dot or not secret or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ValueError("The join token is not whole: it is what 'higgins host token' printed, in one piece.")
    return secret, digits


class Told(Struct, frozen=True):
    """An error on its way: the name of its type, and all that a tenant sees of it."""

    kind: str
    status: int
    code: str
    sentence: str


_KINDS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, HigginsError)
}
_told = msgspec.json.Decoder(Told)


def tell(error: HigginsError) -> Told:
    """The error as it travels; a type that only one side knows goes as the nearest one that both know."""
    kind = next(one.__name__ for one in type(error).__mro__ if one.__name__ in _KINDS)
    return Told(kind=kind, status=error.status, code=error.code, sentence=str(error))


def error_of(told: Told) -> HigginsError:
    """The error that was told, of the type that it was."""
    kind = _KINDS.get(told.kind, HigginsError)
    error = kind.__new__(kind)
    Exception.__init__(error, told.sentence)
    error.status, error.code = told.status, told.code
    return error


async def error_in(response: aiohttp.ClientResponse) -> HigginsError:
    """The error that an answer carries; something can be said of every answer."""
    body = await response.content.read(LARGEST_BODY)
    try:
        return error_of(_told.decode(body))
    except msgspec.MsgspecError:
        error = HigginsError(f"The other side answered with HTTP status {response.status}.")
        error.status = response.status
        return error


# pieces of output: one byte for the stream (1, 2; 0 says that it is over), four for the length, and the data

_HEAD = struct.Struct("!BI")


def frame(stream: int, data: bytes) -> bytes:
    return _HEAD.pack(stream, len(data)) + data


def pieces(data: bytes) -> list[bytes]:
    """The data in pieces of at most ``PIECE`` bytes."""
    return [data[start : start + PIECE] for start in range(0, len(data), PIECE)]


def end(error: HigginsError | None = None) -> bytes:
    """The last frame: all was said, or why not."""
    return frame(0, b"" if error is None else msgspec.json.encode(tell(error)))


class CutOff(Exception):
    """The stream ended without its last frame."""


async def chunks(content: aiohttp.StreamReader) -> AsyncIterator[LogChunk]:
    """The frames of a body until its end. Raises CutOff, or the error that the other side told."""
    while True:
        try:
            stream, length = _HEAD.unpack(await content.readexactly(_HEAD.size))
            data = await content.readexactly(length) if length <= PIECE else None
        except EOFError as error:
            raise CutOff from error
        if data is None:
            raise CutOff
        if stream == 0:
            if data:
                raise error_of(_told.decode(data))
            return
        yield LogChunk(stream, data)


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)
