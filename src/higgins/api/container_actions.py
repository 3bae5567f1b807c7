"""What can be done to a container, and what was done."""

from typing import Any

from higgins.api import drafts
from higgins.api.call import Call
from higgins.api.views import containers as views
from higgins.control import actions, containers
from higgins.model.errors import Invalid

#: Seconds a process gets to end by itself, where the caller does not say.
_TIMEOUT = 10.0


async def start(call: Call) -> Any:
    await containers.start(call.cloud, call.actor, call.path["container"])


async def stop(call: Call) -> Any:
    await containers.stop(call.cloud, call.actor, call.path["container"], timeout=_timeout(call))


async def reboot(call: Call) -> Any:
    await containers.reboot(call.cloud, call.actor, call.path["container"], timeout=_timeout(call))


def _timeout(call: Call) -> float:
    given: int | None = call.query["timeout"]
    return _TIMEOUT if given is None else given


async def pause(call: Call) -> Any:
    await containers.pause(call.cloud, call.actor, call.path["container"])


async def unpause(call: Call) -> Any:
    await containers.unpause(call.cloud, call.actor, call.path["container"])


async def kill(call: Call) -> Any:
    await containers.kill(call.cloud, call.actor, call.path["container"], signal=call.query["signal"])


async def rebuild(call: Call) -> Any:
    await containers.rebuild(
        call.cloud,
        call.actor,
        call.path["container"],
        image=call.query["image"],
        image_driver=call.query["image_driver"],
        token=call.token,
    )


async def network_attach(call: Call) -> Any:
    net = drafts.one_net(call.query)
    await containers.network_attach(call.cloud, call.actor, call.path["container"], net)


async def network_detach(call: Call) -> Any:
    network, port = call.query["network"], call.query.get("port")
    if (network is None) == (port is None):
        raise Invalid("Either 'network' or 'port' is wanted, and not both.")
    await containers.network_detach(call.cloud, call.actor, call.path["container"], network=network, port=port)


async def network_list(call: Call) -> Any:
    found = await containers.network_list(call.cloud, call.actor, call.path["container"])
    return {"networks": views.networks(found, call.version)}


async def add_security_group(call: Call) -> Any:
    await containers.add_security_group(call.cloud, call.actor, call.path["container"], call.query["name"])


async def remove_security_group(call: Call) -> Any:
    await containers.remove_security_group(call.cloud, call.actor, call.path["container"], call.query["name"])


async def find(call: Call) -> Any:
    found = await actions.find(call.cloud, call.actor, call.path["container"])
    return {"containerActions": [views.action(item) for item in found]}


async def get(call: Call) -> Any:
    item = await actions.get(call.cloud, call.actor, call.path["container"], call.path["request"])
    return views.action_with_events(item, traces=call.allows("container:action:events"))
