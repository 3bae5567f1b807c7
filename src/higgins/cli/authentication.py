"""What the configuration asks of Keystone: who callers are, and what projects may use."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from oslo_config import cfg

from higgins.api.auth import Auth, HttpBasic
from higgins.cli import credentials
from higgins.control.cloud import Cloud
from higgins.control.quotas import RESOURCES


class NoKeystone(Exception):
    """Keystone is asked for, and something that it needs is missing; the sentence is for the operator."""


def missing(error: ModuleNotFoundError) -> NoKeystone:
    """What to say of a package that OpenStack's services need."""
    return NoKeystone(f"the Python package of {error.name} is missing: install higgins[openstack]")


@contextlib.contextmanager
def open_auth(conf: cfg.ConfigOpts, data: Path) -> Iterator[Auth]:
    """The strategy of ``[DEFAULT] auth``. Raises NoKeystone."""
    if conf.auth == "http_basic":
        yield HttpBasic(credentials.first_user(data))
        return
    try:
        from higgins.api.auth_keystone import open_keystone  # only who has Keystone has its libraries
    except ModuleNotFoundError as error:
        raise missing(error) from error
    try:
        auth = open_keystone(conf)
    except ValueError as error:
        raise NoKeystone(str(error)) from error
    try:
        yield auth
    finally:
        auth.close()


@contextlib.contextmanager
def keep_limits(conf: cfg.ConfigOpts, cloud: Cloud) -> Iterator[None]:
    """Let the limits of projects be kept where ``[quota] driver`` says. Raises NoKeystone."""
    if conf.quota.driver == "database":
        yield
        return
    try:
        from higgins.openstack.limits import open_limits
    except ModuleNotFoundError as error:
        raise missing(error) from error
    cloud.limits = limits = open_limits(conf, RESOURCES)
    try:
        yield
    finally:
        limits.close()
