"""What gRPC says of a containerd in trouble, in the words of the drivers' interface."""

import grpc
import pytest

from higgins.model.errors import ContainerGone, EngineError, EngineUnavailable, ImageNotFound, ImagePullFailed
from higgins.runtimes.cri.errors import engine_error, pull_error

CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details"),
    [(CODE.UNAVAILABLE, ""), (CODE.DEADLINE_EXCEEDED, ""), (CODE.UNKNOWN, "server is not initialized yet")],
)
def test_an_engine_that_is_away_or_only_starts_has_refused_nothing(code: grpc.StatusCode, details: str) -> None:
    assert isinstance(engine_error(code, details, "this"), EngineUnavailable)
    assert isinstance(pull_error(code, details, "busybox"), EngineUnavailable)


def test_other_answers_are_answers() -> None:
    assert isinstance(engine_error(CODE.NOT_FOUND, "", "this"), ContainerGone)
    assert type(engine_error(CODE.UNKNOWN, "no", "this")) is EngineError
    assert isinstance(pull_error(CODE.NOT_FOUND, "", "busybox"), ImageNotFound)
    assert isinstance(pull_error(CODE.UNKNOWN, "no", "busybox"), ImagePullFailed)


def test_what_an_engine_says_has_no_nul_which_no_database_keeps() -> None:
    assert str(pull_error(CODE.UNKNOWN, "denied\0 by\0them", "busybox")).endswith(": denied by them.")
