"""Microversions: which version of the API a request is made in. 1.1 to 1.40 are Zun's, what follows is Higgins' own."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from higgins.api.errors import CallNotInVersion, VersionUnsupported


class Version(NamedTuple):
    """A microversion; compares as numbers do."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MINIMUM = Version(1, 1)
MAXIMUM = Version(1, 49)

HEADER = "OpenStack-API-Version"
#: The service types by which this API may be called: the one clients use, and the official one.
SERVICES = ("container", "application-container")
_NUMBER = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})", re.ASCII)


def negotiate(values: Iterable[str]) -> Version:
    """The version asked for by the ``OpenStack-API-Version`` headers; 1.1 where there is none.

    Raises ``CallNotInVersion`` for what cannot be read and ``VersionUnsupported`` for what is out of range.
    """
    wanted = [part.strip() for value in values for part in value.split(",") if part.strip()]
    if not wanted:
        return MINIMUM
    for part in wanted:
        service, _, number = part.partition(" ")
        if service in SERVICES:
            return _parse(number.strip())
    raise CallNotInVersion(f"The {HEADER} header is to read 'container X.Y' or 'container latest'.")


def _parse(number: str) -> Version:
    if number in ("latest", "1.latest"):  # the second is the client's own word, before it has asked for the range
        return MAXIMUM
    match = _NUMBER.fullmatch(number)
    if match is None:
        raise CallNotInVersion(f"The version in the {HEADER} header is to read X.Y or latest.")
    version = Version(int(match[1]), int(match[2]))
    if not MINIMUM <= version <= MAXIMUM:
        raise VersionUnsupported(
            f"Version {version} is not supported by the API. Minimum is {MINIMUM} and maximum is {MAXIMUM}.",
            str(MINIMUM),
            str(MAXIMUM),
        )
    return version


def headers(version: Version | None) -> dict[str, str]:
    """What every reply of the versioned API tells: the version used (if one was agreed on) and the range."""
    told = {
        "OpenStack-API-Minimum-Version": f"container {MINIMUM}",
        "OpenStack-API-Maximum-Version": f"container {MAXIMUM}",
        "Vary": HEADER,
    }
    if version is not None:
        told[HEADER] = f"container {version}"
    return told
