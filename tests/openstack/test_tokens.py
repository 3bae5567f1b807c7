"""What is made of a token that Keystone vouches for, and how long that is believed; see ``test_keystone``."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from msgspec import structs
from oslo_config import cfg

from higgins.api.auth import Identity
from higgins.api.auth_keystone import Keystone, credentials_of
from higgins.cli.authentication import NoKeystone, open_auth
from higgins.cli.options import CONTROL_PLANE, read
from higgins.model.errors import Unauthorized
from higgins.openstack import tokens
from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.tokens import Credentials, Token

GOOD = Token("u", "p", frozenset({"member"}), datetime.now(UTC) + timedelta(hours=1))


class Questions:
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self, answer: Token | Exception = GOOD) -> None:
        self.answer = answer
        self.asked: list[Credentials] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, credentials: Credentials) -> Token:
        self.asked.append(credentials)
        self.may_answer.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


Opener = Callable[..., Keystone]


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    made: list[Keystone] = []

    def make(questions: Questions, **options: Any) -> Keystone:
        made.append(Keystone(questions, uri="http://keystone", **{"belief": 60.0} | options))
        return made[-1]

    yield make
    for auth in made:
        auth.close()


async def asked(auth: Keystone, path: str = "/v1/containers", method: str = "GET", **headers: str) -> Identity:
    sent = {name.replace("_", "-"): text for name, text in headers.items()} or {"X-Auth-Token": "t"}
    return await auth.identify(make_mocked_request(method, path, headers=sent))


async def test_a_token_is_believed_everywhere_without_asking_again(opened: Opener) -> None:
    questions = Questions()
    auth = opened(questions)
    identity = await asked(auth)
    assert (identity.user_id, identity.project_id, identity.roles) == ("u", "p", frozenset({"member"}))
    assert await asked(auth, "/v1/hosts", "DELETE") == identity
    assert len(questions.asked) == 1
    await asked(auth, X_Auth_Token="another")
    await asked(auth, X_Auth_Token="t", X_Service_Token="s")
    assert len(questions.asked) == 3


async def test_a_token_with_access_rules_is_believed_for_that_call_only(opened: Opener) -> None:
    questions = Questions(structs.replace(GOOD, restricted=True))
    auth = opened(questions)
    await asked(auth)
    await asked(auth, "//v1/containers/")
    assert len(questions.asked) == 1
    questions.answer = Unauthorized("no")
    for path, method in (("/v1/containers", "POST"), ("/v1/containers/a", "GET")):
        with pytest.raises(Unauthorized):
            await asked(auth, path, method)


async def test_a_token_is_not_believed_past_its_expiry_nor_a_refusal_at_all(opened: Opener) -> None:
    expired = structs.replace(GOOD, expires=datetime.now(UTC) - timedelta(seconds=1))
    questions = Questions(expired)
    auth = opened(questions)
    await asked(auth)
    questions.answer = Unauthorized("no")
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await asked(auth)
    assert len(questions.asked) == 3
    questions.answer = structs.replace(expired, service_roles=frozenset({"service"}))
    for _ in range(2):
        await asked(auth, X_Auth_Token="t", X_Service_Token="s")
    assert len(questions.asked) == 4


async def test_many_at_once_share_one_question_and_one_who_leaves_ends_it_for_nobody(opened: Opener) -> None:
    questions = Questions()
    questions.may_answer.clear()
    auth = opened(questions)
    callers = [asyncio.create_task(asked(auth)) for _ in range(20)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)
    questions.may_answer.set()
    done = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert all(isinstance(one, Identity) for one in done[1:])
    assert len(questions.asked) == 1


async def test_a_keystone_that_hangs_is_told_as_such(opened: Opener) -> None:
    questions = Questions()
    questions.may_answer.clear()
    auth = opened(questions, patience=0.01)
    with pytest.raises(ServiceUnavailable, match="Keystone does not answer now"):
        await asked(auth)
    questions.may_answer.set()


async def test_what_cannot_be_a_token_is_not_sent_on(opened: Opener) -> None:
    questions = Questions()
    auth = opened(questions)
    for headers in ({"X-Auth-Token": ""}, {"X-Auth-Token": "a b"}, {"X-Auth-Token": "t", "X-Service-Token": "é"}):
        with pytest.raises(Unauthorized):
            await asked(auth, **headers)
    assert questions.asked == []


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("/v1/containers/", "/v1/containers"),
        ("/containers//a.json", "/v1/containers/a"),
        ("/v1/containers/a%20b?all_projects=1", "/v1/containers/a b"),
    ],
)
def test_access_rules_are_compared_with_one_form_of_a_path(raw: str, canonical: str) -> None:
    request = make_mocked_request("GET", raw, headers={"X-Auth-Token": "t"})
    assert credentials_of(request).path == canonical


def configured(**options: Any) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    tokens.register(conf)
    conf([], default_config_files=[])
    for name, value in options.items():
        conf.set_override(name, value, group=tokens.GROUP)
    return conf


def test_a_token_is_never_believed_for_more_than_a_minute() -> None:
    assert tokens.belief(configured()) == (60, 0)
    assert tokens.belief(configured(token_cache_time=5)) == (5, 0)
    assert tokens.belief(configured(token_cache_time=-1)) == (0, 0)
    assert sum(tokens.belief(configured(memcached_servers=["127.0.0.1:11211"]))) == 60


def test_rules_for_either_name_of_the_service_are_rules_for_it() -> None:
    rules = [
        {"service": name, "method": "GET", "path": "/"} for name in ("container", "image", "application-container")
    ]
    token = {"application_credential": {"access_rules": rules}, "catalog": [{"type": "container"}]}
    renamed = tokens.with_one_name(token, "x")
    assert [rule["service"] for rule in renamed["application_credential"]["access_rules"]] == ["x", "image", "x"]
    assert renamed["catalog"] == [{"type": "x"}]
    assert token["catalog"] == [{"type": "container"}]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", "needs auth_type"),
        ("auth_type = no-such-thing", "no-such-thing"),
        ("auth_type = password\nusername = higgins", "auth_url"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told_before_anything_is_served(
    options: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "higgins.conf").write_text(f"[DEFAULT]\nauth = keystone\n[keystone_authtoken]\n{options}\n")
    conf = read(["--config-file", str(tmp_path / "higgins.conf")], CONTROL_PLANE)
    with pytest.raises(NoKeystone, match=told), open_auth(conf, tmp_path):
        pass
    assert not (tmp_path / "users").exists()
