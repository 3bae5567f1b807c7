"""What a container has become, as an image of the cloud's image service, in the name of who asks.

It is answered as soon as the service has the image's record. The rest goes on in this process, and its progress is
told in the action's record; where the process ends meanwhile, the action does so too, with that reason.

What there may be of an image is written down before it is made, in a row of ``snapshot``. Who makes it puts off again
and again when that row is due; when it is, a keeper takes away what is left: the image, unless it was ``made``, and
what its host has of it. So nothing stays, whether the service failed, or its answer was lost, or the process died.
"""

import asyncio
import logging
import uuid as uuids
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import quotas
from higgins.control.cloud import Actor, Cloud
from higgins.control.image_owners import Owner, Owners
from higgins.control.images import committed_name
from higgins.control.keeper import Keeper, Written, ask
from higgins.control.link import HostStreams
from higgins.images.base import ImageService
from higgins.model.errors import Conflict, HigginsError, Unauthorized
from higgins.model.resources import Container
from higgins.store.schema import action, host, snapshot

LOG = logging.getLogger(__name__)

#: Seconds between two words about how far it is, and of silence after which nobody is at it any more.
_TELL, _SILENCE = 2.0, timedelta(seconds=60)
_MIB = 2**20
#: Images of its containers that a project may have in the making at once; of each container one.
_AT_ONCE = 4
#: A generation that no host ever settles: whoever does the work says when it is over.
_OWN = 2**31 - 1


class TooManyCommits(HigginsError):
    """As many images of the project's containers are being made as may be at once."""

    status = 429
    code = "too-many-commits"


