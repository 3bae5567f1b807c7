"""Security groups: made, filled with rules, given to containers, and refused by the field that is wrong."""

from typing import Any

import pytest

from higgins.control.cloud import Cloud
from higgins.control.settings import Settings
from tests.api.conftest import Caller, Opener
from tests.api.host import FakeHost
from tests.api.test_actions import running
from tests.api.test_capsules import TEMPLATE, changed

ALL = "/v1/security_groups"
HTTP = {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80}


@pytest.fixture
def new(api: Caller) -> Caller:
    return api.at("1.49")


async def group(api: Caller, name: str = "web", *rules: dict[str, Any]) -> dict[str, Any]:
    made = await api.post(ALL, {"name": name, "rules": list(rules)})
    assert made.status == 201, made.text
    assert isinstance(made.json, dict)
    return made.json


async def test_a_group_is_made_shown_renamed_and_deleted(new: Caller) -> None:
    made = await new.post(ALL, {"name": "web"})
    assert (made.status, made.json["name"], made.json["rules"]) == (201, "web", [])
    assert made.headers["Location"].endswith(f"{ALL}/{made.json['uuid']}")
    for ident in ("web", made.json["uuid"]):
        assert (await new.get(f"{ALL}/{ident}")).json["uuid"] == made.json["uuid"]
    renamed = await new.call("PATCH", f"{ALL}/web", {"name": "front"})
    assert (renamed.status, renamed.json["name"], renamed.json["uuid"]) == (200, "front", made.json["uuid"])
    assert (await new.get(f"{ALL}/web")).status == 404
    assert (await new.call("DELETE", f"{ALL}/front")).status == 204
    gone = await new.call("DELETE", f"{ALL}/{made.json['uuid']}")
    assert (gone.status, gone.code) == (404, "container.security-group-not-found")


async def test_groups_are_there_from_1_49_on(new: Caller, host: FakeHost) -> None:
    old = new.at("1.48")
    assert (await old.get(ALL)).status == 406
    assert (await old.post(ALL, {"name": "web"})).status == 406
    assert (await old.post(f"{ALL}/default/rules", HTTP)).status == 406
    one = await running(new, host)
    for version, status in (("1.14", 400), ("1.15", 406), ("1.48", 406), ("1.49", 400)):
        for verb in ("add_security_group", "remove_security_group"):
            assert (await new.at(version).post(f"{one}/{verb}")).status == status, (version, verb)
    spec = {"template": changed("spec.securityGroups", ["default"])}
    refused = await old.post("/v1/capsules", spec)
    assert (refused.status, refused.code) == (400, "container.invalid-param-in-version")


async def test_default_is_every_projects_own_and_stays(new: Caller) -> None:
    (mine,) = (await new.get(ALL)).json["security_groups"]
    theirs = (await new.by("bob").get(f"{ALL}/default")).json
    assert mine["name"] == theirs["name"] == "default"
    assert mine["uuid"] != theirs["uuid"]
    for answer in (
        await new.call("DELETE", f"{ALL}/default"),
        await new.call("PATCH", f"{ALL}/default", {"name": "other"}),
        await new.post(ALL, {"name": "default"}),
    ):
        assert (answer.status, "default" in answer.error["title"]) == (409, True)
    assert (await new.post(f"{ALL}/default/rules", HTTP)).status == 201
    assert len((await new.get(f"{ALL}/default")).json["rules"]) == 1


async def test_a_name_is_a_groups_alone_in_its_project(new: Caller) -> None:
    await group(new, "web")
    await group(new, "db")
    for answer in (
        await new.post(ALL, {"name": "web"}),
        await new.call("PATCH", f"{ALL}/db", {"name": "web"}),
        await new.call("PATCH", f"{ALL}/db", {"name": "default"}),
    ):
        assert (answer.status, answer.code) == (409, "container.security-group-already-exists")
    assert (await new.call("PATCH", f"{ALL}/db", {"name": "db"})).status == 200
    await group(new.by("bob"), "web")


async def test_rules_come_and_go(new: Caller) -> None:
    made = await group(new, "web", HTTP)
    (http,) = made["rules"]
    assert {name: http[name] for name in HTTP} == HTTP
    assert (http["direction"], http["ethertype"], http["security_group_id"]) == ("ingress", "IPv4", made["uuid"])
    added = await new.post(f"{ALL}/web/rules", {"protocol": "17", "remote_ip_prefix": "192.0.2.7/24"})
    assert (added.status, added.json["protocol"], added.json["remote_ip_prefix"]) == (201, "udp", "192.0.2.0/24")
    same = await new.post(f"{ALL}/web/rules", {"protocol": "udp", "remote_ip_prefix": "192.0.2.0/24"})
    assert (same.status, added.json["id"] in same.error["title"]) == (409, True)
    by_group = await new.post(f"{ALL}/web/rules", {"remote_group_id": "web"})
    assert by_group.json["remote_group_id"] == made["uuid"]
    listed = (await new.get(f"{ALL}/web")).json["rules"]
    assert [rule["id"] for rule in listed] == [http["id"], added.json["id"], by_group.json["id"]]
    assert (await new.call("DELETE", f"{ALL}/web/rules/{http['id']}")).status == 204
    gone = await new.call("DELETE", f"{ALL}/web/rules/{http['id']}")
    assert (gone.status, gone.code) == (404, "container.security-group-rule-not-found")
    assert len((await new.get(f"{ALL}/web")).json["rules"]) == 2


