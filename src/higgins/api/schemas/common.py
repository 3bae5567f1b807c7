"""Kinds and fields that several nouns share."""

import re
import signal as signals
from datetime import UTC, datetime
from typing import Any

from higgins.api.schemas.fields import Field
from higgins.api.schemas.kinds import Boolean, Checked, Optional, Text, Whole, Word

NAME = Text(2, 255, r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", "2 to 255 letters, digits, '_', '.' and '-' are wanted")
IDENT = Text(1, 255)
FLAG = Boolean()

#: A list's page. ``limit`` is capped, not refused, above the largest page.
MAX_LIMIT = 1000
PAGING = (
    Field("limit", Checked(Whole(1), lambda limit: min(limit, MAX_LIMIT)), doc="How many items at most."),
    Field("marker", Text(1, 255), doc="The uuid of the last item already seen."),
    Field("sort_key", Text(1, 64)),
    Field("sort_dir", Word("asc", "desc")),
)
ALL_PROJECTS = Field("all_projects", FLAG, default=False)


def _numeric(text: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(text), UTC).replace(tzinfo=None)
    except (OverflowError, OSError, ValueError):
        raise ValueError("the number of seconds is out of range") from None


def moment(text: str) -> datetime:
    """A time as the API takes it: seconds since 1970, or ``YYYY-MM-DD HH:MM:SS,mmm`` (UTC) somewhere in the text."""
    if re.fullmatch(r"[0-9]{1,12}", text):
        return _numeric(text)
    found = re.search(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}([,.][0-9]{1,6})?", text)
    if found is None:
        raise ValueError("seconds since 1970 or YYYY-MM-DD HH:MM:SS,mmm is wanted")
    try:
        return datetime.fromisoformat(_six_digits(found[0].replace(",", ".")))
    except ValueError:
        raise ValueError("this is no date and time") from None


def _six_digits(text: str) -> str:
    whole, dot, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(6, '0')}" if dot else whole


def signal_name(text: str) -> str:
    """SIGTERM, however it was spelled: TERM, sigterm, 15."""
    if re.fullmatch(r"[0-9]{1,2}", text):
        try:
            return signals.Signals(int(text)).name
        except ValueError:
            raise ValueError("there is no signal of that number") from None
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in signals.Signals.__members__:
        raise ValueError("there is no signal of that name")
    return signals.Signals[name].name


SIGNAL = Optional(Checked(Text(1, 16, "[A-Za-z0-9]+"), signal_name), word=True)
MOMENT = Optional(Checked(Text(1, 64), moment), word=True)


def _tail(value: Any) -> int | None:
    return None if value in ("all", "") else int(value)


TAIL = Optional(Checked(Text(0, 9, r"all|[0-9]*", "'all' or a number of lines is wanted"), _tail), word=True)
PS_ARGS = Optional(Text(0, 255, r"[A-Za-z0-9 ,._=%:+/-]*", "arguments of ps are wanted"), word=True)
EXEC_ID = Text(64, 64, "[0-9a-f]{64}", "64 hexadecimal digits are wanted")
EDGE = Whole(1, 65535)
IMAGE_DRIVER = Optional(Word("docker", "glance"), word=True)
REPOSITORY = Text(1, 255, r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", "the name of a repository is wanted")
TAG = Text(1, 128, r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a tag is wanted")
IMAGE = Text(2, 255, r"[A-Za-z0-9][A-Za-z0-9._:/@ -]*", "the name of an image is wanted")
