"""What ``nft`` does, by the library that it is made of: to start the program cost four times what a change does."""

import ctypes
import socket
import threading
from functools import cache

from pyroute2.netlink import NETLINK_NETFILTER

from higgins.model.errors import EngineError
from higgins.programs import Ended, last_words

_LIBRARY = "libnftables.so.1"
#: The library reads one text at a time.
_turn = threading.Lock()


def nft(commands: str) -> str:
    """Carry out all of these, or none, in the network namespace of this thread; what they print.

    Blocks. Raises ``EngineError`` with the library's words.
    """
    if "\0" in commands:  # where C would take it to end, and half of it for all
        raise EngineError("nft reads no text with a NUL in it.")
    library = _library()
    with _turn:
        _look_for_sockets()
        context = library.nft_ctx_new(0)
        if not context:
            raise EngineError("The host has no nftables.")
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            code = library.nft_run_cmd_from_buffer(context, commands.encode())
            said = library.nft_ctx_get_output_buffer(context) or b"", library.nft_ctx_get_error_buffer(context) or b""
        finally:
            library.nft_ctx_free(context)
    ended = Ended(code, *(words.decode(errors="replace") for words in said))
    if ended.code != 0:
        raise EngineError(f"nft failed on the host: {last_words(ended)}.")
    return ended.out


def _look_for_sockets() -> None:
    """Of those that the library opens: where it gets none it does not return, but ends the process."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    try:
        with (
            socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER),
            socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE),
        ):
            pass
    except OSError as error:
        raise EngineError(f"The host cannot filter: {error.strerror}.") from error


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise EngineError(f"The host has no {_LIBRARY}; it comes with nftables.") from error
    text, context = ctypes.c_char_p, ctypes.c_void_p
    library.nft_ctx_new.restype = context
    library.nft_ctx_free.argtypes = [context]
    library.nft_run_cmd_from_buffer.argtypes = [context, text]
    for buffer in (library.nft_ctx_buffer_output, library.nft_ctx_buffer_error):
        buffer.argtypes = [context]
    for said in (library.nft_ctx_get_output_buffer, library.nft_ctx_get_error_buffer):
        said.argtypes, said.restype = [context], text
    return library