#: What lets traffic in, and how it is shown.
TAKEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"protocol": None, "remote_ip_prefix": None}),
    ({"direction": "ingress", "ethertype": "IPv4", "protocol": "any"}, {"protocol": None}),
    ({"protocol": 6}, {"protocol": "tcp"}),
    ({"protocol": "TCP", "port_range_min": "1", "port_range_max": 65535}, {"protocol": "tcp", "port_range_min": 1}),
    ({"protocol": "icmp", "port_range_min": 8, "port_range_max": 0}, {"port_range_min": 8, "port_range_max": 0}),
    ({"protocol": "icmp", "port_range_min": 3}, {"port_range_min": 3, "port_range_max": None}),
    ({"protocol": "vrrp"}, {"protocol": "vrrp"}),
    ({"protocol": 250}, {"protocol": "250"}),
    ({"protocol": "47"}, {"protocol": "gre"}),
    ({"remote_ip_prefix": "198.51.100.7"}, {"remote_ip_prefix": "198.51.100.7/32"}),
    ({"remote_ip_prefix": "0.0.0.0/0"}, {"remote_ip_prefix": "0.0.0.0/0"}),
]


async def test_every_kind_of_rule_is_taken(new: Caller) -> None:
    await group(new)
    for asked, shown in TAKEN[1:]:
        made = await new.post(f"{ALL}/web/rules", asked)
        assert made.status == 201, (asked, made.text)
        assert {name: made.json[name] for name in shown} == shown
    assert (await new.post(f"{ALL}/web/rules", TAKEN[0][0])).status == 409, "it is the same as the first"


#: The field that the refusal names, and what is wrong with it.
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("direction", {"direction": "egress"}), ("direction", {"direction": None}), ("ethertype", {"ethertype": "IPv6"}),
    ("protocol", {"protocol": "carrier-pigeon"}), ("protocol", {"protocol": 256}), ("protocol", {"protocol": -1}),
    ("protocol", {"protocol": True}), ("protocol", {"protocol": []}), ("protocol", {"protocol": "icmpv6"}),
    ("protocol", {"protocol": 58}), ("protocol", {"protocol": ""}), ("protocol", {"protocol": 6.5}),
    ("port_range_min", {"port_range_min": 80, "port_range_max": 80}), ("port_range_max", {"port_range_max": 80}),
    ("port_range_min", {"protocol": "gre", "port_range_min": 1, "port_range_max": 1}),
    ("port_range_max", {"protocol": "tcp", "port_range_min": 80}),
    ("port_range_min", {"protocol": "tcp", "port_range_max": 80}),
    ("port_range_min", {"protocol": "udp", "port_range_min": 81, "port_range_max": 80}),
    ("port_range_min", {"protocol": "udp", "port_range_min": 0, "port_range_max": 80}),
    ("port_range_max", {"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536}),
    ("port_range_min", {"protocol": "tcp", "port_range_min": "http", "port_range_max": 80}),
    ("port_range_min", {"protocol": "icmp", "port_range_min": 256}),
    ("port_range_max", {"protocol": "icmp", "port_range_min": 8, "port_range_max": 256}),
    ("port_range_min", {"protocol": "icmp", "port_range_max": 0}),
    ("remote_ip_prefix", {"remote_ip_prefix": "fd00::/8"}), ("remote_ip_prefix", {"remote_ip_prefix": "10.0.0.0/33"}),
    ("remote_ip_prefix", {"remote_ip_prefix": "everybody"}), ("remote_ip_prefix", {"remote_ip_prefix": 7}),
    ("remote_ip_prefix", {"remote_ip_prefix": "0.0.0.0/0 } ; flush ruleset"}),
    ("remote_group_id", {"remote_group_id": ""}), ("remote_group_id", {"remote_group_id": ["web"]}),
    ("remote_group_id", {"remote_group_id": "web", "remote_ip_prefix": "10.0.0.0/8"}),
    ("tenant_id", {"tenant_id": "x"}),
]  # fmt: skip


async def test_a_rule_that_makes_no_sense_is_refused_by_the_field(new: Caller) -> None:
    await group(new)
    for field, body in REFUSED:
        for path, sent, name in (
            (f"{ALL}/web/rules", body, field),
            (ALL, {"name": "x", "rules": [body]}, f"rules[0].{field}"),
        ):
            answer = await new.post(path, sent)
            assert (answer.status, answer.code) == (400, "container.schema-validation-error"), (sent, answer.text)
            assert name in answer.error["title"], (sent, answer.text)
    assert (await new.get(f"{ALL}/web")).json["rules"] == []
    assert (await new.get(f"{ALL}/x")).status == 404
    absent = await new.post(f"{ALL}/web/rules", {"remote_group_id": "nobodys"})
    assert (absent.status, "nobodys" in absent.error["title"]) == (404, True)


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "name"), ({"name": ""}, "name"), ({"name": None}, "name"), ({"name": "n" * 256}, "name"),
        ({"name": "a\0"}, "name"), ({"name": 7}, "name"), ({"name": "a", "colour": "red"}, "colour"),
    ],
)  # fmt: skip
async def test_a_bad_group_is_refused_by_the_field(new: Caller, body: dict[str, Any], field: str) -> None:
    await group(new)
    for answer in (await new.post(ALL, body), await new.call("PATCH", f"{ALL}/web", body)):
        assert (answer.status, field in answer.error["title"]) == (400, True), answer.text
    refused = await new.post(ALL, {"name": "a", "rules": {}})
    assert (refused.status, "rules" in refused.error["title"]) == (400, True)


