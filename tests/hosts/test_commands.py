"""The commands as an operator meets them: what they print, and that what goes wrong is said in a sentence."""

import re
import sys
from datetime import datetime
from pathlib import Path

import pytest

from higgins.cli.main import main
from higgins.control.identities import fingerprint, key_pem
from higgins.control.wire import split_token
from tests.hosts.test_authority import operators_authority

_FINGERPRINT = re.compile("Authority: +SHA-256 ([0-9a-f]{64})")


class Shell:
    """Runs commands in this process; what they printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path) -> None:
        self._monkeypatch, self._capsys, self.data = monkeypatch, capsys, data

    def __call__(self, *words: str, code: int = 0) -> str:
        self._monkeypatch.setattr(sys, "argv", ["higgins", *words])
        assert main() == code
        printed = self._capsys.readouterr()
        return printed.err if code else printed.out

    def refused(self, *words: str) -> str:
        """The one line that a failed command ends with."""
        return self(*words, "--data", str(self.data), code=1).strip().splitlines()[-1]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path / "data")


def test_a_token_is_printed_with_the_fingerprint_of_the_authority_and_what_to_type(shell: Shell) -> None:
    told = [shell("host", "token", "--data", str(shell.data), "--ttl", "90") for _ in range(2)]
    tokens = [re.findall(r"^Token: +(\S+)$", text, re.MULTILINE)[0] for text in told]
    (first, shown), (second, shown_again) = (split_token(token) for token in tokens)
    assert first != second and shown == shown_again
    assert f"SHA-256 {shown}" in told[0] and "0:01:30" in told[0]
    assert f"higgins agent join https://HOST:PORT --token {tokens[0]}" in told[0]


def test_what_goes_wrong_is_said_in_a_sentence(shell: Shell) -> None:
    nowhere, whole = "https://127.0.0.1:1", "x." + "0" * 64
    assert "has not joined a control plane" in shell.refused("agent")
    assert "takes the token" in shell.refused("agent", "join", nowhere)
    assert "in one piece" in shell.refused("agent", "join", nowhere, "--token", "x")
    assert "does not answer" in shell.refused("agent", "join", nowhere, "--token", whole)
    assert "of the form https://" in shell.refused("agent", "--join", "http://127.0.0.1", "--token", whole)
    assert shell.refused("host", "revoke", "nobody") == "higgins: Host nobody could not be found."
    assert "no address with a port" in shell.refused("api", "--listen", "127.0.0.1:0", "--agent-listen", "nowhere")
    (shell.data / "membership.json").write_text("{}")
    assert "cannot be read" in shell.refused("agent")


def test_a_replica_with_another_secret_key_says_so(shell: Shell) -> None:
    shell("host", "token", "--data", str(shell.data))
    (shell.data / "secret.key").unlink()
    assert "need the same 'secret.key'" in shell.refused("host", "token")
    assert "need the same 'secret.key'" in shell.refused("api", "--listen", "127.0.0.1:0")


def test_the_authority_is_shown_and_one_of_the_operators_is_taken_only_at_first(shell: Shell) -> None:
    brought = operators_authority(datetime.now())
    paths = {"certificate": shell.data / "hosts.pem", "key": shell.data / "hosts.key"}
    shell.data.mkdir()
    paths["certificate"].write_text(brought.pem)
    paths["key"].write_text(key_pem(brought.key))
    files = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    told = shell("host", "authority", "--data", str(shell.data), *files)
    assert f"SHA-256 {fingerprint(brought.pem)}" in told and "CN=Hosts of Example" in told
    assert shell("host", "authority", "--data", str(shell.data)) == told
    assert "has an authority already" in shell.refused("host", "authority", *files)


def test_the_authority_is_replaced_in_two_steps(shell: Shell) -> None:
    data = ("--data", str(shell.data))
    (first,) = _FINGERPRINT.findall(shell("host", "authority", *data))
    assert "is not being replaced" in shell.refused("host", "authority", "rotate", "--finish")
    told = shell("host", "authority", "rotate", *data)
    old, new = _FINGERPRINT.findall(told)
    assert old == first != new and "None waits" in told
    assert "replaced already" in shell.refused("host", "authority", "rotate")
    assert f".{old}" in shell("host", "token", *data)
    assert _FINGERPRINT.findall(shell("host", "authority", "rotate", "--finish", *data)) == [new]
    assert f".{new}" in shell("host", "token", *data)


def test_options_of_the_other_step_are_not_ignored(shell: Shell) -> None:
    rotate = ("host", "authority", "rotate")
    assert "--force belongs to --finish" in shell.refused(*rotate, "--force")
    assert "the one or the other" in shell.refused(*rotate, "--finish", "--certificate", "own.pem")
    assert "needs both" in shell.refused(*rotate, "--certificate", "own.pem")
    assert "needs both" in shell.refused("host", "authority", "--key", "own.key")


@pytest.mark.parametrize("words", [["host"], ["host", "revoke"], ["host", "invite"], ["agent", "join"]])
def test_half_a_command_shows_how_it_is_used(shell: Shell, words: list[str]) -> None:
    assert "higgins host token" in shell(*words, code=2)
