"""What happens to containers, as server-sent events (since 1.42)."""

from typing import Any

import msgspec
from aiohttp import web

from higgins.api.call import Call
from higgins.api.schemas.fields import read
from higgins.api.schemas.others import EVENTS
from higgins.api.streams import gone
from higgins.api.views import others as views
from higgins.control import events


async def stream(call: Call) -> Any:
    """Each change of a status as an event ``container.status``; taken up again with ``Last-Event-ID``."""
    actor = call.actor_for("event:get_all_all_projects")
    since: int | None = call.query["since"]
    last = call.request.headers.get("Last-Event-ID")
    if since is None and last:
        since = read(EVENTS, {"since": last}, call.version)["since"]
    with call.streams.one(call.actor.project_id):
        if since is None:
            since = await events.newest(call.cloud)  # before the caller is told that events follow
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        await response.write(b": events follow\n\n")
        changes = events.stream(call.cloud, actor, since, all_projects=call.query["all_projects"])
        try:
            async for change in changes:
                if gone(call.request):
                    break
                if change is None:
                    await response.write(b": still here\n\n")
                    continue
                data = msgspec.json.encode(views.event(change)).decode()
                await response.write(f"id: {change.id}\nevent: container.status\ndata: {data}\n\n".encode())
        finally:
            await changes.aclose()  # type: ignore[attr-defined]
    return response
