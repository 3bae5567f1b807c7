"""HTTP Basic against a password file."""

from pathlib import Path

import bcrypt
import pytest
from aiohttp import encode_basic_auth
from aiohttp.test_utils import make_mocked_request

from higgins.api.auth import HttpBasic, Identity, PasswordFileError, parse_password_file
from higgins.model.errors import Unauthorized


def line(user: str, password: str, project: str = "p", roles: str = "member") -> str:
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}:{project}:{roles}\n"


async def asked(auth: HttpBasic, user: str, password: str) -> Identity:
    headers = {"Authorization": encode_basic_auth(user, password, encoding="utf-8")}
    return await auth.identify(make_mocked_request("GET", "/", headers=headers))


async def test_a_user_has_a_project_and_what_the_roles_imply(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(line("ann", "pässword:1", "sales", "manager, auditor"))
    auth = HttpBasic(tmp_path / "users")
    identity = await asked(auth, "ann", "pässword:1")
    assert (identity.user_id, identity.project_id) == ("ann", "sales")
    assert identity.roles == {"manager", "member", "reader", "auditor"}


async def test_a_wrong_password_is_refused_as_an_unknown_user_is(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(line("ann", "right"))
    auth = HttpBasic(tmp_path / "users")
    told = set()
    for user, password in (("ann", "wrong"), ("bea", "right"), ("ann", ""), ("ann", "x" * 100), ("ann", "a\0b")):
        with pytest.raises(Unauthorized) as refused:
            await asked(auth, user, password)
        told.add(str(refused.value))
    assert len(told) == 1


async def test_what_was_checked_once_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users").write_text(line("ann", "right"))
    auth = HttpBasic(tmp_path / "users")
    await asked(auth, "ann", "right")

    def slow(_password: bytes, _hash: bytes) -> bool:
        raise AssertionError("bcrypt was asked again")

    monkeypatch.setattr("higgins.api.auth.bcrypt.checkpw", slow)
    assert (await asked(auth, "ann", "right")).user_id == "ann"
    with pytest.raises(AssertionError):
        await asked(auth, "ann", "other")


async def test_a_changed_file_holds_at_once_and_a_broken_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(line("ann", "right") + line("bea", "right"))
    auth = HttpBasic(path)
    await asked(auth, "ann", "right")
    path.write_text(line("bea", "right", "another-project"))
    with pytest.raises(Unauthorized):
        await asked(auth, "ann", "right")
    assert (await asked(auth, "bea", "right")).project_id == "another-project"
    path.write_text("rubbish\n")
    assert (await asked(auth, "bea", "right")).user_id == "bea"


@pytest.mark.parametrize(
    "text", ["ann", "ann:x:p:r", f"{line('a', 'x')}{line('a', 'y')}", line("a", "x", ""), "a:$2b$04$short:p:r"]
)
def test_a_file_that_cannot_be_used_names_the_line(text: str) -> None:
    with pytest.raises(PasswordFileError, match=r"line \d: "):
        parse_password_file(text)


def test_comments_and_empty_lines_are_passed_over() -> None:
    assert set(parse_password_file(f"# users\n\n{line('ann', 'x')}")) == {"ann"}
