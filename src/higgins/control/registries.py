"""Registries of a project, with who to be there. Passwords are encrypted at rest and never told."""

import uuid as uuids
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import images
from higgins.control.cloud import Actor, Cloud
from higgins.control.lookup import by_uuid, page
from higgins.control.query import ListQuery
from higgins.model.errors import Conflict, Invalid, NotFound
from higgins.model.resources import Registry
from higgins.store.schema import container, registry

SORT_KEYS = frozenset({"id", "uuid", "name", "domain", "username", "project_id", "user_id", "created_at"})
FILTERS = frozenset({"name", "domain", "username", "project_id", "user_id"})


def _of(row: Row[Any]) -> Registry:
    return Registry(
        uuid=row.uuid,
        name=row.name,
        project_id=row.project_id,
        user_id=row.user_id,
        domain=row.domain,
        username=row.username,
        has_password=bool(row.password),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _row(conn: Connection, actor: Actor, ident: str) -> Row[Any]:
    row = by_uuid(conn, registry, actor, ident)
    if row is not None:
        return row
    rows = conn.execute(
        sa.select(registry).where(registry.c.project_id == actor.project_id, registry.c.name == ident).limit(2)
    ).all()
    if len(rows) > 1:
        raise Conflict(f"Several registries have the name {ident}; use the uuid.")
    if not rows:
        raise NotFound("registry", ident)
    return rows[0]


async def create(
    cloud: Cloud,
    actor: Actor,
    *,
    domain: str,
    name: str | None = None,
    username: str | None = None,
    password: str | None = None,
) -> Registry:
    images.check_image(f"{domain}/")

    def work(conn: Connection) -> Registry:
        uuid = str(uuids.uuid4())
        conn.execute(
            sa.insert(registry).values(
                uuid=uuid,
                name=name,
                project_id=actor.project_id,
                user_id=actor.user_id,
                domain=domain,
                username=username,
                password=_secret(cloud, password),
                created_at=cloud.now(),
            )
        )
        return _of(_row(conn, actor, uuid))

    return await cloud.store.write(work)


def _secret(cloud: Cloud, password: str | None) -> str | None:
    return cloud.secrets.encrypt(password.encode()).decode() if password else None


async def get(cloud: Cloud, actor: Actor, ident: str) -> Registry:
    return await cloud.store.read(lambda conn: _of(_row(conn, actor, ident)))


async def find(cloud: Cloud, actor: Actor, query: ListQuery) -> list[Registry]:
    def work(conn: Connection) -> list[Registry]:
        project = None if query.all_projects and actor.is_admin else actor.project_id
        conditions, order = page(registry, query, SORT_KEYS, conn, "registry", project=project)
        for key, value in query.filters.items():
            if key not in FILTERS:
                raise Invalid(f"Unknown parameters: {key}")
            conditions.append(registry.c[key] == value)
        rows = conn.execute(sa.select(registry).where(*conditions).order_by(*order).limit(query.limit)).all()
        return [_of(row) for row in rows]

    return await cloud.store.read(work)


async def update(cloud: Cloud, actor: Actor, ident: str, changes: dict[str, str | None]) -> Registry:
    """Change what is named of name, domain, username and password."""
    images.check_image(f"{changes.get('domain') or ''}/")

    def work(conn: Connection) -> Registry:
        row = _row(conn, actor, ident)
        values: dict[str, Any] = {**changes, "updated_at": cloud.now()}
        if "password" in changes:
            values["password"] = _secret(cloud, changes["password"])
        conn.execute(sa.update(registry).where(registry.c.id == row.id).values(values))
        return _of(_row(conn, actor, row.uuid))

    return await cloud.store.write(work)


async def delete(cloud: Cloud, actor: Actor, ident: str) -> None:
    """Forget a registry that no container uses; Conflict otherwise."""

    def work(conn: Connection) -> None:
        row = _row(conn, actor, ident)
        used = (
            sa.select(container.c.id)
            .where(container.c.project_id == row.project_id, container.c.spec.contains(f'"registry_id":"{row.uuid}"'))
            .limit(1)
        )
        if conn.execute(used).first() is not None:
            raise Conflict(f"Registry {row.uuid} is in use by a container.")
        conn.execute(sa.delete(registry).where(registry.c.id == row.id))

    await cloud.store.write(work)
