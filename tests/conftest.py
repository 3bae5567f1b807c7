"""What every tier of tests shares."""

import os

import pytest

from tests.engines.databases import bare_database, database, galera, mariadb, mariadb_data, postgresql, server, sqlite

__all__ = ["bare_database", "database", "galera", "mariadb", "mariadb_data", "postgresql", "server", "sqlite"]


@pytest.fixture(scope="session")
def own_namespaces() -> None:
    """Engines, bridges and mounts are made only where they end with the test run: see ``scripts/test``."""
    if os.environ.get("HIGGINS_TEST_NAMESPACE") != "1":
        pytest.fail("this test makes bridges and mounts: run it with scripts/test")
