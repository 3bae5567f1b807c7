"""Which errors of a database are outages; what real ones do is in tests/control/test_transactions.py."""

import sqlite3

import pytest
from sqlalchemy import exc

from higgins.store.verdicts import outage


def told(number: int | str | None, attribute: str) -> exc.OperationalError:
    """As the driver raises it: a number of MariaDB's is its first argument."""
    original = Exception(number if attribute == "args" else "words")
    if attribute != "args":
        setattr(original, attribute, number)
    return exc.OperationalError("SELECT 1", None, original)


@pytest.mark.parametrize(
    ("attribute", "number", "expected"),
    [
        ("sqlite_errorcode", sqlite3.SQLITE_FULL, True),
        ("sqlite_errorcode", sqlite3.SQLITE_IOERR_FSYNC, True),
        ("sqlite_errorcode", sqlite3.SQLITE_ERROR, False),
        ("sqlstate", "40P01", True),
        ("sqlstate", "53100", True),
        ("sqlstate", "54001", False),
        ("sqlstate", None, True),
        ("args", 1021, True),
        ("args", 1213, True),
        ("args", 2013, True),
        ("args", 1054, False),
    ],
)
def test_an_outage_is_what_is_not_the_statements_fault(attribute: str, number: int | str, expected: bool) -> None:
    assert outage(told(number, attribute)) is expected
