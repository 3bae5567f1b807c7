"""Where something listens: a host and a port."""

from higgins.model.errors import Invalid


class BadAddress(Invalid):
    """It is no address with a port."""


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``. Raises BadAddress."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise BadAddress(f"{address!r} is no address with a port, such as 192.0.2.10:9519.")
    return host.strip("[]"), int(port)
