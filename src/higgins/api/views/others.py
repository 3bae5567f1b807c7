"""Hosts, services, images, networks, volumes, registries and events."""

from higgins.api.views.common import View, iso, links, time
from higgins.model.resources import ChangeEvent, Host, Image, NetworkInfo, Registry, Volume

#: The one service that runs on a host, under the name that Zun's clients know.
AGENT = "zun-compute"


def host(item: Host, base: str) -> View:
    """Memory in MiB, disk in GiB."""
    info = item.info
    return {
        "uuid": item.uuid,
        "links": links(base, "hosts", item.uuid),
        "hostname": item.name,
        "mem_total": item.memory,
        "mem_used": item.memory_used,
        "total_containers": item.containers,
        "cpus": item.cpus,
        "cpu_used": item.cpu_used,
        "architecture": info.architecture,
        "os_type": info.os_type,
        "os": info.os,
        "kernel_version": info.kernel_version,
        "labels": info.labels,
        "disk_total": item.disk,
        "disk_used": item.disk_used,
        "disk_quota_supported": info.disk_quota,
        "runtimes": info.runtimes,
        "enable_cpu_pinning": info.cpu_pinning,
    }


def service(item: Host) -> View:
    return {
        "id": item.id,
        "host": item.name,
        "binary": AGENT,
        "disabled": item.disabled,
        "disabled_reason": item.disabled_reason,
        "last_seen_up": iso(item.seen_at),
        "forced_down": item.forced_down,
        "report_count": item.report_count,
        "availability_zone": item.zone,
        "created_at": iso(item.created_at),
        "updated_at": iso(item.updated_at),
        "state": "up" if item.up else "down",
    }


def image(item: Image, base: str) -> View:
    return {
        "uuid": item.uuid,
        "links": links(base, "images", item.uuid),
        "image_id": item.image_id,
        "repo": item.repo,
        "tag": item.tag,
        "size": item.size,
        "project_id": item.project_id,
        "host": item.host,
    }


def network(item: NetworkInfo) -> View:
    return {
        "uuid": item.uuid,
        "name": item.name,
        "project_id": item.project_id,
        "user_id": item.user_id,
        "network_id": item.uuid,
        "neutron_net_id": item.uuid,
        "cidr": item.cidr,
        "is_default": item.is_default,
    }


def volume(item: Volume, base: str) -> View:
    """Size in GiB."""
    return {
        "uuid": item.uuid,
        "links": links(base, "volumes", item.uuid),
        "name": item.name,
        "project_id": item.project_id,
        "size": item.size,
        "created_at": time(item.created_at),
    }


def registry(item: Registry) -> View:
    return {
        "uuid": item.uuid,
        "name": item.name,
        "project_id": item.project_id,
        "user_id": item.user_id,
        "domain": item.domain,
        "username": item.username,
        "password": "***" if item.has_password else None,
        "created_at": time(item.created_at),
        "updated_at": time(item.updated_at),
    }


def event(item: ChangeEvent) -> View:
    return {
        "id": item.id,
        "project_id": item.project_id,
        "container_uuid": item.container_uuid,
        "name": item.name,
        "status": item.status,
        "status_reason": item.status_reason,
        "at": iso(item.at),
    }
