"""Hosts and availability zones."""

from typing import Any

from higgins.api import paging
from higgins.api.call import Call
from higgins.api.views import others as views
from higgins.control import hosts


async def find(call: Call) -> Any:
    page = paging.query(call, sort_key="hostname")
    found = await hosts.find(call.cloud, page)
    return {
        "hosts": [views.host(item, call.base_url) for item in found],
        "next": paging.following(call, "hosts", page, [item.uuid for item in found]),
    }


async def get(call: Call) -> Any:
    return views.host(await hosts.get(call.cloud, call.path["host"]), call.base_url)


async def zones(call: Call) -> Any:
    names = await hosts.zones(call.cloud)
    return {"availability_zones": [{"availability_zone": name} for name in names], "next": None}
