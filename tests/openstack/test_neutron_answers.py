"""What Neutron's answers mean."""

import json
from typing import Any

import pytest
import requests
from keystoneauth1 import exceptions as failures

from higgins.control.cloud_networks import available
from higgins.control.port_keeping import told_of
from higgins.model.errors import Conflict, HigginsError, NotFound, Unauthorized
from higgins.model.networking import CloudNetwork, CloudSubnet, Described, Fixed
from higgins.openstack.errors import ServiceRefused, ServiceUnavailable
from higgins.openstack.neutron import Neutron, missing_rules, port_of, refusal

FOUND = {
    "id": "p",
    "network_id": "n",
    "mac_address": "fa:16:3e:00:00:01",
    "binding:vif_type": "ovs",
    "binding:vif_details": {"bridge_name": "br-int", "bound_drivers": {"0": "ovn"}},
    "fixed_ips": [{"subnet_id": "six", "ip_address": "fd00::5"}, {"subnet_id": "four", "ip_address": "10.0.0.5"}],
}


def answer(status: int, body: str) -> failures.HttpError:
    response = requests.Response()
    response.status_code = status
    response._content = body.encode()
    error = failures.from_response(response, "GET", "http://neutron/")
    assert isinstance(error, failures.HttpError)
    return error


def neutron(status: int, kind: str) -> failures.HttpError:
    return answer(status, f'{{"NeutronError": {{"type": "{kind}", "message": "It says so.", "detail": ""}}}}')


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (neutron(400, "InvalidIpForNetwork"), ServiceRefused),
        (neutron(403, "PolicyNotAuthorized"), ServiceRefused),
        (neutron(404, "NetworkNotFound"), ServiceRefused),
        (neutron(409, "OverQuota"), ServiceRefused),
        (neutron(409, "IpAddressInUse"), ServiceRefused),
        (neutron(409, "RetryRequest"), ServiceUnavailable),
        (answer(429, "slowly"), ServiceUnavailable),
        (answer(500, '{"NeutronError": "text"}'), ServiceUnavailable),
        (answer(503, "<html>"), ServiceUnavailable),
        (answer(401, ""), Unauthorized),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_refusal_means(error: failures.HttpError, kind: type[HigginsError]) -> None:
    found = refusal(error, "no port can be made", "/v2.0/ports")
    assert type(found) is kind
    if kind is not Unauthorized:
        assert "Neutron" in str(found) and "no port can be made" in str(found)


def test_a_port_that_is_gone_is_told_from_a_network_that_is() -> None:
    gone = neutron(404, "PortNotFound")
    assert type(refusal(gone, "x", "/v2.0/ports/abc")) is NotFound
    assert type(refusal(neutron(404, "NetworkNotFound"), "x", "/v2.0/ports/abc")) is ServiceRefused


def test_ipv4_comes_first_and_the_rest_is_the_subnets() -> None:
    described = Described(
        {"n": CloudNetwork(id="n", name="n", project_id="red", mtu=1442)},
        {
            "four": CloudSubnet(id="four", network="n", cidr="10.0.0.0/24", gateway="10.0.0.1", dns=("192.0.2.1",)),
            "six": CloudSubnet(id="six", network="n", cidr="fd00::/64", routes=(("fd01::/64", "fd00::9"),)),
            "else": CloudSubnet(id="else", network="n", cidr="10.9.0.0/24", dns=("192.0.2.9",)),
        },
        {"n": "10.0.0.2"},
    )
    told = told_of(port_of(FOUND), described)
    assert [(one.address, one.gateway) for one in told.addresses] == [("10.0.0.5", "10.0.0.1"), ("fd00::5", "")]
    assert told.subnets == ("four", "six") and told.mtu == 1442 and told.dns == ("192.0.2.1",)
    assert told.routes == (("fd01::/64", "fd00::9"), ("169.254.169.254/32", "10.0.0.2"))
    assert (told.kind, told.bridge, told.answers) == ("ovs", "br-int", True)


def test_an_address_whose_subnet_is_unknown_is_left_out() -> None:
    assert told_of(port_of(FOUND), Described({}, {}, {})).addresses == ()
    assert port_of(FOUND).fixed == (Fixed("fd00::5", "six"), Fixed("10.0.0.5", "four"))


def net(name: str, project: str = "red", **more: object) -> CloudNetwork:
    return CloudNetwork(id=name, name=name, project_id=project, **{"subnets": ("s",), **more})  # type: ignore[arg-type]


def test_a_container_that_names_no_network_gets_the_projects_first() -> None:
    mine = [net("late", created="2026-02"), net("early", created="2026-01"), net("empty", created="2025", subnets=())]
    shared = [net("shared", "blue", shared=True, created="2020"), net("out", "blue", external=True, created="2019")]
    assert available([*shared, *mine], "red").name == "early"
    assert available(shared, "red").name == "shared"
    with pytest.raises(Conflict, match="no network with a subnet; make one"):
        available([net("out", "blue", external=True)], "red")


def test_who_has_no_network_is_put_on_none_of_several_that_are_shared() -> None:
    several = [net(f"n{number}", "blue", shared=True) for number in range(7)]
    with pytest.raises(Conflict, match=r"--net network=ID.*: n0 \(n0\), n1 .*n4 \(n4\) and 2 more\."):
        available(several, "red")
    assert available([*several, net("mine")], "red").name == "mine"


class Scripted:
    """Sessions whose clients see these security groups; ``made`` is what was asked to be made."""

    def __init__(self, *groups: dict[str, Any]) -> None:
        self.groups = list(groups)
        self.made: list[dict[str, Any]] = []

    def own(self, service_type: str) -> "Scripted":
        return self

    def caller(self, service_type: str, token: str) -> "Scripted":
        return self

    def request(self, path: str, method: str, **more: Any) -> requests.Response:
        found = [one for one in self.groups if all(one[key] == value for key, value in more.get("params", {}).items())]
        told: dict[str, Any] = {"security_groups": found}
        if method == "POST":
            self.made.append(more["json"])
            told = {"security_group": {"id": "made", "security_group_rules": []}}
        response = requests.Response()
        response.status_code, response._content = 200, json.dumps(told).encode()
        return response


def exposing(ident: str, project: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": ident, "name": "higgins-expose-80-tcp", "project_id": project, "security_group_rules": rules}


async def test_exposed_ports_are_opened_by_no_group_that_another_project_shares() -> None:
    sessions = Scripted(exposing("theirs", "blue", missing_rules([], ["80/tcp"])))
    assert await Neutron(sessions).exposing_group("token", "red", ("80/tcp",)) == "made"  # type: ignore[arg-type]
    assert len(sessions.made) == 2


async def test_a_group_for_exposed_ports_that_was_not_finished_is_finished() -> None:
    there, lacking = missing_rules([], ["80/tcp"])
    sessions = Scripted(exposing("mine", "red", [there, {**lacking, "remote_ip_prefix": "192.0.2.0/24"}]))
    assert await Neutron(sessions).exposing_group("token", "red", ("80/tcp",)) == "mine"  # type: ignore[arg-type]
    assert sessions.made == [{"security_group_rules": [{"security_group_id": "mine", **lacking}]}]
    whole = Scripted(exposing("mine", "red", [there, lacking]))
    assert await Neutron(whole).exposing_group("token", "red", ("80/tcp",)) == "mine"  # type: ignore[arg-type]
    assert whole.made == []
