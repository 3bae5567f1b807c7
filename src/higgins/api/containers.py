"""Containers: list, create, show, change, delete."""

from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from higgins.api import drafts, idempotency, paging
from higgins.api.call import Call, Located, Told
from higgins.api.schemas.containers import FILTERS
from higgins.api.views import common
from higgins.api.views import containers as views
from higgins.control import containers, delivery
from higgins.control.rows import Making
from higgins.model.container import Status
from higgins.model.errors import SchemaInvalid, TooLarge
from higgins.model.resources import Container

_STATUSES = {status.lower(): status for status in Status}


def guarded(call: Call) -> frozenset[str]:
    """Those of the guarded attributes that the caller may see: asked once, however many containers there are."""
    return frozenset(name for name in views.GUARDED if call.allows(f"container:get_one:{name}"))


def show(call: Call, item: Container) -> dict[str, Any]:
    """One container, with its links."""
    view = views.container(item, guarded(call))
    view["links"] = common.links(call.base_url, "containers", item.uuid)
    return view


class _Item(NamedTuple):
    """A container of a list, ready to be sent."""

    uuid: str
    shown: msgspec.Raw


@cache
def _items(allowed: frozenset[str]) -> Making[_Item]:
    """For those who may see these of the guarded attributes."""
    return Making(lambda item: _Item(item.uuid, msgspec.Raw(msgspec.json.encode(views.container(item, allowed)))))


async def find(call: Call) -> Any:
    actor = call.actor_for("container:get_all_all_projects")
    if "host" in call.query:
        call.require("container:get_one:host")
    page = paging.query(call, filters=FILTERS, all_projects=call.query["all_projects"])
    found = await containers.find(call.cloud, actor, page, _items(guarded(call)))
    return {
        "containers": [item.shown for item in found],
        "next": paging.following(call, "containers", page, [item.uuid for item in found]),
    }


async def create(call: Call) -> Any:
    _check_size(call)
    draft = drafts.container(call)
    if call.query.get("dry_run"):
        return Told(await containers.dry_run(call.cloud, call.actor, draft), 200)
    draft = structs.replace(draft, spec=await delivery.pinned(call.cloud, call.actor, call.token, draft.spec))
    key, body_hash = idempotency.of(call)
    made = await containers.create(
        call.cloud, call.actor, draft, run=call.query["run"], idempotency_key=key, body_hash=body_hash
    )
    return Located(show(call, made), f"containers/{made.uuid}")


def _check_size(call: Call) -> None:
    """Only the content of files may make a body large. Raises ``TooLarge``."""
    mounts = call.body.get("mounts") or ()
    files = sum(len(mount.get("source") or "") for mount in mounts if mount["type"] == "bind")
    if len(call.raw) - files > call.settings.body_limit:
        raise TooLarge(f"The body, without the content of files, is larger than {call.settings.body_limit} bytes.")


async def get(call: Call) -> Any:
    ident = call.path["container"]
    actor = call.actor_for("container:get_one_all_projects")
    wanted = call.query.get("wait")
    if wanted is not None:
        if wanted.lower() not in _STATUSES:
            raise SchemaInvalid(f"Invalid value for field 'wait': one of {', '.join(Status)} is wanted.")
        return show(call, await containers.wait(call.cloud, actor, ident, wanted, call.query["timeout"]))
    return show(call, await containers.get(call.cloud, actor, ident))


async def update(call: Call) -> Any:
    body = {name: value for name, value in call.body.items() if value is not None}
    changed = body | drafts.limits(body, call.cloud.settings, default=False)
    return show(call, await containers.update(call.cloud, call.actor, call.path["container"], **changed))


async def resize(call: Call) -> Any:
    """The limits of a container, in place (its own action since 1.19)."""
    changed = drafts.limits(call.query, call.cloud.settings, default=False)
    ident = call.path["container"]
    return show(call, await containers.update(call.cloud, call.actor, ident, **changed, action="resize_container"))


async def rename(call: Call) -> Any:
    return show(call, await containers.rename(call.cloud, call.actor, call.path["container"], call.query["name"]))


async def delete(call: Call) -> Any:
    force, stop = call.query.get("force", False), call.query.get("stop", False)
    if force:
        call.require("container:delete_force")
    actor = call.actor_for("container:delete_all_projects")
    await containers.delete(
        call.cloud,
        actor,
        call.path["container"],
        force=force,
        stop=stop,
    )
