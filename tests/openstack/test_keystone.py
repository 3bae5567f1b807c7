"""Callers by Keystone's tokens: a real Keystone, the unmodified client, and requests without one."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from keystoneauth1 import session
from oslo_config import cfg

from higgins.openstack import tokens
from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.tokens import Credentials
from tests.engines import wait_until
from tests.openstack import cloud, needs
from tests.openstack.cloud import application_credential, ask, member, password, token
from tests.openstack.conftest import HigginsInCloud, Login, register

pytestmark = needs("keystone")

IDLE = ("busybox", "sh", "-c", "trap exit TERM; while sleep 0.1; do :; done")


@pytest.fixture
def containers(higgins: HigginsInCloud) -> str:
    return f"{higgins.url}/containers"


def test_registering_again_has_nothing_to_do_and_follows_a_new_url(higgins: HigginsInCloud) -> None:
    assert register(higgins.url).stderr == "nothing had to be done\n"
    moved = register("http://127.0.0.1:1/v1").stderr
    assert moved.count("changed from") == 6  # two services, three interfaces
    assert register(higgins.url).stderr.count("changed from") == 6


def test_the_catalogue_has_both_names_of_the_service(higgins: HigginsInCloud) -> None:
    for kind in ("container", "application-container"):
        own = session.Session(auth=password("demo", "demo"))
        assert own.get_endpoint(service_type=kind, interface="public", region_name="RegionOne") == higgins.url


def test_a_tenants_container_is_for_that_project_only(login: Login, higgins: HigginsInCloud) -> None:
    demo, alt = login("demo"), login("alt")
    demo("run", "--name", "mine", *IDLE)
    shown = demo.wait("mine", "Running")
    assert shown["uuid"] in demo("list")
    assert shown["uuid"] not in alt("list")
    for name in ("mine", shown["uuid"]):
        assert alt.status(name) is None
    assert "could not be found" in alt.call("delete", "--stop", shown["uuid"]).out
    assert demo.status("mine") == "Running"
    assert shown["uuid"] in login("admin")("list", "--all-projects")
    demo("delete", "--stop", "mine")
    demo.wait("mine", None)


def test_a_reader_looks_and_changes_nothing(login: Login) -> None:
    reader = login(member("demo", "reader"), "demo")
    assert reader.call("list").code == 0
    refused = reader.call("create", "--name", "forbidden", *IDLE)
    assert "Policy doesn't allow container:create" in refused.err + refused.out
    assert login("demo").status("forbidden") is None


def test_one_without_a_role_that_counts_sees_nothing(containers: str) -> None:
    stranger = token(password(member("demo", "service"), "demo"))
    assert ask(containers, "POST", token=stranger, json={"image": "busybox"}).status == 403


def test_without_a_good_token_the_caller_is_told_where_to_get_one(containers: str) -> None:
    for wrong in (None, "nonsense", "n\N{LATIN SMALL LETTER E WITH ACUTE}", "gAAAAA" + "x" * 200):
        reply = ask(containers, token=wrong)
        assert reply.status == 401, reply
        assert reply.headers["WWW-Authenticate"] == f'Keystone uri="{cloud.AUTH_URL}"'


def test_headers_of_the_middleware_cannot_be_forged(containers: str) -> None:
    forged = {"X_Identity_Status": "Confirmed", "X_Roles": "admin", "X_Project_Id": "x", "X_User_Id": "x"}
    assert ask(containers, **forged).status == 401


def test_access_rules_bound_what_an_application_credential_may_do(containers: str) -> None:
    rules = [
        {"service": service, "method": "GET", "path": path}
        for service, path in (("container", "/v1/containers"), ("application-container", "/v1/availability_zones"))
    ]
    bounded = token(application_credential("demo", "demo", access_rules=rules))
    for _ in range(2):  # what is known of one path is not believed of another
        assert ask(containers, token=bounded).status == 200
        assert ask(f"{containers}/", token=bounded).status == 200
        assert ask(containers.replace("containers", "availability_zones"), token=bounded).status == 200
        assert ask(containers, "POST", token=bounded, json={"image": "busybox"}).status == 401
        assert ask(f"{containers}/mine", token=bounded).status == 401
    free = token(application_credential("demo", "demo"))
    assert ask(f"{containers}/mine", token=free).status == 404


def test_a_revoked_token_is_refused_soon(containers: str) -> None:
    own = token(password("demo", "demo"))
    assert ask(containers, token=own).status == 200
    session.Session(auth=password("demo", "demo")).delete(
        f"{cloud.AUTH_URL}/auth/tokens", headers={"X-Subject-Token": own}
    )
    becomes(401, partial(status, containers, own))


def test_an_expired_token_is_refused_unless_a_service_passes_it_on(containers: str) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=6)).strftime("%Y-%m-%dT%H:%M:%S")
    own = token(application_credential("demo", "demo", expires_at=soon))
    service_token = token(password(member("service", "service"), "service"))
    becomes(401, partial(status, containers, own))
    assert ask(containers, token=own, X_Service_Token=service_token).status == 200
    assert ask(containers, token=own).status == 401
    assert ask(containers, token=own, X_Service_Token=token(password("alt", "alt"))).status == 401
    assert ask(containers, token=token(password("demo", "demo")), X_Service_Token="nonsense").status == 401


def test_system_scope_sees_the_cloud_and_owns_nothing(containers: str) -> None:
    system = token(password("admin", system_scope="all"))
    assert ask(f"{containers}?all_projects=1", token=system).status == 200
    assert ask(containers.replace("containers", "hosts"), token=system).status == 200
    for refused in (
        ask(containers, token=system),
        ask(containers, "POST", token=system, json={"image": "busybox"}),
    ):
        assert refused.status == 403
        assert "scoped to a project" in refused.title


def test_tokens_of_a_domain_or_of_nothing_are_refused(containers: str) -> None:
    user, role = cloud.identifier("users", "admin"), cloud.identifier("roles", "admin")
    cloud.keystone("PUT", f"/domains/default/users/{user}/roles/{role}")
    scopes = {"a domain": password("admin", domain_id="default"), "nothing": password("demo", unscoped=True)}
    for scope, credentials in scopes.items():
        refused = ask(containers, token=token(credentials))
        assert refused.status == 403
        assert f"scoped to {scope}" in refused.title


def test_while_keystone_is_away_nobody_new_comes_in_and_afterwards_all_goes_on(containers: str) -> None:
    before, unseen = token(password("demo", "demo")), token(password("alt", "alt"))
    assert ask(containers, token=before).status == 200
    cloud.service("stop", "keystone")
    try:
        refused = ask(containers, token=unseen)
        assert refused.status == 503
        assert "Keystone does not answer" in refused.title
        becomes(503, partial(status, containers, before))
    finally:
        cloud.service("start", "keystone")
    for own in (before, unseen):
        becomes(200, partial(status, containers, own))


def test_a_keystone_that_hangs_is_given_up(higgins: HigginsInCloud) -> None:
    conf = cfg.ConfigOpts()
    tokens.register(conf)
    conf(["--config-file", str(higgins.configuration)], default_config_files=[])
    conf.set_override("http_connect_timeout", 1, group=tokens.GROUP)
    validate, asked = tokens.Validator(conf), Credentials("GET", "/v1/containers", token(password("demo", "demo")))

    def answers() -> bool:
        try:
            return validate(asked).roles == {"member", "reader"}
        except ServiceUnavailable:
            return False

    wait_until(answers, "Keystone does not vouch for a good token")
    cloud.service("pause", "keystone")
    try:
        with pytest.raises(ServiceUnavailable, match="Keystone does not answer"):
            validate(asked)
    finally:
        cloud.service("resume", "keystone")
    wait_until(answers, "Keystone does not vouch for a good token any more")


def status(url: str, token: str) -> int:
    return ask(url, token=token).status


def becomes(wanted: int, asked: Callable[[], int]) -> None:
    """What is asked for again and again answers with this status before long."""
    wait_until(lambda: asked() == wanted, f"the status {wanted} does not come")
