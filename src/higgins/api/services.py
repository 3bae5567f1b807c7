"""The services on hosts, as an operator sees them: one agent each."""

from typing import Any

from higgins.api.call import Call
from higgins.api.schemas.common import MAX_LIMIT
from higgins.api.views import others as views
from higgins.control import hosts
from higgins.control.query import ListQuery


async def find(call: Call) -> Any:
    found = await hosts.find(call.cloud, ListQuery(limit=MAX_LIMIT))
    return {"services": [views.service(item) for item in found]}


async def enable(call: Call) -> Any:
    return _ability(views.service(await hosts.enable(call.cloud, call.query["host"], call.query["binary"])))


async def disable(call: Call) -> Any:
    host, binary, reason = call.query["host"], call.query["binary"], call.query["disabled_reason"]
    return _ability(views.service(await hosts.disable(call.cloud, host, binary, reason)))


def _ability(view: dict[str, Any]) -> dict[str, Any]:
    return {"service": {name: view[name] for name in ("host", "binary", "disabled", "disabled_reason")}}


async def force_down(call: Call) -> Any:
    host, binary, down = call.query["host"], call.query["binary"], call.query["forced_down"]
    view = views.service(await hosts.force_down(call.cloud, host, binary, down))
    return {"service": {name: view[name] for name in ("host", "binary", "forced_down")}}


async def delete(call: Call) -> Any:
    await hosts.delete(call.cloud, call.query["host"], call.query["binary"])
