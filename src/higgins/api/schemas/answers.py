"""What is answered, as JSON Schema. A test holds these and the views together."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
WHOLE: Schema = {"type": "integer"}
WHOLE_OR_NULL: Schema = {"type": ["integer", "null"]}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
MAP: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
TEXTS: Schema = {"type": "array", "items": TEXT}
LINKS: Schema = {"type": "array", "items": MAP}
POLICY: Schema = {
    "type": "object",
    "properties": {"Name": TEXT, "MaximumRetryCount": TEXT},
    "required": ["Name", "MaximumRetryCount"],
}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def obj(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """An object with these members; all are there but the optional ones."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def page(plural: str, name: str) -> Schema:
    return obj({plural: array(ref(name)), "next": TEXT_OR_NULL})


def _texts(*names: str) -> dict[str, Schema]:
    return dict.fromkeys(names, TEXT)


def _maybe(*names: str) -> dict[str, Schema]:
    return dict.fromkeys(names, TEXT_OR_NULL)


_CONTAINER = (
    _texts("uuid", "name", "project_id", "user_id", "image", "image_driver", "cpu_policy", "memory", "status")
    | _maybe("status_reason", "status_detail", "task_state", "workdir", "hostname", "registry_id")
    | _maybe("started_at", "created_at", "updated_at", "host", "runtime", "image_pull_policy")
    | {
        "links": LINKS, "cpu": NUMBER, "disk": WHOLE, "command": TEXTS, "entrypoint": TEXTS, "environment": MAP,
        "labels": MAP, "auto_remove": FLAG, "auto_heal": FLAG, "interactive": FLAG, "tty": FLAG, "privileged": FLAG,
        "ports": array(WHOLE), "addresses": {"type": "object"}, "restart_policy": POLICY, "security_groups": TEXTS,
        "healthcheck": {"type": "object"},
    }
)  # fmt: skip

_CAPSULE = (
    _texts("uuid", "project_id", "user_id", "memory", "status")
    | _maybe("status_reason", "created_at", "updated_at", "host", "name", "meta_name", "capsule_version")
    | {
        "links": LINKS, "cpu": NUMBER, "addresses": {"type": "object"}, "labels": MAP, "annotations": MAP,
        "meta_labels": MAP, "restart_policy": {"anyOf": [POLICY, TEXT]}, "containers": array(ref("Container")),
        "init_containers": array(ref("Container")), "volumes_info": {"type": "object"}, "containers_uuids": TEXTS,
        "init_containers_uuids": TEXTS,
    }
)  # fmt: skip

_ACTION = _texts("action", "container_uuid", "request_id", "user_id", "project_id", "start_time") | _maybe(
    "finish_time", "message"
)
_LIMIT: Schema = {"anyOf": [NUMBER, obj({"limit": NUMBER, "in_use": NUMBER})]}