async def test_there_are_only_so_many_groups_and_rules(serve: Opener, cloud: Cloud) -> None:
    cloud.settings = Settings(security_groups=2, security_group_rules=3)
    new = (await serve()).at("1.49")
    await group(new, "one")
    full = await group(new, "two", *({"protocol": number} for number in (1, 2, 3)))
    for answer, resource in (
        (await new.post(ALL, {"name": "three"}), "security_groups"),
        (await new.post(f"{ALL}/two/rules", {"protocol": 4}), "security_group_rules"),
    ):
        assert (answer.status, answer.code) == (403, "container.over-quota")
        assert resource in answer.error["title"]
    await new.call("DELETE", f"{ALL}/one")
    many = {"name": "three", "rules": [{"protocol": 4}]}
    assert (await new.post(ALL, many)).code == "container.over-quota", "rules of all groups count together"
    await group(new, "three")
    await group(new.by("bob"), "one")
    assert (await new.call("DELETE", f"{ALL}/two/rules/{full['rules'][0]['id']}")).status == 204
    assert (await new.post(f"{ALL}/two/rules", {"protocol": 4})).status == 201
    cloud.settings = Settings(security_groups=-1, security_group_rules=-1)
    await group(new, "four", *({"protocol": number} for number in range(20)))


async def test_another_project_sees_and_touches_nothing(new: Caller) -> None:
    made = await group(new, "web", HTTP)
    bob = new.by("bob")
    one, rule = f"{ALL}/{made['uuid']}", made["rules"][0]["id"]
    for answer in (
        await bob.get(one),
        await bob.get(f"{ALL}/web"),
        await bob.call("PATCH", one, {"name": "his"}),
        await bob.post(f"{one}/rules", {}),
        await bob.call("DELETE", f"{one}/rules/{rule}"),
        await bob.call("DELETE", one),
        await bob.post(f"{ALL}/default/rules", {"remote_group_id": made["uuid"]}),
        await bob.post("/v1/containers", {"image": "busybox", "security_groups": [made["uuid"]]}),
    ):
        assert (answer.status, answer.code) == (404, "container.security-group-not-found"), answer.text
    assert [item["name"] for item in (await bob.get(ALL)).json["security_groups"]] == ["default"]
    assert (await bob.get(f"{ALL}?all_projects=1")).status == 403
    admin = new.by("admin")
    everybodys = (await admin.get(f"{ALL}?all_projects=1")).json["security_groups"]
    assert {(item["project_id"], item["name"]) for item in everybodys} >= {("wonder", "web"), ("build", "default")}
    assert (await admin.get(one)).json == made
    assert (await admin.call("DELETE", one)).status == 204


async def test_groups_come_in_pages_and_take_as_many_statements_however_many_there_are(
    new: Caller, statements: list[str]
) -> None:
    counts = []
    for names in (("a", "b"), ("c", "d", "e", "f", "g", "h")):
        for name in names:
            await group(new, name, HTTP)
        statements.clear()
        assert (await new.get(ALL)).status == 200
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 5
    page = (await new.get(f"{ALL}?limit=3&sort_key=name")).json
    assert [item["name"] for item in page["security_groups"]] == ["a", "b", "c"]
    rest = (await new.get("/v1" + page["next"].partition("/v1")[2])).json
    assert [item["name"] for item in rest["security_groups"]] == ["d", "default", "e"]
    assert (await new.get(f"{ALL}?sort_key=rules")).status == 400
    assert (await new.get(f"{ALL}?marker=none")).status == 404


