"""Pages of lists: what was asked for, and the link to the next page."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from higgins.api.call import Call
from higgins.api.schemas.common import MAX_LIMIT
from higgins.control.query import ListQuery


def query(call: Call, *, filters: Iterable[str] = (), sort_key: str = "id", all_projects: bool = False) -> ListQuery:
    """The page that ``call`` asks for."""
    asked = call.query
    return ListQuery(
        limit=asked.get("limit", MAX_LIMIT),
        marker=asked.get("marker"),
        sort_key=asked.get("sort_key", sort_key),
        sort_dir=asked.get("sort_dir", "asc"),
        filters={name: asked[name] for name in filters if name in asked},
        all_projects=all_projects,
    )


def following(call: Call, plural: str, page: ListQuery, uuids: list[str]) -> str | None:
    """The URL of the next page; None where this one was not full. Clients strip all before ``/v1/``."""
    if not uuids or len(uuids) < page.limit:
        return None
    parts: dict[str, Any] = {"sort_key": page.sort_key, "sort_dir": page.sort_dir, "limit": page.limit}
    parts |= page.filters
    if page.all_projects:
        parts["all_projects"] = True
    return f"{call.base_url}/v1/{plural}?{urlencode(parts | {'marker': uuids[-1]})}"
