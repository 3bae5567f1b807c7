"""Registries of a project."""

from typing import Any

from higgins.api import paging
from higgins.api.call import Call, Located
from higgins.api.schemas.others import REGISTRY_FILTERS
from higgins.api.views import common
from higgins.api.views import others as views
from higgins.control import registries
from higgins.model.resources import Registry


def _show(call: Call, item: Registry) -> dict[str, Any]:
    return {"registry": views.registry(item) | {"links": common.links(call.base_url, "registries", item.uuid)}}


async def find(call: Call) -> Any:
    actor = call.actor_for("registry:get_all_all_projects")
    page = paging.query(call, filters=REGISTRY_FILTERS, all_projects=call.query["all_projects"])
    found = await registries.find(call.cloud, actor, page)
    return {
        "registries": [views.registry(item) for item in found],
        "next": paging.following(call, "registries", page, [item.uuid for item in found]),
    }


async def create(call: Call) -> Any:
    made = await registries.create(call.cloud, call.actor, **call.body["registry"])
    return Located(_show(call, made), f"registries/{made.uuid}")


async def get(call: Call) -> Any:
    return _show(call, await registries.get(call.cloud, call.actor, call.path["registry"]))


async def update(call: Call) -> Any:
    return _show(call, await registries.update(call.cloud, call.actor, call.path["registry"], call.body["registry"]))


async def delete(call: Call) -> Any:
    await registries.delete(call.cloud, call.actor, call.path["registry"])
