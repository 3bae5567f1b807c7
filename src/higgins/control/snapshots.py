"""What a container has become, as an image of the cloud's image service, in the name of who asks.

It is answered as soon as the service has the image's record. The rest goes on in this process, and its progress is
told in the action's record; where the process ends meanwhile, the action does so too, with that reason.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control import quotas
from higgins.control.cloud import Actor, Cloud
from higgins.control.images import committed_name
from higgins.control.link import HostStreams
from higgins.images.base import ImageService
from higgins.model.errors import Conflict, HigginsError
from higgins.model.resources import Container
from higgins.store.schema import action

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

    def __init__(self, service: ImageService) -> None:
        self._service = service
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up what is not done; the records say so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def begin(
        self, cloud: Cloud, actor: Actor, token: str, found: Container, host: HostStreams, name: str
    ) -> str:
        """Make the image ``name`` of a container; its id in the image service.

        Raises what that raises, and Conflict and TooManyCommits where enough are being made already.
        """
        image = await self._service.register(name, token)
        try:
            number = await cloud.store.write(lambda conn: _begun(conn, cloud, actor, found.uuid))
        except HigginsError:
            await _tried(self._service.forget(image, token), f"Image {image} was not begun and stays")
            raise
        work = _Snapshot(self._service, cloud, token, found, host, image, number)
        task = asyncio.create_task(work.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(0)  # one that has not begun could not say that it was ended
        return image


class _Snapshot:
    """One of them; ``number`` is that of the action."""

    def __init__(
        self,
        service: ImageService,
        cloud: Cloud,
        token: str,
        found: Container,
        host: HostStreams,
        image: str,
        number: int,
    ) -> None:
        self._service = service
        self._cloud = cloud
        self._token = token
        self._found = found
        self._host = host
        self._image = image
        self._number = number
        self._at = "The image is being made on its host."

    async def run(self) -> None:
        teller = asyncio.create_task(self._tell())
        result, message = "Error", "The process that made the image was ended."
        try:
            size = await self._make()
            result, message = "Success", f"Image {self._image}: {size / _MIB:.1f} MiB."
        except HigginsError as error:
            message = str(error)
        except Exception:
            LOG.exception("An image of container %s could not be made", self._found.uuid)
            message = "Higgins failed; its log tells more."
        finally:
            teller.cancel()
            # Also while the process ends: what is not written now is written by whoever keeps house.
            await asyncio.shield(self._end(result, message))

    async def _make(self) -> int:
        """How many bytes the image has. On the host nothing is left of it, if that can be."""
        name = committed_name(self._found.project_id, self._image, "commit")
        await self._host.commit(self._found.uuid, name)
        try:
            async with self._host.save(name) as archive:
                self._at = "The image is being sent to the image service."
                return await self._service.upload(self._image, self._token, self._counted(archive))
        finally:
            # What came of the upload is what counts, whether or not the host can be tidied.
            await _tried(self._host.remove_image(name), f"Image {name} stays on host {self._found.host}")

    async def _counted(self, archive: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        sent = 0
        async for piece in archive:
            yield piece
            sent += len(piece)
            self._at = f"{sent / _MIB:.1f} MiB were sent to the image service."

    async def _tell(self) -> None:
        while True:
            values = {"message": self._at, "alive_at": self._cloud.now()}
            told = self._cloud.store.write(lambda conn, values=values: _write(conn, self._number, values))  # type: ignore[misc]
            await _tried(told, f"How far image {self._image} is cannot be told now")
            await asyncio.sleep(_TELL)

    async def _end(self, result: str, message: str) -> None:
        values = {"finish_time": self._cloud.now(), "result": result, "message": message}
        told = self._cloud.store.write(lambda conn: _write(conn, self._number, values))
        await _tried(told, f"What became of image {self._image} cannot be told")
        if result == "Error":
            await _tried(
                self._service.forget(self._image, self._token), f"Image {self._image} came to nothing and stays"
            )


async def _tried(work: Coroutine[Any, Any, None], otherwise: str) -> None:
    """What would be good to be done; ``otherwise`` is said where it cannot be."""
    try:
        await work
    except HigginsError as error:
        LOG.warning("%s: %s", otherwise, error)


def _begun(conn: Connection, cloud: Cloud, actor: Actor, uuid: str) -> int:
    now = cloud.now()
    quotas.hold(conn, actor.project_id)
    making = conn.execute(
        sa.select(action.c.container_uuid).where(
            action.c.alive_at >= now - _SILENCE,
            action.c.finish_time.is_(None),
            action.c.action == "commit",
            sa.or_(action.c.project_id == actor.project_id, action.c.container_uuid == uuid),
        )
    ).all()
    if any(one.container_uuid == uuid for one in making):
        raise Conflict("An image of the container is being made already; the list of its actions tells how far it is.")
    if len(making) >= _AT_ONCE:
        raise TooManyCommits(f"{len(making)} images of the project's containers are being made already; wait for one.")
    made = conn.execute(
        sa.insert(action).values(
            container_uuid=uuid, request_id=actor.request_id, action="commit", project_id=actor.project_id,
            user_id=actor.user_id, generation=_OWN, start_time=now, alive_at=now,
        )
    )  # fmt: skip
    return int(made.inserted_primary_key[0])  # type: ignore[index]


def _write(conn: Connection, number: int, values: dict[str, Any]) -> None:
    conn.execute(sa.update(action).where(action.c.id == number, action.c.finish_time.is_(None)).values(**values))


def end_interrupted(conn: Connection, cloud: Cloud) -> None:
    """What nobody is at any more is over."""
    now = cloud.now()
    conn.execute(
        sa.update(action)
        .where(action.c.finish_time.is_(None), action.c.alive_at < now - _SILENCE)
        .values(finish_time=now, result="Error", message="It was interrupted: the process that did it is gone.")
    )
