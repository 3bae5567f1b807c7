"""Images that an administrator pulls to hosts, and images made by commit."""

import uuid as uuids
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.control.lookup import page
from higgins.control.query import ListQuery
from higgins.model.errors import HostUnavailable, NotFound
from higgins.model.resources import Image
from higgins.store.schema import host, image

SORT_KEYS = frozenset({"id", "uuid", "repo", "tag", "size", "host", "image_id", "created_at"})


def _of(row: Row[Any]) -> Image:
    return Image(**{name: getattr(row, name) for name in Image.__struct_fields__})


async def record(
    cloud: Cloud, actor: Actor, *, repo: str, tag: str, host: str, image_id: str, size: int | None = None
) -> Image:
    """Write down that an image is on a host; the same again is one row."""

    def work(conn: Connection) -> Image:
        key = (image.c.host == host) & (image.c.repo == repo) & (image.c.tag == tag)
        values = {"image_id": image_id, "size": None if size is None else str(size), "project_id": actor.project_id}
        if conn.execute(sa.update(image).where(key).values(**values, updated_at=cloud.now())).rowcount == 0:
            conn.execute(
                sa.insert(image).values(
                    uuid=str(uuids.uuid4()), repo=repo, tag=tag, host=host, created_at=cloud.now(), **values
                )
            )
        return _of(conn.execute(sa.select(image).where(key)).one())

    return await cloud.store.write(work)


async def pull(cloud: Cloud, actor: Actor, repo: str, tag: str, host_name: str) -> Image:
    """Have a host pull an image, by the host's name or uuid."""
    query = sa.select(host.c.name).where(sa.or_(host.c.name == host_name, host.c.uuid == host_name))
    name = await cloud.store.read(lambda conn: conn.execute(query).scalar())
    if name is None:
        raise NotFound("compute_node", host_name)
    pulled = await (await cloud.streams(name)).pull(f"{repo}:{tag}", None)
    return await record(cloud, actor, repo=repo, tag=tag, host=name, image_id=pulled.id, size=pulled.size)


async def find(cloud: Cloud, query: ListQuery) -> list[Image]:
    def work(conn: Connection) -> list[Image]:
        conditions, order = page(image, query, SORT_KEYS, conn, "image")
        rows = conn.execute(sa.select(image).where(*conditions).order_by(*order).limit(query.limit)).all()
        return [_of(row) for row in rows]

    return await cloud.store.read(work)


async def get(cloud: Cloud, uuid: str) -> Image:
    def work(conn: Connection) -> Image:
        row = conn.execute(sa.select(image).where(image.c.uuid == uuid)).one_or_none()
        if row is None:
            raise NotFound("image", uuid)
        return _of(row)

    return await cloud.store.read(work)


async def delete(cloud: Cloud, uuid: str) -> None:
    """Take an image off its host."""
    found = await get(cloud, uuid)
    await (await cloud.streams(found.host)).remove_image(f"{found.repo}:{found.tag}")
    await cloud.store.write(lambda conn: conn.execute(sa.delete(image).where(image.c.uuid == uuid)).rowcount)


async def search(cloud: Cloud, name: str, *, exact_match: bool = False) -> list[dict[str, Any]]:
    """What a host's engine finds under a name; any host that answers will do."""
    names = await cloud.store.read(lambda conn: list(conn.execute(sa.select(host.c.name)).scalars()))
    for one in names:
        try:
            rows = await (await cloud.streams(one)).search(name)
        except HostUnavailable:
            continue
        return [row for row in rows if not exact_match or row.get("name") == name]
    raise HostUnavailable("No host answers now; try again later.")