class Snapshots:
    """Those that this process is making."""

    def __init__(self, service: ImageService, owners: Owners) -> None:
        self._service = service
        self._owners = owners
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up what is not done; the records say so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def begin(
        self, cloud: Cloud, actor: Actor, token: str, found: Container, streams: HostStreams, name: str
    ) -> str:
        """Make the image ``name`` of a container; its id in the image service.

        Raises what that raises, and Conflict and TooManyCommits where enough are being made already.
        """
        await self._owners.accept(cloud, actor, token)
        image = str(uuids.uuid4())
        number = await cloud.store.write(lambda conn: _begun(conn, cloud, actor, found, image))
        work = _Snapshot(self._service, cloud, token, found, streams, image, number)
        try:
            await self._service.register(image, name, token)
        except BaseException as error:
            why = str(error) if isinstance(error, HigginsError) else "The request was given up."
            await asyncio.shield(work.end(why))
            raise
        task = asyncio.create_task(work.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(0)  # one that has not begun could not say that it was ended
        return image

    def keeper(self, cloud: Cloud) -> Keeper:
        """To be run in every process of the control plane."""

        async def work(rows: Sequence[Row[Any]]) -> list[Written]:
            return [await self._take_away(cloud, row) for row in rows]

        return Keeper(cloud, snapshot, work)

    async def _take_away(self, cloud: Cloud, row: Row[Any]) -> Written:
        """What is left of an image that nobody is making any more."""
        if not row.made:
            owner = Owner(row.project_id, row.user_id)
            try:
                await self._owners.act(cloud, owner, lambda token: self._service.forget(row.image, token))
            except Unauthorized:
                LOG.warning("Image %s came to nothing and stays: nobody can act for its owner any more.", row.image)
        known = await cloud.store.read(
            lambda conn: conn.execute(sa.select(host.c.id).where(host.c.name == row.host)).first()
        )
        if known is not None:
            await (await cloud.streams(row.host)).remove_image(committed_name(row.project_id, row.image, "commit"))
        return _forget


class _Snapshot:
    """One of them; ``number`` is that of the action."""

    def __init__(
        self,
        service: ImageService,
        cloud: Cloud,
        token: str,
        found: Container,
        streams: HostStreams,
        image: str,
        number: int,
    ) -> None:
        self._service = service
        self._cloud = cloud
        self._token = token
        self._found = found
        self._streams = streams
        self._image = image
        self._number = number
        self._at = "The image is being made on its host."

    async def run(self) -> None:
        teller = asyncio.create_task(self._tell())
        message, made = "The process that made the image was ended.", False
        try:
            size = await self._make()
            message, made = f"Image {self._image}: {size / _MIB:.1f} MiB.", True
        except HigginsError as error:
            message = str(error)
        except Exception:
            LOG.exception("An image of container %s could not be made", self._found.uuid)
            message = "Higgins failed; its log tells more."
        finally:
            teller.cancel()
            # Also while the process ends: what is not written now is written by whoever keeps house.
            await asyncio.shield(self.end(message, made=made))

    async def _make(self) -> int:
        """How many bytes the image has."""
        name = committed_name(self._found.project_id, self._image, "commit")
        await self._streams.commit(self._found.uuid, name)
        async with self._streams.save(name) as archive:
            self._at = "The image is being sent to the image service."
            return await self._service.upload(self._image, self._token, self._counted(archive))

    async def _counted(self, archive: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        sent = 0
        async for piece in archive:
            yield piece
            sent += len(piece)
            self._at = f"{sent / _MIB:.1f} MiB were sent to the image service."

    async def _tell(self) -> None:
        while True:
            told = self._cloud.store.write(lambda conn: _told(conn, self._cloud, self._number, self._image, self._at))
            await _tried(told, f"How far image {self._image} is cannot be told now")
            await asyncio.sleep(_TELL)

    async def end(self, message: str, *, made: bool = False) -> None:
        """Write what became of it, and have taken away what is left of it."""
        told = self._cloud.store.write(
            lambda conn: _ended(conn, self._cloud, self._number, self._image, message, made=made)
        )
        await _tried(told, f"What became of image {self._image} cannot be told")


async def _tried(work: Coroutine[Any, Any, None], otherwise: str) -> None:
    """What would be good to be done; ``otherwise`` is said where it cannot be."""
    try:
        await work
    except HigginsError as error:
        LOG.warning("%s: %s", otherwise, error)


def _begun(conn: Connection, cloud: Cloud, actor: Actor, found: Container, image: str) -> int:
    """The number of the action."""
    now = cloud.now()
    quotas.hold(conn, actor.project_id)
    making = conn.execute(
        sa.select(action.c.container_uuid).where(
            action.c.alive_at >= now - _SILENCE,
            action.c.finish_time.is_(None),
            action.c.action == "commit",
            sa.or_(action.c.project_id == actor.project_id, action.c.container_uuid == found.uuid),
        )
    ).all()
    if any(one.container_uuid == found.uuid for one in making):
        raise Conflict("An image of the container is being made already; the list of its actions tells how far it is.")
    if len(making) >= _AT_ONCE:
        raise TooManyCommits(f"{len(making)} images of the project's containers are being made already; wait for one.")
    conn.execute(
        sa.insert(snapshot).values(
            image=image, project_id=actor.project_id, user_id=actor.user_id, host=found.host, made=False,
            due_at=now + _SILENCE, asks=1, tries=0,
        )
    )  # fmt: skip
    begun = conn.execute(
        sa.insert(action).values(
            container_uuid=found.uuid, request_id=actor.request_id, action="commit", project_id=actor.project_id,
            user_id=actor.user_id, generation=_OWN, start_time=now, alive_at=now,
        )
    )  # fmt: skip
    return int(begun.inserted_primary_key[0])  # type: ignore[index]


def _ours(image: str) -> tuple[sa.ColumnElement[bool], ...]:
    """The row of an image that no keeper has taken."""
    return snapshot.c.image == image, snapshot.c.holder.is_(None)


def _told(conn: Connection, cloud: Cloud, number: int, image: str, message: str) -> None:
    now = cloud.now()
    if _write(conn, number, {"message": message, "alive_at": now}):
        conn.execute(sa.update(snapshot).where(*_ours(image)).values(due_at=now + _SILENCE))


def _ended(conn: Connection, cloud: Cloud, number: int, image: str, message: str, *, made: bool) -> None:
    if not ask(conn, cloud, snapshot, *_ours(image), made=made) and made:
        made, message = False, "It took too long between two steps, and was given up."
    values = {"finish_time": cloud.now(), "result": "Success" if made else "Error", "message": message}
    _write(conn, number, values)


def _forget(conn: Connection, row: Row[Any]) -> None:
    conn.execute(sa.delete(snapshot).where(snapshot.c.id == row.id))


def _write(conn: Connection, number: int, values: dict[str, Any]) -> bool:
    """Whether the action is not over yet, and so was written."""
    mine = (action.c.id == number, action.c.finish_time.is_(None))
    return conn.execute(sa.update(action).where(*mine).values(**values)).rowcount > 0


def end_interrupted(conn: Connection, cloud: Cloud) -> None:
    """What nobody is at any more is over."""
    now = cloud.now()
    conn.execute(
        sa.update(action)
        .where(action.c.finish_time.is_(None), action.c.alive_at < now - _SILENCE)
        .values(finish_time=now, result="Error", message="It was interrupted: the process that did it is gone.")
    )
