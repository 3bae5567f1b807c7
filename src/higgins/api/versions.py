"""The version documents: what a client reads before it knows anything else."""

from typing import Any

from higgins.api.microversion import MAXIMUM, MINIMUM

_NOUNS = (
    "services", "containers", "images", "networks", "hosts", "availability_zones", "capsules", "quotas",
    "quota_classes", "registries",
)  # fmt: skip


def root(base: str) -> dict[str, Any]:
    """``GET /``: the versions there are, and up to which microversion."""
    version = {
        "id": "v1",
        "links": [{"href": f"{base}/v1/", "rel": "self"}],
        "status": "CURRENT",
        "max_version": str(MAXIMUM),
        "min_version": str(MINIMUM),
    }
    return {
        "name": "OpenStack Zun API",
        "description": "Higgins, a container service that speaks Zun's API.",
        "versions": [version],
        "default_version": version,
    }


def v1(base: str) -> dict[str, Any]:
    """``GET /v1``: where each noun is."""
    described = {
        "href": "https://docs.openstack.org/developer/zun/dev/api-spec-v1.html",
        "rel": "describedby",
        "type": "text/html",
    }
    nouns = {
        noun: [
            {"href": f"{base}/v1/{noun}/", "rel": "self"},
            {"href": f"{base}/{noun}/", "rel": "bookmark"},
        ]
        for noun in _NOUNS
    }
    return {
        "id": "v1",
        "media_types": [{"base": "application/json", "type": "application/vnd.openstack.zun.v1+json"}],
        "links": [{"href": f"{base}/v1/", "rel": "self"}, described],
        **nouns,
    }
