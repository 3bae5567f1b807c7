"""Quotas of projects and of the class that is the default."""

from typing import Any

from higgins.api.call import Call
from higgins.control import quotas


async def get(call: Call) -> Any:
    # Zun takes any text here as yes; the real client writes False for no.
    if call.query["usages"].lower() not in ("", "false", "0", "no", "off", "none"):
        used = await quotas.usages(call.cloud, call.path["project"])
        return {name: {"limit": limit, "in_use": in_use} for name, (limit, in_use) in used.items()}
    return await quotas.get(call.cloud, call.path["project"])


async def defaults(call: Call) -> Any:
    return await quotas.defaults(call.cloud)


def _changes(call: Call) -> dict[str, int]:
    return {name: limit for name, limit in call.query.items() if limit is not None}


async def update(call: Call) -> Any:
    return await quotas.update(call.cloud, call.path["project"], _changes(call))


async def delete(call: Call) -> Any:
    await quotas.delete(call.cloud, call.path["project"])


async def class_get(call: Call) -> Any:
    return await quotas.class_get(call.cloud, call.path["quota_class"])


async def class_update(call: Call) -> Any:
    return await quotas.class_update(call.cloud, call.path["quota_class"], _changes(call))
