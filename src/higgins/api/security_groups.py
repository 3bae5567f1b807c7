"""Security groups of a project, and their rules."""

from typing import Any

from higgins.api import paging
from higgins.api.call import Call, Located
from higgins.api.schemas.security_groups import rule_of
from higgins.api.views import security_groups as views
from higgins.control import security_groups
from higgins.model.resources import SecurityGroupRule


def _rule(given: dict[str, Any]) -> SecurityGroupRule:
    """A rule that has no id yet."""
    return SecurityGroupRule(id="", **given)


async def find(call: Call) -> Any:
    actor = call.actor_for("security_group:get_all_all_projects")
    page = paging.query(call, all_projects=call.query["all_projects"])
    found = await security_groups.find(call.cloud, actor, page)
    return {
        "security_groups": [views.security_group(item, call.base_url) for item in found],
        "next": paging.following(call, "security_groups", page, [item.uuid for item in found]),
    }


async def create(call: Call) -> Any:
    rules = tuple(_rule(given) for given in call.body["rules"])
    made = await security_groups.create(call.cloud, call.actor, call.body["name"], rules)
    return Located(views.security_group(made, call.base_url), f"security_groups/{made.uuid}")


async def get(call: Call) -> Any:
    found = await security_groups.get(call.cloud, call.actor, call.path["security_group"])
    return views.security_group(found, call.base_url)


async def rename(call: Call) -> Any:
    group = await security_groups.rename(call.cloud, call.actor, call.path["security_group"], call.body["name"])
    return views.security_group(group, call.base_url)


async def delete(call: Call) -> Any:
    await security_groups.delete(call.cloud, call.actor, call.path["security_group"])


async def add_rule(call: Call) -> Any:
    wanted = _rule(rule_of(call.body))
    group, made = await security_groups.add_rule(call.cloud, call.actor, call.path["security_group"], wanted)
    return views.rule(made, group)


async def delete_rule(call: Call) -> Any:
    await security_groups.delete_rule(call.cloud, call.actor, call.path["security_group"], call.path["rule"])
