"""The one table of routes: what is served, to whom, since when, with which parameters and which answer.

Dispatch, the OpenAPI document and the tests read it. A parameter in ``either`` may come in the query string or in a
JSON body, as Zun has it for actions.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from higgins.api import (
    capsules,
    container_actions,
    containers,
    events,
    hosts,
    images,
    looking,
    networks,
    quotas,
    registries,
    security_groups,
    services,
    volumes,
)
from higgins.api.call import Call
from higgins.api.microversion import MAXIMUM, MINIMUM, Version
from higgins.api.schemas import capsules as capsule_fields
from higgins.api.schemas import containers as fields
from higgins.api.schemas import others
from higgins.api.schemas import security_groups as group_fields
from higgins.api.schemas.fields import Fields

Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call. ``rule`` is the policy that guards it; ``target`` names the part of the path that is a project's id.

    It is served from version ``since`` to ``until``, but not in those of the ``gap`` (both ends belong to it).

    ``lax`` passes over query parameters that nobody knows, where Zun does. ``limit`` is which of the body limits of
    the settings holds. ``streams``: what is answered may be a stream, or has an effect, so that there is no HEAD.
    ``answer`` is the name of the response's schema.
    """

    method: str
    path: str
    handler: Handler
    rule: str | None
    status: int = 200
    since: Version = MINIMUM
    until: Version = MAXIMUM
    gap: tuple[Version, Version] | None = None
    query: Fields = ()
    body: Fields | None = None
    either: Fields | None = None
    lax: bool = False
    limit: str = "body_limit"
    target: str | None = None
    streams: bool = False
    answer: str = "Null"
    summary: str = ""

    def serves(self, version: Version) -> bool:
        gone = self.gap is not None and self.gap[0] <= version <= self.gap[1]
        return self.since <= version <= self.until and not gone


_ALL = "/v1/containers"
_ONE = "/v1/containers/{container}"


def _action(name: str, handler: Handler, either: Fields = (), status: int = 202, **more: Any) -> Route:
    """A POST on a container, guarded by the rule of its own name."""
    return Route("POST", f"{_ONE}/{name}", handler, f"container:{name}", status, either=either, **more)


def _look(name: str, handler: Handler, query: Fields = (), **more: Any) -> Route:
    """A GET on a container, guarded by the rule of its own name."""
    return Route("GET", f"{_ONE}/{name}", handler, f"container:{name}", query=query, **more)


#: In these versions of Zun the security groups of a container are Neutron's to change.
_GROUPS_WERE_NEUTRONS = (Version(1, 15), Version(1, 48))

A = container_actions
CONTAINERS = (
    Route("GET", _ALL, containers.find, "container:get_all", query=fields.LIST, answer="Containers",
          summary="List containers"),
    Route("POST", _ALL, containers.create, "container:create", 202, query=fields.CREATE_QUERY, body=fields.CREATE,
          limit="files_limit", answer="Container", summary="Create a container"),
    Route("GET", _ONE, containers.get, "container:get_one", query=fields.SHOW, lax=True, answer="Container",
          summary="Show a container"),
    Route("PATCH", _ONE, containers.update, "container:update", body=fields.UPDATE, answer="Container",
          summary="Change a container"),
    Route("DELETE", _ONE, containers.delete, "container:delete", 204, query=fields.DELETE,
          summary="Delete a container"),
    _action("start", A.start, summary="Start a container"),
    _action("stop", A.stop, fields.TIMEOUT, summary="Stop a container"),
    _action("reboot", A.reboot, fields.TIMEOUT, summary="Restart a container"),
    _action("pause", A.pause, summary="Pause a container"),
    _action("unpause", A.unpause, summary="Let a paused container go on"),
    _action("kill", A.kill, fields.KILL, summary="Send a signal"),
    _action("rebuild", A.rebuild, fields.REBUILD, summary="Make a container anew"),
    _look("logs", looking.logs, fields.LOGS, streams=True, answer="Text", summary="Read the output"),
    _action("execute", looking.execute, fields.EXECUTE, 200, answer="Execution", summary="Run a command"),
    _action("execute_resize", looking.execute_resize, fields.EXECUTE_RESIZE, 200, summary="Resize its terminal"),
    _look("attach", looking.attach, streams=True, answer="Text", summary="Attach to a container"),
    _action("resize", looking.resize, fields.RESIZE, 200, summary="Resize a container's terminal"),
    _look("top", looking.top, fields.TOP, answer="Processes", summary="See the processes"),
    _look("get_archive", looking.get_archive, fields.PATH, streams=True, answer="Archive", summary="Copy files out"),
    _action("put_archive", looking.put_archive, fields.PUT_ARCHIVE, 200, limit="archive_limit",
            summary="Copy files in"),
    _look("stats", looking.stats, answer="Stats", summary="See what a container uses"),
    _action("commit", looking.commit, fields.COMMIT, answer="Uuid", summary="Make an image of a container"),
    _action("network_attach", A.network_attach, fields.NETWORK_ATTACH, 200, since=Version(1, 8),
            summary="Attach a network"),
    _action("network_detach", A.network_detach, fields.NETWORK_DETACH, since=Version(1, 6),
            summary="Detach a network"),
    _look("network_list", A.network_list, since=Version(1, 13), answer="Attachments", summary="List its networks"),
    _action("add_security_group", A.add_security_group, fields.SECURITY_GROUP, gap=_GROUPS_WERE_NEUTRONS,
            summary="Add a security group"),
    _action("remove_security_group", A.remove_security_group, fields.SECURITY_GROUP, gap=_GROUPS_WERE_NEUTRONS,
            summary="Remove a security group"),
    _action("rename", containers.rename, fields.RENAME, 200, until=Version(1, 13), answer="Container",
            summary="Rename a container"),
    _action("resize_container", containers.resize, fields.RESIZE_CONTAINER, since=Version(1, 19), answer="Container",
            summary="Change cpu and memory"),
    Route("GET", f"{_ONE}/container_actions", A.find, "container:actions", answer="Actions",
          summary="List what was asked of a container"),
    Route("GET", f"{_ONE}/container_actions/{{request}}", A.get, "container:actions", answer="Action",
          summary="Show one thing that was asked"),
)  # fmt: skip

