"""Networks that containers of a project can be on."""

from typing import Any

from higgins.api.call import Call
from higgins.api.views import others as views
from higgins.control import networks


async def find(call: Call) -> Any:
    return {"networks": [views.network(item) for item in await networks.find(call.cloud, call.actor)]}


async def create(call: Call) -> Any:
    made = await networks.create(call.cloud, call.actor, call.body["name"], call.body["neutron_net_id"])
    return views.network(made)


async def delete(call: Call) -> Any:
    await networks.delete(call.cloud, call.actor, call.path["network"])
