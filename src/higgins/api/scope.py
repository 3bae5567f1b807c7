"""What a caller without a project (a token of system scope) may ask for."""

from higgins.api.call import Call
from higgins.api.routes import Route
from higgins.model.errors import Forbidden

#: Collections of things that belong to projects: the first word of their paths.
_OF_PROJECTS = frozenset({"containers", "capsules", "networks", "security_groups", "volumes", "registries", "events"})


def require_project(call: Call, route: Route) -> None:
    """Raises Forbidden where the call is about "my project's", and the caller has none.

    Left are calls about the cloud (hosts, services, quotas), lists of all projects, and for an administrator a single
    thing by its uuid.
    """
    if call.identity.project_id or route.path.split("/")[2] not in _OF_PROJECTS:
        return
    if call.query.get("all_projects") or (call.path and call.actor.is_admin):
        return
    raise Forbidden("This needs a token that is scoped to a project; one of system scope belongs to none.")
