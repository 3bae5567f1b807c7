"""What images, networks, services, quotas and registries may be asked with."""

from higgins.api.schemas import common
from higgins.api.schemas.common import ALL_PROJECTS, FLAG, IDENT, PAGING
from higgins.api.schemas.fields import Field, Fields, Object
from higgins.api.schemas.kinds import Anything, Optional, Text, Whole, Word

IMAGE_PULL: Fields = (
    Field("repo", common.IMAGE, required=True),
    Field("host", IDENT, required=True),
    Field("image_driver", common.IMAGE_DRIVER),
    Field("image_id", Optional(Text(0, 255))),
    Field("tag", Optional(common.TAG)),
    Field("size", Optional(Text(0, 32, "[0-9]*[bBkKmMgG]?"))),
    Field("image_pull_policy", Optional(Word("never", "always", "ifnotpresent", "Never", "Always", "IfNotPresent"))),
)
IMAGE_SEARCH: Fields = (
    Field("image_driver", common.IMAGE_DRIVER),
    Field("exact_match", FLAG, default=False),
    Field("image", Anything()),
)
PAGE: Fields = (*PAGING, ALL_PROJECTS)
PAGE_ONLY: Fields = PAGING

NETWORK_CREATE: Fields = (
    Field("name", Text(1, 255), required=True),
    Field("neutron_net_id", Optional(Text(1, 255)), default=None),
)

SERVICE: Fields = (Field("host", IDENT, required=True), Field("binary", IDENT, required=True))
SERVICE_DISABLE: Fields = (*SERVICE, Field("disabled_reason", Optional(Text(1, 255), word=True), default=None))
SERVICE_FORCE_DOWN: Fields = (*SERVICE, Field("forced_down", FLAG, required=True))

QUOTA: Fields = tuple(Field(name, Optional(Whole(-1))) for name in ("containers", "memory", "cpu", "disk"))
QUOTA_SHOW: Fields = (Field("usages", Text(0, 16), default=""),)

_CREDENTIALS = (
    Field("name", Optional(Text(2, 255))),
    Field("username", Optional(Text(1, 255))),
    Field("password", Optional(Text(1, 255))),
)
_DOMAIN = Text(1, 255, r"[A-Za-z0-9\[][A-Za-z0-9.:/_\[\]-]*", "the domain of a registry is wanted")
REGISTRY_CREATE: Fields = (
    Field("registry", Object(Field("domain", _DOMAIN, required=True), *_CREDENTIALS), required=True),
)
REGISTRY_UPDATE: Fields = (Field("registry", Object(Field("domain", _DOMAIN), *_CREDENTIALS), required=True),)
REGISTRY_LIST: Fields = (
    *PAGING,
    ALL_PROJECTS,
    *(Field(name, Text(1, 255)) for name in ("name", "domain", "username", "project_id", "user_id")),
)
REGISTRY_FILTERS = ("name", "domain", "username", "project_id", "user_id")
ALL_ONLY: Fields = (ALL_PROJECTS,)
EVENTS: Fields = (
    ALL_PROJECTS,
    Field("since", Whole(0, 2**53), default=None, doc="The id of the last event seen; or the Last-Event-ID header."),
)