async def test_a_group_in_use_stays(new: Caller, host: FakeHost) -> None:
    made = await group(new, "web")
    await group(new, "db", {"remote_group_id": "web"})
    one = await new.create(security_groups=["web"], name="one", labels={"x": made["uuid"]})
    await new.create(name="two", labels={"x": made["uuid"]})
    assert one["security_groups"] == [made["uuid"]]
    by_container = await new.call("DELETE", f"{ALL}/web")
    assert (by_container.status, one["uuid"] in by_container.error["title"]) == (409, True)
    await new.call("DELETE", "/v1/containers/one?stop=true")
    await host.settle()
    by_rule = await new.call("DELETE", f"{ALL}/web")
    assert (by_rule.status, "db" in by_rule.error["title"]) == (409, True)
    assert (await new.call("DELETE", f"{ALL}/db")).status == 204
    assert (await new.call("DELETE", f"{ALL}/web")).status == 204


async def test_groups_are_added_to_a_container_and_removed(new: Caller, host: FakeHost) -> None:
    web, db = await group(new, "web"), await group(new, "db")
    one = await running(new, host)
    default = (await new.get(f"{ALL}/default")).json["uuid"]

    async def groups() -> list[str]:
        await host.settle()
        shown = (await new.get(one)).json
        assert (shown["status"], shown["task_state"]) == ("Running", None)
        return list(shown["security_groups"])

    assert (await new.post(f"{one}/add_security_group?name=web")).status == 202
    assert (await new.get(one)).json["task_state"] == "sg_adding"
    assert await groups() == [default, web["uuid"]], "it is in default still"
    assert (await new.at("1.14").post(f"{one}/add_security_group", {"name": db["uuid"]})).status == 202
    assert await groups() == [default, web["uuid"], db["uuid"]]
    for verb, name in (("add", "web"), ("add", "default"), ("add", db["uuid"])):
        answer = await new.post(f"{one}/{verb}_security_group?name={name}")
        assert (answer.status, "name:" in answer.error["title"]) == (400, True)
    assert (await new.post(f"{one}/remove_security_group?name=default")).status == 202
    assert (await new.get(one)).json["task_state"] == "sg_removing"
    assert (await new.post(f"{one}/remove_security_group?name=db")).status == 202
    assert await groups() == [web["uuid"]]
    last = await new.post(f"{one}/remove_security_group?name=web")
    assert (last.status, "at least one" in last.error["title"]) == (400, True)
    assert (await new.post(f"{one}/remove_security_group?name=db")).status == 400
    assert (await new.post(f"{one}/add_security_group?name=nobodys")).status == 404
    assert (await new.post("/v1/containers/none/add_security_group?name=web")).status == 404
    done = (await new.get(f"{one}/container_actions")).json["containerActions"]
    assert [item["action"] for item in done].count("add_security_group") == 2
    assert {item["message"] for item in done} == {None}
    await new.post(f"{one}/stop?timeout=0")
    await host.settle()
    assert (await new.post(f"{one}/add_security_group?name=default")).status == 202
    await new.call("DELETE", f"{one}?stop=true")
    deleting = await new.post(f"{one}/add_security_group?name=db")
    assert (deleting.status, deleting.code) == (409, "container.invalid-state-exception")


async def test_a_container_has_no_more_groups_than_it_may_name(new: Caller, host: FakeHost, cloud: Cloud) -> None:
    cloud.settings = Settings(security_groups=-1)
    names = [(await group(new, f"g{number}"))["name"] for number in range(65)]
    refused = await new.post("/v1/containers", {"image": "busybox", "security_groups": names})
    assert (refused.status, "security_groups" in refused.error["title"]) == (400, True)
    made = await new.create(security_groups=names[:64])
    await host.settle()
    full = await new.post(f"/v1/containers/{made['uuid']}/add_security_group?name=g64")
    assert (full.status, "64" in full.error["title"]) == (400, True)


async def test_a_capsules_containers_share_its_groups(new: Caller, host: FakeHost) -> None:
    web = await group(new, "web")
    named = changed("spec.securityGroups", ["web", web["uuid"], "web"])
    made = await new.post("/v1/capsules", {"template": named})
    assert made.status == 202, made.text
    members = made.json["containers"] + made.json["init_containers"]
    assert {tuple(member["security_groups"]) for member in members} == {(web["uuid"],)}
    assert (await new.call("DELETE", f"{ALL}/web")).status == 409
    assert (await new.post("/v1/capsules", {"template": changed("spec.securityGroups", ["none"])})).status == 404
    assert (await new.post("/v1/capsules", {"template": changed("spec.securityGroups", "web")})).status == 400
    assert (await new.post("/v1/capsules", {"template": TEMPLATE})).status == 202
