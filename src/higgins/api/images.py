"""Images: those an administrator had pulled to hosts, and searching for some."""

from typing import Any

from higgins.api import paging
from higgins.api.call import Call, Located
from higgins.api.views import others as views
from higgins.control import delivery, images
from higgins.model.errors import Invalid


async def find(call: Call) -> Any:
    page = paging.query(call)
    found = await images.find(call.cloud, page)
    return {
        "images": [views.image(item, call.base_url) for item in found],
        "next": paging.following(call, "images", page, [item.uuid for item in found]),
    }


def split_tag(repo: str) -> tuple[str, str | None]:
    """Repository and tag of what may carry one; the colon of a registry's port is no tag."""
    head, slash, tail = repo.rpartition("/")
    name, colon, tag = tail.partition(":")
    return (f"{head}{slash}{name}", tag) if colon and tag else (repo, None)


async def pull(call: Call) -> Any:
    if (call.body.get("image_driver") or call.cloud.settings.image_driver) == "glance":
        if call.body.get("tag"):
            raise Invalid("tag: an image of the image service has none; its name, or its id, is all.")
        image = await delivery.pull(call.cloud, call.actor, call.token, call.body["repo"], call.body["host"])
        return Located(views.image(image, call.base_url), f"images/{image.uuid}")
    repo, tag = split_tag(call.body["repo"])
    image = await images.pull(call.cloud, call.actor, repo, tag or call.body.get("tag") or "latest", call.body["host"])
    return Located(views.image(image, call.base_url), f"images/{image.uuid}")


async def get(call: Call) -> Any:
    return views.image(await images.get(call.cloud, call.path["image"]), call.base_url)


async def delete(call: Call) -> Any:
    await images.delete(call.cloud, call.path["image"])


async def search(call: Call) -> Any:
    name, exact = call.path["image"], call.query["exact_match"]
    if (call.query.get("image_driver") or call.cloud.settings.image_driver) == "glance":
        return await delivery.of(call.cloud).service.search(name, call.token, exact=exact)
    return await images.search(call.cloud, name, exact_match=exact)
