"""Who may do what: every rule, every role, the own project and another; and that every route asks."""

from pathlib import Path

import pytest

from higgins.api.auth import Identity, with_implied
from higgins.api.policies import Policy, sample
from higgins.api.policies.rules import ADMIN, BASE, MANAGE, NOBODY, READ, READ_ALL, RULES, WRITE
from higgins.api.routes import ROUTES, Route
from tests.api.conftest import ZUN, Caller, Opener
from tests.api.host import FakeHost

#: The roles that each default admits in the own project, and in another.
OWN = {
    READ: {"reader", "member", "manager", "admin", "service"},
    READ_ALL: {"admin", "service"},
    WRITE: {"member", "manager", "admin"},
    MANAGE: {"manager", "admin"},
    ADMIN: {"admin"},
    NOBODY: set(),
}
OTHER = {READ: {"admin", "service"}, READ_ALL: {"admin", "service"}, WRITE: {"admin"}, MANAGE: {"admin"}} | {
    ADMIN: {"admin"},
    NOBODY: set(),
}
ROLES = ("", "reader", "member", "manager", "admin", "service", "other")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy()


def test_every_rule_admits_whom_it_should_and_nobody_else(policy: Policy) -> None:
    for name, check, *_ in RULES:
        for project, admitted in (("p", OWN[check]), ("another", OTHER[check])):
            for role in ROLES:
                identity = Identity("u", "p", with_implied(frozenset({role})))
                assert policy.allows(name, identity, project) is (role in admitted), (name, role, project)


def test_the_82_names_of_zun_are_all_there() -> None:
    own = {"network:get_all", "event:get_all", "event:get_all_all_projects", "metrics:get", "container:network_list"}
    own |= {name for name, *_ in RULES if name.startswith("security_group:")}
    own |= {"volume:get_all", "volume:get_all_all_projects", "volume:delete"}
    blocks = {name for name, *_ in BASE}
    assert {"context_is_admin", "admin_or_owner", "admin_api", "deny_everybody"} <= blocks
    assert len({name for name, *_ in RULES} - own) + 4 == 82


def test_the_sample_says_every_rule_once_and_changes_nothing(tmp_path: Path) -> None:
    text = sample()
    for name, *_ in (*BASE, *RULES):
        assert text.count(f'#"{name}": ') == 1
    (tmp_path / "policy.yaml").write_text(text)
    reader = Identity("u", "p", frozenset({"reader"}))
    assert Policy(tmp_path / "policy.yaml").allows("container:get_all", reader)


async def test_a_policy_file_changes_a_rule(serve: Opener, host: FakeHost, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text('"container:get_all": "!"\n"container:create:privileged": "rule:admin_or_owner"\n')
    api = await serve(policy_file=path)
    assert (await api.get("/v1/containers")).status == 403
    assert (await api.post("/v1/containers", {"image": "busybox", "privileged": True})).status == 202
    with pytest.raises(FileNotFoundError):
        await serve(policy_file=tmp_path / "none.yaml")


def concrete(route: Route, project: str = "wonder") -> str:
    names = ("container", "capsule", "image", "network", "host", "registry", "volume", "security_group", "rule")
    parts = dict.fromkeys(names, "x")
    return route.path.format(**parts, request="x", project=project, quota_class="default")


async def test_every_route_refuses_whom_its_rule_does_not_admit(api: Caller, host: FakeHost) -> None:
    check_of = {name: check for name, check, *_ in RULES}
    roles = {"nora": "", "rita": "reader", "alice": "member", "mandy": "manager", "sam": "service"}
    for route in ROUTES:
        assert route.rule is not None
        for user, role in roles.items():
            if route.streams and role in OWN[check_of[route.rule]]:
                continue
            caller = Caller(api.client, user, f"container {route.until}")
            project = "service" if user == "sam" else "wonder"
            answer = await caller.call(route.method, concrete(route, project))
            refused = answer.status == 403
            assert refused is (role not in OWN[check_of[route.rule]]), (route.method, route.path, role, answer.text)
            if refused:
                assert answer.code == "container.policy-not-authorized"
                assert answer.error["title"] == f"Policy doesn't allow {route.rule} to be performed."


async def test_a_quota_is_seen_by_its_own_project_only(api: Caller) -> None:
    assert (await api.get("/v1/quotas/wonder")).status == 200
    assert (await api.get("/v1/quotas/build")).status == 403
    assert (await api.by("admin").get("/v1/quotas/build")).status == 200


async def test_policy_comes_after_the_version_and_before_validation(api: Caller) -> None:
    reader = api.by("rita")
    assert (await reader.at("1.20").post("/v1/containers/x/rename")).status == 406
    assert (await reader.post("/v1/containers", {"bogus": 1})).status == 403
    assert api.version == ZUN
