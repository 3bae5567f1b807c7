"""Volumes that a project keeps."""

from typing import Any

from higgins.api import paging
from higgins.api.call import Call
from higgins.api.views import others as views
from higgins.control import volumes


async def find(call: Call) -> Any:
    actor = call.actor_for("volume:get_all_all_projects")
    page = paging.query(call, all_projects=call.query["all_projects"])
    found = await volumes.find(call.cloud, actor, page)
    return {
        "volumes": [views.volume(item, call.base_url) for item in found],
        "next": paging.following(call, "volumes", page, [item.uuid for item in found]),
    }


async def delete(call: Call) -> Any:
    await volumes.delete(call.cloud, call.actor, call.path["volume"])
