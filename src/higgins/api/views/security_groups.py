"""Security groups and their rules, under Neutron's names."""

from higgins.api.views.common import View, links, time
from higgins.model.resources import SecurityGroup, SecurityGroupRule


def rule(item: SecurityGroupRule, group: str) -> View:
    return {
        "id": item.id,
        "security_group_id": group,
        "direction": "ingress",
        "ethertype": "IPv4",
        "protocol": item.protocol,
        "port_range_min": item.port_range_min,
        "port_range_max": item.port_range_max,
        "remote_ip_prefix": item.remote_ip_prefix,
        "remote_group_id": item.remote_group_id,
    }


def security_group(item: SecurityGroup, base: str) -> View:
    return {
        "uuid": item.uuid,
        "links": links(base, "security_groups", item.uuid),
        "name": item.name,
        "project_id": item.project_id,
        "rules": [rule(one, item.uuid) for one in item.rules],
        "created_at": time(item.created_at),
        "updated_at": time(item.updated_at),
    }