ANSWERS: dict[str, Schema] = {
    "Null": {"type": "null"},
    "Text": TEXT,
    "Stream": TEXT,
    "Rows": array({"type": "object"}),
    "Uuid": obj({"uuid": TEXT}),
    "Container": obj(_CONTAINER, ("links", "host", "runtime", "image_pull_policy", "privileged")),
    "Containers": page("containers", "Container"),
    "DryRun": {"type": "object", "properties": {"host": TEXT_OR_NULL}, "required": ["host", "refused"]},
    "Execution": obj(_maybe("output", "exec_id", "proxy_url") | {"exit_code": WHOLE_OR_NULL}),
    "Processes": obj({"Titles": TEXTS, "Processes": array(TEXTS)}),
    "Archive": obj({"data": TEXT, "stat": {"type": "object"}}),
    "Stats": obj(
        _texts("CONTAINER", "BLOCK I/O(B)", "NET I/O(B)")
        | dict.fromkeys(("CPU %", "MEM USAGE(MiB)", "MEM LIMIT(MiB)", "MEM %"), NUMBER)
    ),
    "Attachments": obj({"networks": array({"type": "object"})}),
    "Action": obj(_ACTION | {"events": array({"type": "object"})}, ("events",)),
    "Actions": obj({"containerActions": array(ref("Action"))}),
    "Capsule": obj(
        _CAPSULE,
        (
            "host",
            "name",
            "labels",
            "annotations",
            "meta_name",
            "meta_labels",
            "capsule_version",
            "volumes_info",
            "containers_uuids",
            "init_containers_uuids",
        ),
    ),
    "Capsules": page("capsules", "Capsule"),
    "Image": obj(_texts("uuid", "repo", "tag", "project_id", "host") | _maybe("image_id", "size") | {"links": LINKS}),
    "Images": page("images", "Image"),
    "Network": obj(
        _texts("uuid", "name", "project_id", "user_id", "network_id", "neutron_net_id", "cidr") | {"is_default": FLAG}
    ),
    "Networks": obj({"networks": array(ref("Network"))}),
    "SecurityGroupRule": obj(
        _texts("id", "security_group_id", "direction", "ethertype")
        | _maybe("protocol", "remote_ip_prefix", "remote_group_id")
        | dict.fromkeys(("port_range_min", "port_range_max"), WHOLE_OR_NULL)
    ),
    "SecurityGroup": obj(
        _texts("uuid", "name", "project_id", "created_at")
        | _maybe("updated_at")
        | {"links": LINKS, "rules": array(ref("SecurityGroupRule"))}
    ),
    "SecurityGroups": page("security_groups", "SecurityGroup"),
    "Volume": obj(_texts("uuid", "project_id", "created_at") | _maybe("name") | {"size": WHOLE, "links": LINKS}),
    "Volumes": page("volumes", "Volume"),
    "Host": obj(
        _texts("uuid", "hostname", "architecture", "os_type", "os", "kernel_version")
        | {
            "links": LINKS,
            "mem_total": WHOLE,
            "mem_used": WHOLE,
            "total_containers": WHOLE,
            "cpus": NUMBER,
            "cpu_used": NUMBER,
            "labels": MAP,
            "disk_total": WHOLE,
            "disk_used": WHOLE,
            "disk_quota_supported": FLAG,
            "runtimes": TEXTS,
            "enable_cpu_pinning": FLAG,
        }
    ),
    "Hosts": page("hosts", "Host"),
    "Zones": obj({"availability_zones": array(obj({"availability_zone": TEXT})), "next": TEXT_OR_NULL}),
    "ServiceRow": obj(
        _texts("host", "binary", "availability_zone", "state", "last_seen_up", "created_at")
        | _maybe("disabled_reason", "updated_at")
        | {"id": WHOLE, "disabled": FLAG, "forced_down": FLAG, "report_count": WHOLE}
    ),
    "Services": obj({"services": array(ref("ServiceRow"))}),
    "Service": obj(
        {
            "service": obj(
                _texts("host", "binary") | {"disabled": FLAG, "forced_down": FLAG, "disabled_reason": TEXT_OR_NULL},
                ("disabled", "forced_down", "disabled_reason"),
            )
        }
    ),
    "Quota": obj(dict.fromkeys(("containers", "memory", "cpu", "disk"), _LIMIT)),
    "RegistryRow": obj(
        _texts("uuid", "project_id", "user_id", "domain")
        | _maybe("name", "username", "password", "created_at", "updated_at")
        | {"links": LINKS},
        ("links",),
    ),
    "Registry": obj({"registry": ref("RegistryRow")}),
    "Registries": page("registries", "RegistryRow"),
    "Error": obj(
        {
            "errors": array(
                obj(
                    _texts("request_id", "code", "title", "detail", "max_version", "min_version")
                    | {"status": WHOLE, "links": LINKS},
                    ("max_version", "min_version"),
                )
            )
        }
    ),
}
