"""A container, its actions, statistics and networks."""

from collections.abc import Collection
from typing import Any

from higgins.api.microversion import Version
from higgins.api.views.common import View, iso, time
from higgins.model.container import Healthcheck
from higgins.model.resources import Action, Container
from higgins.runtimes.base import PathStat, Processes, Stats

#: Attributes that only some may see, each by the rule ``container:get_one:<name>``.
GUARDED = ("host", "image_pull_policy", "privileged", "runtime")


def container(item: Container, guarded: Collection[str] = ()) -> View:
    """A container, with those of the ``GUARDED`` attributes that the caller may see."""
    spec = item.spec
    view: View = {
        "uuid": item.uuid,
        "name": item.name,
        "project_id": item.project_id,
        "user_id": item.user_id,
        "image": spec.image,
        "image_driver": spec.image_driver,
        "cpu": spec.cpu,
        "cpu_policy": spec.cpu_policy,
        "memory": str(spec.memory),
        "disk": spec.disk,
        "command": spec.command,
        "entrypoint": spec.entrypoint or (),
        "status": item.status,
        "status_reason": item.status_reason,
        "status_detail": item.status_detail,
        "task_state": item.task_state,
        "environment": spec.environment,
        "labels": spec.labels,
        "workdir": spec.workdir,
        "hostname": spec.hostname,
        "auto_remove": spec.auto_remove,
        "auto_heal": spec.auto_heal,
        "interactive": spec.interactive,
        "tty": spec.tty,
        "ports": [int(port.partition("/")[0]) for port in spec.exposed_ports],
        "addresses": item.addresses,
        "restart_policy": {
            "Name": spec.restart_policy.name,
            "MaximumRetryCount": str(spec.restart_policy.maximum_retry_count),
        },
        "security_groups": spec.security_groups,
        "healthcheck": healthcheck(spec.healthcheck),
        "registry_id": spec.registry_id,
        "started_at": time(item.started_at),
        "created_at": time(item.created_at),
        "updated_at": time(item.updated_at),
    }
    if "host" in guarded:
        view["host"] = item.host
    if "image_pull_policy" in guarded:
        view["image_pull_policy"] = spec.image_pull_policy
    if "privileged" in guarded:
        view["privileged"] = spec.privileged
    if "runtime" in guarded:
        view["runtime"] = spec.runtime
    return view


def healthcheck(check: Healthcheck | None) -> View:
    if check is None:
        return {}
    return {"test": check.test, "interval": check.interval, "retries": check.retries, "timeout": check.timeout}


def action(item: Action) -> View:
    """What was asked of a container; ``message`` is Error or null, as clients read it, or how far it is."""
    going_on = item.message if item.finish_time is None else None
    return {
        "action": item.action,
        "container_uuid": item.container_uuid,
        "request_id": item.request_id,
        "user_id": item.user_id,
        "project_id": item.project_id,
        "start_time": iso(item.start_time),
        "finish_time": iso(item.finish_time),
        "message": "Error" if item.result == "Error" else going_on,
    }


def action_with_events(item: Action, *, traces: bool) -> View:
    """An action with its one event; why it failed is told to those who may see traces."""
    event = {
        "event": f"compute__do_container_{item.action}",
        "start_time": iso(item.start_time),
        "finish_time": iso(item.finish_time),
        "result": item.result,
        "traceback": item.message if traces else None,
    }
    return action(item) | {"events": [event]}


_MIB = 1024 * 1024


def stats(name: str, sample: Stats) -> View:
    """The seven figures under the names that Docker's client prints."""
    limit = sample.memory_limit
    return {
        "CONTAINER": name,
        "CPU %": sample.cpu_percent,
        "MEM USAGE(MiB)": sample.memory_used / _MIB,
        "MEM LIMIT(MiB)": limit / _MIB,
        "MEM %": 100 * sample.memory_used / limit if limit else 0.0,
        "BLOCK I/O(B)": f"{sample.block_read}/{sample.block_write}",
        "NET I/O(B)": f"{sample.net_rx}/{sample.net_tx}",
    }


def top(processes: Processes) -> View:
    return {"Titles": processes.titles, "Processes": processes.rows}


def path_stat(stat: PathStat) -> View:
    """Docker's words for a path."""
    return {
        "name": stat.name,
        "size": stat.size,
        "mode": stat.mode,
        "mtime": stat.mtime,
        "linkTarget": stat.link_target,
    }


def networks(items: list[dict[str, Any]], version: Version) -> list[View]:
    """By port since 1.18; before that one row per address."""
    if version >= Version(1, 18):
        return items
    return [
        {
            "net_id": item["net_id"],
            "port_id": item["port_id"],
            "subnet_id": address["subnet_id"],
            "version": address["version"],
            "ip_address": address["ip_address"],
        }
        for item in items
        for address in item["fixed_ips"]
    ]
