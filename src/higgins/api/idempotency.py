"""The Idempotency-Key header (since 1.43): a create that is sent twice makes one thing."""

import hashlib
import re

from higgins.api.call import Call
from higgins.api.microversion import Version
from higgins.model.errors import SchemaInvalid

SINCE = Version(1, 43)
HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def of(call: Call) -> tuple[str | None, str]:
    """The key of a create, or None, and a hash of all that was asked for, to tell a repetition from a mistake."""
    key = call.request.headers.get(HEADER)
    if key is None or call.version < SINCE:
        return None, ""
    if not _KEY.fullmatch(key):
        raise SchemaInvalid(f"Invalid value for header '{HEADER}': 1 to 255 visible ASCII characters are wanted.")
    query = sorted((name, str(value)) for name, value in call.query.items())
    return key, hashlib.sha256(repr(query).encode() + b"\0" + call.raw).hexdigest()
