"""A capsule: as it is shown since 1.32, and as before."""

from collections.abc import Collection

from higgins.api.microversion import Version
from higgins.api.views.common import View, links, time
from higgins.api.views.containers import container
from higgins.model.resources import Capsule

_NEW = Version(1, 32)


def capsule(item: Capsule, version: Version, base: str, guarded: Collection[str], *, host: bool) -> View:
    view: View = {
        "uuid": item.uuid,
        "links": links(base, "capsules", item.uuid),
        "project_id": item.project_id,
        "user_id": item.user_id,
        "cpu": item.cpu,
        "memory": str(item.memory),
        "status": item.status,
        "status_reason": item.status_reason,
        "addresses": item.addresses,
        "created_at": time(item.created_at),
        "updated_at": time(item.updated_at),
        "containers": [container(member, guarded) for member in item.containers],
        "init_containers": [container(member, guarded) for member in item.init_containers],
    }
    if host:
        view["host"] = item.host
    return view | (_new(item) if version >= _NEW else _old(item))


def _new(item: Capsule) -> View:
    return {
        "name": item.name,
        "labels": item.labels,
        "annotations": item.annotations,
        "restart_policy": {
            "Name": item.restart_policy.name,
            "MaximumRetryCount": str(item.restart_policy.maximum_retry_count),
        },
    }


def _old(item: Capsule) -> View:
    return {
        "meta_name": item.name,
        "meta_labels": item.labels,
        "restart_policy": item.restart_policy.name,
        "capsule_version": "",
        "volumes_info": {},
        "containers_uuids": [member.uuid for member in item.containers],
        "init_containers_uuids": [member.uuid for member in item.init_containers],
    }
