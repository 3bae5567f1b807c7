"""Images that an administrator pulls to hosts, and images made by commit.

An engine has one set of names for all its projects. An image made by commit therefore gets a name there that is its
project's alone, in a domain that no tenant can ask for: whoever commits ``busybox`` changes it for nobody else.
"""

import hashlib
import uuid as uuids
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control.cloud import Actor, Cloud
from higgins.control.lookup import page
from higgins.control.query import ListQuery
from higgins.control.rows import to_json
from higgins.model.errors import HostUnavailable, Invalid, NotFound
from higgins.model.images import DOMAIN as GLANCE
from higgins.model.images import FoundImage
from higgins.model.resources import Image
from higgins.store.schema import host, image

SORT_KEYS = frozenset({"id", "uuid", "repo", "tag", "size", "host", "image_id", "created_at"})

#: Where images made by commit are on an engine. No registry can be there: ``.invalid`` is resolved by nobody.
COMMITTED = "higgins.invalid"
_RESERVED = (f"{COMMITTED}/", f"{GLANCE}/", "higgins-pause")


def check_image(name: str) -> None:
    """Raises Invalid for a name that an engine knows and that is not for tenants to use."""
    bare = name.lower()
    for prefix in ("index.", "docker.io/", "library/"):
        bare = bare.removeprefix(prefix)
    if bare.startswith(_RESERVED):
        raise Invalid(f"image: {name} is a name that Higgins keeps for itself.")


def split(name: str) -> tuple[str, str]:
    """Pure: repository and tag of an image's name."""
    repo, colon, tag = name.rpartition(":")
    return (repo, tag) if colon and "/" not in tag else (name, "latest")


def committed_name(project_id: str, repo: str, tag: str) -> str:
    """Pure: what an engine calls the image that a project made by commit as ``repo:tag``."""
    return f"{COMMITTED}/{hashlib.sha256(f'{project_id} {repo}'.encode()).hexdigest()[:40]}:{tag}"


_COMMITTED = sa.select(image.c.project_id, image.c.repo, image.c.tag, image.c.reference).where(
    image.c.host == sa.bindparam("host"), image.c.reference.startswith(f"{COMMITTED}/", autoescape=True)
)


def committed(conn: Connection, host_name: str) -> dict[tuple[str, str, str], str]:
    """The images made by commit on a host: by project, repository and tag what its engine calls them."""
    rows = conn.execute(_COMMITTED, {"host": host_name})
    return {(row.project_id, row.repo, row.tag): row.reference for row in rows}


def _of(row: Row[Any]) -> Image:
    return Image(**{name: getattr(row, name) for name in Image.__struct_fields__})


async def record(
    cloud: Cloud,
    project_id: str,
    *,
    repo: str,
    tag: str,
    host: str,
    reference: str,
    image_id: str | None = None,
    size: int | None = None,
    found: FoundImage | None = None,
    user_id: str | None = None,
) -> Image:
    """Write down that an image is on a host, where its engine calls it ``reference``; the same again is one row.

    One without ``image_id`` is on its way there, unless it is there already. ``found`` and ``user_id`` are of one of
    the image service.
    """

    def work(conn: Connection) -> Image:
        key = (image.c.host == host) & (image.c.reference == reference)
        values = {
            "project_id": project_id,
            "found": None if found is None else to_json(found),
            "user_id": user_id,
        }
        if image_id is not None:
            values |= {"image_id": image_id, "size": None if size is None else str(size)}
        if conn.execute(sa.update(image).where(key).values(**values, updated_at=cloud.now())).rowcount == 0:
            conn.execute(
                sa.insert(image).values(
                    uuid=str(uuids.uuid4()), repo=repo, tag=tag, host=host, reference=reference,
                    created_at=cloud.now(), **values,
                )
            )  # fmt: skip
        return _of(conn.execute(sa.select(image).where(key)).one())

    return await cloud.store.write(work)


async def host_named(cloud: Cloud, ident: str) -> str:
    """The name of a host, by its name or uuid. Raises NotFound."""
    query = sa.select(host.c.name).where(sa.or_(host.c.name == ident, host.c.uuid == ident))
    name: str | None = await cloud.store.read(lambda conn: conn.execute(query).scalar())
    if name is None:
        raise NotFound("compute_node", ident)
    return name


async def pull(cloud: Cloud, actor: Actor, repo: str, tag: str, host_name: str) -> Image:
    """Have a host pull an image from its registry, by the host's name or uuid."""
    name = await host_named(cloud, host_name)
    reference = f"{repo}:{tag}"
    check_image(reference)
    pulled = await (await cloud.streams(name)).pull(reference, None)
    return await record(
        cloud, actor.project_id, repo=repo, tag=tag, host=name, reference=reference, image_id=pulled.id,
        size=pulled.size,
    )  # fmt: skip


async def find(cloud: Cloud, query: ListQuery) -> list[Image]:
    def work(conn: Connection) -> list[Image]:
        conditions, order = page(image, query, SORT_KEYS, conn, "image")
        rows = conn.execute(sa.select(image).where(*conditions).order_by(*order).limit(query.limit)).all()
        return [_of(row) for row in rows]

    return await cloud.store.read(work)


async def get(cloud: Cloud, uuid: str) -> Image:
    return _of(await _row(cloud, uuid))


async def _row(cloud: Cloud, uuid: str) -> Row[Any]:
    query = sa.select(image).where(image.c.uuid == uuid)
    row = await cloud.store.read(lambda conn: conn.execute(query).one_or_none())
    if row is None:
        raise NotFound("image", uuid)
    return row


async def forget(cloud: Cloud, uuid: str, *, unless_there: bool = False) -> None:
    """An image is not on its host any more; or did not come there, ``unless_there`` by what another did."""
    gone = sa.delete(image).where(image.c.uuid == uuid)
    if unless_there:
        gone = gone.where(image.c.image_id.is_(None))
    await cloud.store.write(lambda conn: conn.execute(gone).rowcount)


async def delete(cloud: Cloud, uuid: str) -> None:
    """Take an image off its host."""
    found = await _row(cloud, uuid)
    await (await cloud.streams(found.host)).remove_image(found.reference)
    await forget(cloud, uuid)


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
