"""The cloud as a test has it: its administrator, its tenants, and ways to stop one of its services."""

import itertools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystoneauth1.plugin import BaseAuthPlugin
from msgspec import Struct

AUTH_URL = "http://127.0.0.1:5000/v3"
GLANCE = "http://127.0.0.1:9292"
PASSWORD = "secret"
_ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


def password(user: str, project: str | None = None, **scope: Any) -> v3.Password:
    """The credentials of a user of the domain ``default``, scoped to a project or to what ``scope`` says."""
    if project is not None:
        scope |= {"project_name": project, "project_domain_id": "default"}
    return v3.Password(auth_url=AUTH_URL, username=user, password=PASSWORD, user_domain_id="default", **scope)


def token(credentials: BaseAuthPlugin) -> str:
    """A token of one's own: each call gets another."""
    issued = session.Session(auth=credentials).get_token()
    assert issued is not None
    return issued


def keystone(method: str, path: str, json: Any = None) -> Any:
    """A request to Keystone by the cloud's administrator; what it answers."""
    answer = session.Session(auth=password("admin", "admin")).request(f"{AUTH_URL}{path}", method, json=json)
    return answer.json() if answer.content else None


def region(name: str, urls: Mapping[str, str]) -> None:
    """A region with endpoints of services, given as their type and URL."""
    if all(one["id"] != name for one in keystone("GET", "/regions")["regions"]):
        keystone("POST", "/regions", {"region": {"id": name}})
    for kind, url in urls.items():
        (service,) = keystone("GET", f"/services?type={kind}")["services"]
        for old in keystone("GET", f"/endpoints?service_id={service['id']}&region_id={name}")["endpoints"]:
            keystone("DELETE", f"/endpoints/{old['id']}")
        for interface in ("public", "internal", "admin"):
            body = {"service_id": service["id"], "region_id": name, "interface": interface, "url": url}
            keystone("POST", "/endpoints", {"endpoint": body})


def identifier(kind: str, name: str) -> str:
    """The id of a user, project or role (``kind``: users, projects, roles)."""
    (found,) = keystone("GET", f"/{kind}?name={name}")[kind]
    return str(found["id"])


def environment(user: str, project: str) -> dict[str, str]:
    """What the ``openstack`` command wants to know."""
    return {
        "OS_AUTH_URL": AUTH_URL,
        "OS_USERNAME": user,
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": project,
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_REGION_NAME": "RegionOne",
        "OS_IDENTITY_API_VERSION": "3",
    }


def member(project: str, *roles: str) -> str:
    """A new user with these roles in the project; the name."""
    name = f"{'-'.join(roles)}-{next(_numbers)}"
    body = {"name": name, "domain_id": "default", "password": PASSWORD}
    user = keystone("POST", "/users", {"user": body})["user"]["id"]
    for role in roles:
        keystone("PUT", f"/projects/{identifier('projects', project)}/users/{user}/roles/{identifier('roles', role)}")
    return name


def application_credential(user: str, project: str, **more: Any) -> v3.ApplicationCredential:
    """A new application credential of the user. ``more``: access_rules, expires_at."""
    own = session.Session(auth=password(user, project))
    body = {"application_credential": {"name": f"credential-{next(_numbers)}", "roles": [{"name": "member"}], **more}}
    answer = own.post(f"{AUTH_URL}/users/{own.get_user_id()}/application_credentials", json=body)
    made = answer.json()["application_credential"]
    return v3.ApplicationCredential(
        auth_url=AUTH_URL, application_credential_id=made["id"], application_credential_secret=made["secret"]
    )


def service(verb: str, name: str) -> None:
    """``start`` or ``stop`` one of the services, and wait until it is so; ``pause`` it (it hangs), ``resume`` it."""
    subprocess.run([_ROOT / "scripts" / "openstack", verb, name], check=True)


class Reply(Struct, frozen=True):
    """What the API answered. ``title`` is the sentence of a refusal."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def title(self) -> str:
        return str(self.body["errors"][0]["title"])

    @property
    def request_id(self) -> str:
        return self.headers["X-Openstack-Request-Id"]


def ask(url: str, method: str = "GET", *, token: str | None = None, json: Any = None, **headers: str) -> Reply:
    """A request without any client in between. ``headers`` with _ for -."""
    sent = {"OpenStack-API-Version": "container 1.40"} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    if token is not None:
        sent["X-Auth-Token"] = token
    answer = session.Session().request(url, method, headers=sent, json=json, raise_exc=False, authenticated=False)
    return Reply(answer.status_code, answer.headers, answer.json() if answer.content else None)


def glance(method: str, path: str, token: str, json: Any = None, data: bytes | None = None) -> Any:
    """A request to Glance; what it answers."""
    kind = {"Content-Type": "application/octet-stream"} if data is not None else {}
    answer = session.Session().request(
        f"{GLANCE}/v2/{path}",
        method,
        headers={"X-Auth-Token": token} | kind,
        json=json,
        data=data,
        authenticated=False,
    )
    return answer.json() if answer.content else None


def cinder(method: str, path: str, project: str = "demo", json: Any = None) -> Any:
    """A request to Cinder by the member of a project that is named like it; what it answers."""
    member = session.Session(auth=password(project, project))
    answer = member.request(
        f"http://127.0.0.1:8776/v3/{path}", method, headers={"OpenStack-API-Version": "volume 3.54"}, json=json
    )
    return answer.json() if answer.content else None


def upload(token: str, name: str, data: bytes, **more: str) -> str:
    """A new image, private unless ``more`` says otherwise; its id."""
    fields = {"name": name, "container_format": "docker", "disk_format": "raw", "visibility": "private"} | more
    made = glance("POST", "images", token, fields)["id"]
    glance("PUT", f"images/{made}/file", token, data=data)
    return str(made)


def revoke(token: str) -> None:
    """End a token, as its owner may."""
    session.Session().delete(
        f"{AUTH_URL}/auth/tokens", headers={"X-Auth-Token": token, "X-Subject-Token": token}, authenticated=False
    )
