"""Capsules: a template in, several containers in one sandbox out."""

from typing import Any

from msgspec import structs

from higgins.api import idempotency, paging
from higgins.api.call import Call, Located
from higgins.api.containers import guarded
from higgins.api.drafts import limits
from higgins.api.schemas.capsules import read_template
from higgins.api.views import capsules as views
from higgins.control import capsules, delivery
from higgins.control.capsules import CapsuleDraft
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec, Mount, RestartPolicy
from higgins.model.resources import Capsule

_RESTART = {"Never": "no", "Always": "always", "OnFailure": "on-failure"}


def draft(template: dict[str, Any], settings: Settings, *, may_pull: bool) -> CapsuleDraft:
    """Pure: what a template that was read asks for. ``may_pull``: whether the pull policy is the caller's to set."""
    spec, metadata = template["spec"], template["metadata"]
    volumes = {volume["name"]: volume["cinder"] for volume in spec.get("volumes") or ()}
    restart = spec.get("restartPolicy") or template.get("restartPolicy") or "Always"
    shared: dict[str, Any] = {
        "availability_zone": template.get("availabilityZone"),
        "security_groups": tuple(dict.fromkeys(spec.get("securityGroups") or ())),
    }
    return CapsuleDraft(
        name=metadata.get("name"),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        restart_policy=RestartPolicy(_RESTART[restart]),
        containers=tuple(_member(item, volumes, shared, settings, may_pull=may_pull) for item in spec["containers"]),
        init_containers=tuple(
            _member(item, volumes, shared, settings, may_pull=may_pull) for item in spec["initContainers"]
        ),
    )


def _member(
    item: dict[str, Any], volumes: dict[str, Any], shared: dict[str, Any], settings: Settings, *, may_pull: bool
) -> ContainerSpec:
    """``shared`` is what all members of the capsule have in common."""
    requests = (item.get("resources") or {}).get("requests") or {}
    told: dict[str, Any] = {}
    if may_pull and item.get("imagePullPolicy"):
        told["image_pull_policy"] = item["imagePullPolicy"]
    return ContainerSpec(
        image=item["image"],
        image_driver=settings.image_driver,
        command=(*(item.get("command") or ()), *(item.get("args") or ())),
        environment=item.get("env") or {},
        workdir=item.get("workDir") or item.get("workingDir"),
        interactive=item.get("stdin", False),
        tty=item.get("tty", False),
        **limits(requests, settings),
        exposed_ports=tuple(
            f"{port['containerPort']}/{port.get('protocol', 'TCP').lower()}" for port in item.get("ports") or ()
        ),
        mounts=tuple(_mount(mount, volumes[mount["name"]]) for mount in item.get("volumeMounts") or ()),
        **shared,
        **told,
    )


def _mount(mount: dict[str, Any], volume: dict[str, Any]) -> Mount:
    """``volume`` is the name within the template: members that mount the same name share what is made for it."""
    return Mount(
        destination=mount["mountPath"],
        source=volume.get("volumeID"),
        size=volume.get("size"),
        volume=f"template:{mount['name']}" if "size" in volume else None,
        read_only=mount.get("readOnly", False),
    )


def _show(call: Call, item: Capsule, allowed: frozenset[str], *, host: bool) -> dict[str, Any]:
    return views.capsule(item, call.version, call.base_url, allowed, host=host)


def _one(call: Call, item: Capsule) -> dict[str, Any]:
    return _show(call, item, guarded(call), host=call.allows("capsule:get:host"))


async def find(call: Call) -> Any:
    actor = call.actor_for("capsule:get_all_all_projects")
    page = paging.query(call, all_projects=call.query["all_projects"])
    found = await capsules.find(call.cloud, actor, page)
    allowed, host = guarded(call), call.allows("capsule:get:host")
    return {
        "capsules": [_show(call, item, allowed, host=host) for item in found],
        "next": paging.following(call, "capsules", page, [item.uuid for item in found]),
    }


async def _pinned(call: Call, specs: tuple[ContainerSpec, ...]) -> tuple[ContainerSpec, ...]:
    return tuple([await delivery.pinned(call.cloud, call.actor, call.token, spec) for spec in specs])


async def create(call: Call) -> Any:
    template = read_template(call.body["template"], call.version)
    wanted = draft(template, call.cloud.settings, may_pull=call.allows("container:create:image_pull_policy"))
    wanted = structs.replace(
        wanted,
        containers=await _pinned(call, wanted.containers),
        init_containers=await _pinned(call, wanted.init_containers),
    )
    key, body_hash = idempotency.of(call)
    made = await capsules.create(call.cloud, call.actor, wanted, idempotency_key=key, body_hash=body_hash)
    return Located(_one(call, made), f"capsules/{made.uuid}")


async def get(call: Call) -> Any:
    actor = call.actor_for("capsule:get_one_all_projects")
    return _one(call, await capsules.get(call.cloud, actor, call.path["capsule"]))


async def delete(call: Call) -> Any:
    actor = call.actor_for("capsule:delete_all_projects")
    await capsules.delete(call.cloud, actor, call.path["capsule"])
