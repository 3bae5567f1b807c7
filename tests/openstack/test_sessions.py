"""In whose name Higgins speaks to the cloud's other services."""

from datetime import UTC, datetime, timedelta

import pytest
from keystoneauth1 import exceptions as failures
from oslo_config import cfg

from higgins.model.errors import Forbidden
from higgins.openstack import tokens, trusts
from higgins.openstack.sessions import Sessions, open_sessions
from higgins.openstack.tokens import Credentials, Token, Validator
from tests.engines import wait_until
from tests.openstack import cloud, needs
from tests.openstack.cloud import application_credential, password, token, upload
from tests.openstack.conftest import HigginsInCloud

pytestmark = needs("keystone", "glance")


@pytest.fixture(scope="module")
def conf(higgins: HigginsInCloud) -> cfg.ConfigOpts:
    made = cfg.ConfigOpts()
    tokens.register(made)
    made(["--config-file", str(higgins.configuration)], default_config_files=[])
    return made


@pytest.fixture(scope="module")
def sessions(conf: cfg.ConfigOpts) -> Sessions:
    return open_sessions(conf)


def known(conf: cfg.ConfigOpts, text: str) -> Token:
    return Validator(conf)(Credentials("GET", "/v1/containers", text))


async def test_services_are_found_in_the_catalogue(sessions: Sessions) -> None:
    assert await sessions.endpoint("image") == "http://127.0.0.1:9292"
    with pytest.raises(Exception, match="no-such-thing"):
        await sessions.endpoint("no-such-thing")


def test_a_caller_sees_what_is_the_callers(sessions: Sessions) -> None:
    own = token(password("demo", "demo"))
    made = upload(own, "of-demo", b"data")
    assert sessions.caller("image", own).get(f"/v2/images/{made}").json()["id"] == made
    for other in (sessions.caller("image", token(password("alt", "alt"))), sessions.own("image")):
        with pytest.raises(failures.NotFound):
            other.get(f"/v2/images/{made}")


def test_a_callers_token_may_expire_while_higgins_is_at_work(sessions: Sessions) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=4)).strftime("%Y-%m-%dT%H:%M:%S")
    own = token(application_credential("demo", "demo", expires_at=soon))

    def expired() -> bool:
        try:
            cloud.glance("GET", "images", own)
        except failures.Unauthorized:
            return True
        return False

    wait_until(expired, "the token does not expire")
    assert sessions.caller("image", own).get("/v2/images").status_code == 200


def test_who_trusts_higgins_is_acted_for_until_the_trust_is_given_back(
    conf: cfg.ConfigOpts, sessions: Sessions
) -> None:
    own = token(password("demo", "demo"))
    made = upload(own, "of-demo", b"data")
    trust = trusts.entrust(sessions, own, known(conf, own))
    cloud.revoke(own)
    assert sessions.trusting("image", trust).get(f"/v2/images/{made}").json()["id"] == made
    for _ in range(2):
        trusts.give_back(sessions, trust)
    with pytest.raises((failures.NotFound, failures.Unauthorized, failures.Forbidden)):
        sessions.trusting("image", trust).get(f"/v2/images/{made}")


def test_one_who_may_not_give_a_trust_is_told_so(conf: cfg.ConfigOpts, sessions: Sessions) -> None:
    bounded = token(application_credential("demo", "demo"))
    with pytest.raises(Forbidden, match="act for you later"):
        trusts.entrust(sessions, bounded, known(conf, bounded))