CAPSULES = (
    Route("GET", "/v1/capsules", capsules.find, "capsule:get_all", query=others.PAGE, lax=True, answer="Capsules",
          summary="List capsules"),
    Route("POST", "/v1/capsules", capsules.create, "capsule:create", 202, body=capsule_fields.CREATE, answer="Capsule",
          summary="Create a capsule"),
    Route("GET", "/v1/capsules/{capsule}", capsules.get, "capsule:get", query=others.ALL_ONLY, lax=True,
          answer="Capsule", summary="Show a capsule"),
    Route("DELETE", "/v1/capsules/{capsule}", capsules.delete, "capsule:delete", 204, query=others.ALL_ONLY, lax=True,
          summary="Delete a capsule"),
)  # fmt: skip

IMAGES = (
    Route("GET", "/v1/images", images.find, "image:get_all", query=others.PAGE_ONLY, lax=True, answer="Images",
          summary="List images"),
    Route("POST", "/v1/images", images.pull, "image:pull", 202, body=others.IMAGE_PULL, answer="Image",
          summary="Pull an image to a host"),
    Route("GET", "/v1/images/{image}", images.get, "image:get_one", lax=True, answer="Image", summary="Show an image"),
    Route("DELETE", "/v1/images/{image}", images.delete, "image:delete", lax=True, summary="Delete an image"),
    Route("GET", "/v1/images/{image}/search", images.search, "image:search", query=others.IMAGE_SEARCH,
          answer="Rows", summary="Search for images"),
)  # fmt: skip

NETWORKS = (
    Route("GET", "/v1/networks", networks.find, "network:get_all", since=Version(1, 47), lax=True, answer="Networks",
          summary="List networks"),
    Route("POST", "/v1/networks", networks.create, "network:create", body=others.NETWORK_CREATE, answer="Network",
          summary="Create a network"),
    Route("DELETE", "/v1/networks/{network}", networks.delete, "network:delete", 204, since=Version(1, 27), lax=True,
          summary="Delete a network"),
)  # fmt: skip

_GROUPS = "/v1/security_groups"
_GROUP = f"{_GROUPS}/{{security_group}}"
_GROUPS_SINCE = Version(1, 49)
SECURITY_GROUPS = (
    Route("GET", _GROUPS, security_groups.find, "security_group:get_all", since=_GROUPS_SINCE, query=others.PAGE,
          answer="SecurityGroups", summary="List security groups"),
    Route("POST", _GROUPS, security_groups.create, "security_group:create", 201, since=_GROUPS_SINCE,
          body=group_fields.CREATE, answer="SecurityGroup", summary="Create a security group"),
    Route("GET", _GROUP, security_groups.get, "security_group:get_one", since=_GROUPS_SINCE, answer="SecurityGroup",
          summary="Show a security group"),
    Route("PATCH", _GROUP, security_groups.rename, "security_group:update", since=_GROUPS_SINCE,
          body=group_fields.UPDATE, answer="SecurityGroup", summary="Rename a security group"),
    Route("DELETE", _GROUP, security_groups.delete, "security_group:delete", 204, since=_GROUPS_SINCE,
          summary="Delete a security group"),
    Route("POST", f"{_GROUP}/rules", security_groups.add_rule, "security_group:create_rule", 201, since=_GROUPS_SINCE,
          body=group_fields.RULE, answer="SecurityGroupRule", summary="Add a rule to a security group"),
    Route("DELETE", f"{_GROUP}/rules/{{rule}}", security_groups.delete_rule, "security_group:delete_rule", 204,
          since=_GROUPS_SINCE, summary="Delete a rule of a security group"),
)  # fmt: skip

