"""How a refusal is told: one envelope for every 4xx and 5xx, as Zun's clients read it."""

import logging
import uuid
from http import HTTPStatus
from typing import Any

from higgins.model.errors import HigginsError, MethodNotAllowed, NotAcceptable

LOG = logging.getLogger(__name__)

#: Where the rules of microversions are explained.
_HELP = "https://specs.openstack.org/openstack/api-wg/guidelines/microversion_specification.html"


class CallNotInVersion(NotAcceptable):
    """The version header cannot be read, or this call does not exist in the version asked for."""

    code = ""


class VersionUnsupported(NotAcceptable):
    """The version asked for lies outside the range that is served."""

    def __init__(self, sentence: str, minimum: str, maximum: str) -> None:
        super().__init__(sentence)
        self.minimum = minimum
        self.maximum = maximum


class NoRoute(HigginsError):
    """Nothing is served at this path."""

    status = 404
    code = ""


class WrongMethod(MethodNotAllowed):
    """The path exists, with other methods."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This path answers to {allowed} only.")
        self.allowed = allowed


class TooManyStreams(HigginsError):
    """The project has as many open streams (events, followed logs, consoles) as it may have."""

    status = 429
    code = "too-many-streams"


def envelope(error: HigginsError, request_id: str) -> dict[str, Any]:
    """The body that tells ``error``. The code is Zun's name of the kind, where Zun has one."""
    sentence = str(error)
    entry: dict[str, Any] = {
        "request_id": request_id,
        "code": f"container.{error.code}",
        "status": error.status,
        "title": sentence,
        "detail": sentence,
        "links": [],
    }
    if error.code == "":
        entry["title"] = HTTPStatus(error.status).phrase
    if isinstance(error, VersionUnsupported):
        entry |= {
            "code": "zun.microversion-unsupported",
            "max_version": error.maximum,
            "min_version": error.minimum,
            "links": [{"rel": "help", "href": _HELP}],
        }
    return {"errors": [entry]}


def fault(request_id: str) -> HigginsError:
    """An error nobody foresaw, called inside its ``except``: the log gets all of it, the caller a number to quote."""
    correlation = str(uuid.uuid4())
    LOG.exception("request failed", extra={"request_id": request_id, "correlation_id": correlation})
    error = HigginsError(f"The server failed. Error Correlation id is: {correlation}")
    error.code = ""
    return error
