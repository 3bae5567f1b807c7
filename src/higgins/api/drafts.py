"""From the body of a create to what control is asked for: defaults, ranges, and what may not go together."""

from typing import Any

from higgins.api.call import Call
from higgins.api.microversion import Version
from higgins.api.schemas.containers import MOUNT_TYPE_SINCE
from higgins.control.containers import Draft, NetRequest
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec, Healthcheck, Mount, RestartPolicy
from higgins.model.errors import Invalid, ParamTooNew, SchemaInvalid

_NO_BOTH_SINCE = Version(1, 20)
_TTY_SINCE = Version(1, 36)


def container(call: Call) -> Draft:
    """What ``call`` (a POST of a container) asks for. Raises ``Forbidden`` for what is not the caller's to set."""
    body = {name: value for name, value in call.body.items() if value is not None}
    _permitted(call, body)
    _together(body, call.version)
    spec = ContainerSpec(
        **{"image_driver": call.cloud.settings.image_driver} | _same(body),
        **limits(body, call.cloud.settings),
        disk=_disk(body, call.cloud.settings),
        tty=body.get("tty", False) if call.version >= _TTY_SINCE else body.get("interactive", False),
        entrypoint=body.get("entrypoint"),
        restart_policy=RestartPolicy(**body.get("restart_policy", {})),
        healthcheck=_healthcheck(body.get("healthcheck")),
        mounts=tuple(Mount(**mount) for mount in body.get("mounts", ())),
        security_groups=tuple(dict.fromkeys(body.get("security_groups", ()))),
        registry_id=body.get("registry"),
        requested_host=body.get("host"),
    )
    return Draft(name=body.get("name"), spec=spec, nets=tuple(_net(net) for net in body.get("nets", ())))


#: Fields whose value goes into the spec under the same name.
_PLAIN = (
    "image", "image_driver", "image_pull_policy", "command", "environment", "labels", "workdir", "hostname",
    "interactive", "privileged", "runtime", "cpu_policy", "auto_remove", "auto_heal", "exposed_ports", "hints",
    "availability_zone",
)  # fmt: skip


def _same(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in _PLAIN if name in body}


def _permitted(call: Call, body: dict[str, Any]) -> None:
    for field, rule in (
        ("runtime", "container:create:runtime"),
        ("privileged", "container:create:privileged"),
        ("host", "container:create:requested_destination"),
        ("image_pull_policy", "container:create:image_pull_policy"),
    ):
        if body.get(field):
            call.require(rule)


def _together(body: dict[str, Any], version: Version) -> None:
    if version >= _NO_BOTH_SINCE and body.get("exposed_ports") and body.get("security_groups"):
        raise SchemaInvalid("Fields 'exposed_ports' and 'security_groups' cannot be given together.")
    for number, mount in enumerate(body.get("mounts", ())):
        if mount["type"] == "bind" and version < MOUNT_TYPE_SINCE:
            raise ParamTooNew(
                f"Field 'mounts[{number}].type' is not known in this version; it came with microversion "
                f"{MOUNT_TYPE_SINCE}."
            )


def limits(given: dict[str, Any], settings: Settings, *, default: bool = True) -> dict[str, Any]:
    """``cpu`` (cores) and ``memory`` (MiB) within the operator's range; with what is not given only if ``default``."""
    told: dict[str, Any] = {"cpu": settings.default_cpu, "memory": settings.default_memory} if default else {}
    told |= {name: given[name] for name in ("cpu", "memory") if given.get(name) is not None}
    _within("cpu", told.get("cpu"), settings.minimum_cpu, settings.maximum_cpu)
    _within("memory", told.get("memory"), settings.minimum_memory, settings.maximum_memory)
    return told


def _disk(body: dict[str, Any], settings: Settings) -> int:
    disk: int = body.get("disk", 0)
    if disk:
        _within("disk", disk, settings.minimum_disk, settings.maximum_disk)
    return disk


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise SchemaInvalid(f"Invalid value for field '{name}': a number from {low:g} to {high:g} is wanted.")


def _healthcheck(given: dict[str, Any] | None) -> Healthcheck | None:
    if given is None:
        return None
    told = {name: value for name, value in given.items() if value is not None and name != "cmd"}
    return Healthcheck(test=given["cmd"], **told)


def _net(given: dict[str, Any]) -> NetRequest:
    return NetRequest(
        network=given.get("network") or None,
        port=given.get("port") or None,
        v4_fixed_ip=given.get("v4-fixed-ip"),
        v6_fixed_ip=given.get("v6-fixed-ip"),
    )


def one_net(query: dict[str, Any]) -> NetRequest:
    """The one network or port of a network_attach."""
    if (query["network"] is None) == (query["port"] is None):
        raise Invalid("Either 'network' or 'port' is wanted, and not both.")
    fixed_ip = query.get("fixed_ip")
    v6 = fixed_ip is not None and ":" in fixed_ip
    return NetRequest(
        network=query["network"],
        port=query["port"],
        v4_fixed_ip=None if v6 else fixed_ip,
        v6_fixed_ip=fixed_ip if v6 else None,
    )
