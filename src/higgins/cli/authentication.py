"""What the configuration asks of the cloud: who callers are, what projects may use, and images."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from msgspec import structs
from oslo_config import cfg

from higgins.api.auth import Auth, HttpBasic
from higgins.cli import credentials
from higgins.control.background import background
from higgins.control.cloud import Cloud
from higgins.control.delivery import Depot
from higgins.control.quotas import RESOURCES
from higgins.images.archive import BOUNDS
from higgins.images.shelf import Shelf

_GIB = 2**30


class NoKeystone(Exception):
    """Keystone is asked for, and something that it needs is missing; the sentence is for the operator."""


def missing(error: ModuleNotFoundError) -> NoKeystone:
    """What to say of a package that OpenStack's services need."""
    return NoKeystone(f"the Python package of {error.name} is missing: install higgins[openstack]")


@contextlib.contextmanager
def open_auth(conf: cfg.ConfigOpts, data: Path) -> Iterator[Auth]:
    """The strategy of ``[DEFAULT] auth``. Raises NoKeystone."""
    if conf.auth == "http_basic":
        yield HttpBasic(credentials.first_user(data), secret=credentials.secret_key(data))
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


@contextlib.asynccontextmanager
async def keep_images(conf: cfg.ConfigOpts, cloud: Cloud, data: Path) -> AsyncIterator[None]:
    """Let containers have images of Glance, where [glance] says so. Raises NoKeystone."""
    if not conf.glance.enabled:
        if conf.containers.image_driver == "glance":
            raise NoKeystone("[containers] image_driver = glance needs [glance] enabled = true")
        yield
        return
    if conf.auth != "keystone":
        raise NoKeystone("[glance] enabled needs [DEFAULT] auth = keystone: images are found with a caller's token")
    try:
        from higgins.images.openstack import open_images
    except ModuleNotFoundError as error:
        raise missing(error) from error
    bounds = structs.replace(BOUNDS, unpacked=conf.glance.maximum_size * _GIB)
    async with open_images(conf) as service:
        depot = Depot(service, Shelf(data / "glance", limit=conf.image_cache * _GIB, bounds=bounds))
        cloud.depot = depot
        try:
            async with background(lambda: depot.run(cloud)), background(depot.snapshots.keeper(cloud).run):
                yield
        finally:
            await depot.close()


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
