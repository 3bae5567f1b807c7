"""How a list is asked for."""

from typing import Literal

from msgspec import Struct, field


class ListQuery(Struct, kw_only=True):
    """A page of a list. ``marker`` is the uuid of the last item seen; filters match exactly."""

    limit: int = 1000
    marker: str | None = None
    sort_key: str = "id"
    sort_dir: Literal["asc", "desc"] = "asc"
    filters: dict[str, str | bool] = field(default_factory=dict)
    all_projects: bool = False
