"""Terminals: a token that opens one, once and soon, and the open ones of this process, so that they can be resized."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import looking
from higgins.control.cloud import Actor, Cloud
from higgins.model.errors import Forbidden, NotFound, NotInteractive
from higgins.runtimes.base import Terminal
from higgins.store.schema import console, container


async def open_attach(cloud: Cloud, actor: Actor, ident: str) -> str:
    """A token for the container's own terminal. Raises InvalidState, NotInteractive."""
    found, _ = await looking.reach(cloud, actor, ident, "attach")
    if not found.spec.interactive:
        raise NotInteractive(f"Container {found.uuid} was not created with interactive: there is nothing to attach to.")
    return await _issue(cloud, found.uuid, "attach", None, ())


async def open_exec(cloud: Cloud, actor: Actor, ident: str, command: tuple[str, ...]) -> tuple[str, str]:
    """A token and an exec id (64 hex digits) for a command with a terminal; it starts when the token is redeemed."""
    found, _ = await looking.reach(cloud, actor, ident, "execute")
    exec_id = secrets.token_hex(32)
    return await _issue(cloud, found.uuid, "exec", exec_id, command), exec_id


async def _issue(cloud: Cloud, uuid: str, kind: str, exec_id: str | None, command: tuple[str, ...]) -> str:
    token = secrets.token_urlsafe(32)

    def work(conn: Connection) -> None:
        conn.execute(sa.delete(console).where(console.c.expires_at < cloud.now()))
        conn.execute(
            sa.insert(console).values(
                token_hash=_hash(token),
                container_uuid=uuid,
                kind=kind,
                exec_id=exec_id,
                command=msgspec.json.encode(command).decode(),
                expires_at=cloud.now() + timedelta(seconds=cloud.settings.console_ttl),
            )
        )

    await cloud.store.write(work)
    return token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def resize(cloud: Cloud, actor: Actor, ident: str, width: int, height: int) -> None:
    """The container's terminal has this many columns and rows from now on."""
    found, host = await looking.reach(cloud, actor, ident, "resize")
    await host.resize(found.uuid, None, width, height)  # also those that were opened through another replica
    await cloud.consoles.resize(found.uuid, width, height)


async def execute_resize(cloud: Cloud, actor: Actor, ident: str, exec_id: str, width: int, height: int) -> None:
    """The terminal of an exec has this many columns and rows from now on; NotFound if there is no such exec."""
    found, host = await looking.reach(cloud, actor, ident, "execute_resize")
    key = f"{found.uuid}/{exec_id}"
    opened = await host.resize(found.uuid, exec_id, width, height)
    if not opened and key not in cloud.consoles.terminals:
        query = sa.select(console.c.exec_id).where(console.c.exec_id == exec_id, console.c.container_uuid == found.uuid)
        if await cloud.store.read(lambda conn: conn.execute(query).first()) is None:
            raise NotFound("exec", exec_id)
    await cloud.consoles.resize(key, width, height)


@asynccontextmanager
async def redeem(cloud: Cloud, token: str, container_uuid: str, exec_id: str | None) -> AsyncIterator[Terminal]:
    """The terminal that a token was given for; raises Forbidden for a token that is unknown, used or too old."""

    def work(conn: Connection) -> tuple[Row[Any] | None, str | None]:
        query = sa.select(console).where(console.c.token_hash == _hash(token))
        row = conn.execute(query).one_or_none()
        if conn.execute(sa.delete(console).where(console.c.token_hash == _hash(token))).rowcount == 0:
            return None, None
        host = conn.execute(sa.select(container.c.host).where(container.c.uuid == container_uuid)).scalar_one_or_none()
        return row, host

    row, host = await cloud.store.write(work)
    if row is None or row.expires_at < cloud.now() or row.container_uuid != container_uuid:
        raise Forbidden("The token is not valid, was used already, or is too old.")
    if row.kind == "exec" and row.exec_id != exec_id:
        raise Forbidden("The token was given for another exec.")
    streams = await cloud.streams(host)
    if row.kind == "attach":
        key, terminal = container_uuid, await streams.attach(container_uuid)
    else:
        command = msgspec.json.decode(row.command, type=tuple[str, ...])
        key = f"{container_uuid}/{row.exec_id}"
        terminal = await streams.exec(container_uuid, command, tty=True, stdin=True, exec_id=row.exec_id)
    try:
        async with cloud.consoles.hold(key, terminal):
            yield terminal
    finally:
        await terminal.close()
