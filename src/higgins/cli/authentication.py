"""Which way of authentication the configuration asks for."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from oslo_config import cfg

from higgins.api.auth import Auth, HttpBasic
from higgins.cli import credentials


class NoKeystone(Exception):
    """Keystone is asked for, and something that it needs is missing; the sentence is for the operator."""


@contextlib.contextmanager
def open_auth(conf: cfg.ConfigOpts, data: Path) -> Iterator[Auth]:
    """The strategy of ``[DEFAULT] auth``. Raises NoKeystone."""
    if conf.auth == "http_basic":
        yield HttpBasic(credentials.first_user(data))
        return
    try:
        from higgins.api.auth_keystone import open_keystone  # only who has Keystone has its libraries
    except ModuleNotFoundError as missing:
        raise NoKeystone(
            f"auth = keystone needs the Python package of {missing.name}: install higgins[openstack]"
        ) from missing
    auth = open_keystone(conf)
    if not conf.keystone_authtoken.auth_type:
        raise NoKeystone("auth = keystone needs the service user's credentials in [keystone_authtoken]")
    try:
        yield auth
    finally:
        auth.close()
