"""Higgins in an OpenStack cloud, with the real services, which ``scripts/test-openstack`` brings up around pytest."""

import os

import pytest

#: The services that run; empty where pytest was started by itself.
SERVICES = frozenset(os.environ.get("HIGGINS_OPENSTACK", "").split())


def needs(*services: str) -> pytest.MarkDecorator:
    """Skips where one of these services does not run."""
    missing = [service for service in services if service not in SERVICES]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} must run: make test-openstack")
