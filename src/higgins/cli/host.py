"""``higgins host``: let machines join, and refuse hosts. Works on the database, beside control planes that serve."""

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from oslo_config import cfg

from higgins.cli.api import open_cloud
from higgins.control import joining, wire
from higgins.control.authority import (
    Authorities,
    Authority,
    adopt,
    behind,
    finish,
    open_authorities,
    open_authority,
    read_authority,
)
from higgins.control.authority import rotate as begin
from higgins.control.identities import fingerprint
from higgins.model.errors import HigginsError, Invalid


def token(conf: cfg.ConfigOpts) -> int:
    """Print a join token and what belongs to it; the exit code."""

    async def work() -> None:
        async with AsyncExitStack() as stack:
            cloud = await open_cloud(stack, conf)
            shown = fingerprint((await open_authority(cloud)).pem)
            text = wire.token_text(await joining.new_token(cloud, timedelta(seconds=conf.ttl)), shown)
        print(f"Token:       {text}")
        print(f"Authority:   SHA-256 {shown}")
        print(f"Valid:       once, for {timedelta(seconds=conf.ttl)}")
        print(f"On the host: higgins agent join https://HOST:PORT --token {text}")

    return _run(work())


def revoke(conf: cfg.ConfigOpts, name: str) -> int:
    """Refuse a host from now on; the exit code."""

    async def work() -> None:
        async with AsyncExitStack() as stack:
            await joining.revoke(await open_cloud(stack, conf), name)
        print(f"Host {name} is refused from now on. It can join again with a new token.")

    return _run(work())


def authority(conf: cfg.ConfigOpts) -> int:
    """Show the authority; first make one that the operator brings the cloud's, if there is one. The exit code."""

    async def work() -> None:
        async with AsyncExitStack() as stack:
            cloud = await open_cloud(stack, conf)
            if (brought := _brought(conf)) is not None:
                await adopt(cloud, brought)
            _tell(await open_authorities(cloud), await behind(cloud))

    return _run(work())


def rotate(conf: cfg.ConfigOpts) -> int:
    """Begin to have another authority take the place of the one that is there, or end it. The exit code."""

    async def work() -> None:
        if conf.finish and (conf.certificate or conf.key):
            raise Invalid("--certificate and --key begin the change, and --finish ends it: give the one or the other.")
        if conf.force and not conf.finish:
            raise Invalid("--force belongs to --finish.")
        async with AsyncExitStack() as stack:
            cloud = await open_cloud(stack, conf)
            if conf.finish:
                for name in await finish(cloud, force=conf.force):
                    print(f"Host {name} is refused from now on; it can join again: higgins host revoke {name}")
            else:
                await begin(cloud, _brought(conf))
            _tell(await open_authorities(cloud), await behind(cloud))

    return _run(work())


def _brought(conf: cfg.ConfigOpts) -> Authority | None:
    if not conf.certificate and not conf.key:
        return None
    if not conf.certificate or not conf.key:
        raise Invalid("An authority of your own needs both: --certificate and --key.")
    return read_authority(Path(conf.certificate).read_bytes(), Path(conf.key).read_bytes())


def _tell(found: Authorities, late: list[str]) -> None:
    for one in found.each:
        print(f"Authority:   SHA-256 {fingerprint(one.pem)}")
        print(f"Subject:     {one.certificate.subject.rfc4514_string()}")
        print(f"Valid until: {one.certificate.not_valid_after_utc:%Y-%m-%d}")
    if len(found.each) > 1:
        print("The second one takes the place of the first. Hosts get certificates of it by themselves.")
        print(f"Still wait:  {', '.join(late)}" if late else "None waits:  higgins host authority rotate --finish")


def _run(work: Coroutine[Any, Any, None]) -> int:
    try:
        asyncio.run(work)
    except (HigginsError, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    return 0