VOLUMES = (
    Route("GET", "/v1/volumes", volumes.find, "volume:get_all", since=Version(1, 48), query=others.PAGE,
          answer="Volumes", summary="List the volumes that are kept"),
    Route("DELETE", "/v1/volumes/{volume}", volumes.delete, "volume:delete", 204, since=Version(1, 48),
          summary="Delete a volume"),
)  # fmt: skip

OPERATING = (
    Route("GET", "/v1/hosts", hosts.find, "host:get_all", since=Version(1, 4), query=others.PAGE_ONLY, lax=True,
          answer="Hosts", summary="List hosts"),
    Route("GET", "/v1/hosts/{host}", hosts.get, "host:get", since=Version(1, 4), lax=True, answer="Host",
          summary="Show a host"),
    Route("GET", "/v1/availability_zones", hosts.zones, "availability_zones:get_all", query=others.PAGE_ONLY, lax=True,
          answer="Zones", summary="List availability zones"),
    Route("GET", "/v1/services", services.find, "zun-service:get_all", lax=True, answer="Services",
          summary="List services"),
    Route("DELETE", "/v1/services", services.delete, "zun-service:delete", either=others.SERVICE,
          summary="Forget a service"),
    Route("PUT", "/v1/services/enable", services.enable, "zun-service:enable", either=others.SERVICE,
          answer="Service", summary="Enable a service"),
    Route("PUT", "/v1/services/disable", services.disable, "zun-service:disable", either=others.SERVICE_DISABLE,
          answer="Service", summary="Disable a service"),
    Route("PUT", "/v1/services/force_down", services.force_down, "zun-service:force_down",
          either=others.SERVICE_FORCE_DOWN, answer="Service", summary="Declare a service down"),
)  # fmt: skip

QUOTAS = (
    Route("GET", "/v1/quotas/{project}", quotas.get, "quota:get", query=others.QUOTA_SHOW, lax=True, target="project",
          answer="Quota", summary="See a quota"),
    Route("GET", "/v1/quotas/{project}/defaults", quotas.defaults, "quota:get_default", lax=True, target="project",
          answer="Quota", summary="See the default quota"),
    Route("PUT", "/v1/quotas/{project}", quotas.update, "quota:update", either=others.QUOTA, target="project",
          answer="Quota", summary="Change a quota"),
    Route("DELETE", "/v1/quotas/{project}", quotas.delete, "quota:delete", lax=True, target="project",
          summary="Set a quota back"),
    Route("GET", "/v1/quota_classes/{quota_class}", quotas.class_get, "quota_class:get", lax=True, answer="Quota",
          summary="See a quota class"),
    Route("PUT", "/v1/quota_classes/{quota_class}", quotas.class_update, "quota_class:update", either=others.QUOTA,
          answer="Quota", summary="Change a quota class"),
)  # fmt: skip

REGISTRIES = (
    Route("GET", "/v1/registries", registries.find, "registry:get_all", query=others.REGISTRY_LIST,
          answer="Registries", summary="List registries"),
    Route("POST", "/v1/registries", registries.create, "registry:create", 201, body=others.REGISTRY_CREATE,
          answer="Registry", summary="Add a registry"),
    Route("GET", "/v1/registries/{registry}", registries.get, "registry:get_one", query=others.ALL_ONLY, lax=True,
          answer="Registry", summary="Show a registry"),
    Route("PATCH", "/v1/registries/{registry}", registries.update, "registry:update", body=others.REGISTRY_UPDATE,
          answer="Registry", summary="Change a registry"),
    Route("DELETE", "/v1/registries/{registry}", registries.delete, "registry:delete", 204, lax=True,
          summary="Delete a registry"),
)  # fmt: skip

EVENTS = (
    Route("GET", "/v1/events", events.stream, "event:get_all", since=Version(1, 42), query=others.EVENTS, streams=True,
          answer="Stream", summary="Follow what happens to containers"),
)  # fmt: skip

ROUTES: tuple[Route, ...] = (
    *CONTAINERS, *CAPSULES, *IMAGES, *NETWORKS, *SECURITY_GROUPS, *VOLUMES, *OPERATING, *QUOTAS, *REGISTRIES, *EVENTS,
)  # fmt: skip
