"""Times and links, as clients read them."""

from datetime import datetime
from typing import Any


def time(moment: datetime | None) -> str | None:
    """``YYYY-MM-DD HH:MM:SS``: clients parse exactly this."""
    return None if moment is None else moment.isoformat(" ", "seconds")


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 with T and microseconds, as services and actions have it."""
    return None if moment is None else moment.isoformat("T", "microseconds")


def links(base: str, plural: str, ident: str) -> list[dict[str, str]]:
    """The two links of a thing."""
    return [
        {"href": f"{base}/v1/{plural}/{ident}", "rel": "self"},
        {"href": f"{base}/{plural}/{ident}", "rel": "bookmark"},
    ]


View = dict[str, Any]
