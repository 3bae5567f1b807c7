"""In whose name the image service is asked: a caller's token as long as it is good, and then a trust of the caller's.

There is one trust for all that a user in a project has to do with images, and it is given back when nothing needs it.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.images.base import ImageService
from higgins.model.errors import Unauthorized
from higgins.openstack.errors import ServiceUnavailable
from higgins.store.schema import container, image, image_trust, snapshot

T = TypeVar("T")

#: Owners whose newest token is remembered.
_MOST_TOKENS = 1000
#: How old a trust is at least when it is looked whether somebody needs it.
_YOUNG = timedelta(minutes=10)
#: What a spec holds that needs a trust, as it is stored.
_NEEDS_TRUST = '%"found":{%'


class Owner(Struct, frozen=True):
    """In whose name an image is read or made."""

    project_id: str
    user_id: str


class Owners:
    """Those whom Higgins acts for at ``service``."""

    def __init__(self, service: ImageService) -> None:
        self._service = service
        self._tokens: OrderedDict[Owner, str] = OrderedDict()

    async def accept(self, cloud: Cloud, actor: Actor, token: str) -> None:
        """From now on the caller, whose token this is, can be acted for."""
        owner = Owner(actor.project_id, actor.user_id)
        self._tokens[owner] = token
        self._tokens.move_to_end(owner)
        if len(self._tokens) > _MOST_TOKENS:
            self._tokens.popitem(last=False)
        now = cloud.now()
        given_at = await cloud.store.read(lambda conn: _given_at(conn, owner))
        if given_at is not None and given_at > now - _YOUNG / 2:
            return
        if given_at is not None and await cloud.store.write(lambda conn: _needed_again(conn, owner, now)):
            return
        trust = await self._service.entrust(
            token, user_id=actor.user_id, project_id=actor.project_id, roles=actor.roles
        )
        if trust is None:
            return

        def work(conn: Connection) -> bool:
            if _trust(conn, owner) is not None:
                return False
            conn.execute(
                sa.insert(image_trust).values(
                    project_id=actor.project_id, user_id=actor.user_id, trust=trust, created_at=now
                )
            )
            return True

        if not await cloud.store.write(work):
            await self._service.give_back(trust)  # another request of the user's was quicker

    async def act(self, cloud: Cloud, owner: Owner, work: Callable[[str], Awaitable[T]]) -> T:
        """What ``work`` gives with a token of the owner's. Raises Unauthorized where nobody can act for them any more,
        and ServiceUnavailable where nobody can now.
        """
        token = self._tokens.get(owner)
        if token is not None:
            try:
                return await work(token)
            except Unauthorized:
                self._tokens.pop(owner, None)
        trust = await cloud.store.read(lambda conn: _trust(conn, owner))
        if trust is None:
            raise Unauthorized("The token is none any more, and there is no trust to go on with.")
        try:
            fresh = await self._service.token_by(trust)
        except Unauthorized:
            await cloud.store.write(lambda conn: _forget(conn, trust))
            raise
        try:
            return await work(fresh)
        except Unauthorized as error:  # which says nothing about the trust
            raise ServiceUnavailable(
                "The image service", "nobody can be acted for", "does not accept a new token now"
            ) from error

    async def tidy(self, cloud: Cloud) -> None:
        """Give back the trusts of those who have no container of such an image, and none on its way, any more."""
        before = cloud.now() - _YOUNG  # what a trust is for is written down a little after it
        for trust in await cloud.store.read(lambda conn: _unneeded(conn, before)):
            if trust not in await cloud.store.read(lambda conn: _unneeded(conn, before)):
                continue  # somebody came while the others were given back
            await self._service.give_back(trust)
            await cloud.store.write(lambda conn, trust=trust: _forget(conn, trust))  # type: ignore[misc]


def _mine(owner: Owner) -> tuple[sa.ColumnElement[bool], ...]:
    return image_trust.c.project_id == owner.project_id, image_trust.c.user_id == owner.user_id


def _trust(conn: Connection, owner: Owner) -> str | None:
    found: str | None = conn.execute(sa.select(image_trust.c.trust).where(*_mine(owner))).scalar_one_or_none()
    return found


def _given_at(conn: Connection, owner: Owner) -> datetime | None:
    query = sa.select(image_trust.c.created_at).where(*_mine(owner))
    found: datetime | None = conn.execute(query).scalar_one_or_none()
    return found


def _needed_again(conn: Connection, owner: Owner, now: datetime) -> bool:
    """A trust that is there counts as given now: what needs it is made in a moment. Whether it is there."""
    return conn.execute(sa.update(image_trust).where(*_mine(owner)).values(created_at=now)).rowcount > 0


def _forget(conn: Connection, trust: str) -> None:
    conn.execute(sa.delete(image_trust).where(image_trust.c.trust == trust))


def _unneeded(conn: Connection, before: datetime) -> list[str]:
    needed = sa.select(container.c.id).where(
        container.c.project_id == image_trust.c.project_id,
        container.c.user_id == image_trust.c.user_id,
        container.c.spec.like(_NEEDS_TRUST),
    )
    making = sa.select(snapshot.c.id).where(
        snapshot.c.project_id == image_trust.c.project_id, snapshot.c.user_id == image_trust.c.user_id
    )
    pulling = sa.select(image.c.id).where(
        image.c.project_id == image_trust.c.project_id,
        image.c.user_id == image_trust.c.user_id,
        image.c.image_id.is_(None),
    )
    return list(
        conn.execute(
            sa.select(image_trust.c.trust).where(
                image_trust.c.created_at < before, ~needed.exists(), ~making.exists(), ~pulling.exists()
            )
        ).scalars()
    )
