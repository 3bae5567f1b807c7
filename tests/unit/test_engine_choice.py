"""Which engine ``higgins up`` takes."""

import pytest

from higgins.cli.engine import ENGINES, NoEngine, choose


@pytest.mark.parametrize(
    ("answering", "taken"),
    [
        ({"cri", "docker", "podman"}, "cri"),
        ({"docker", "podman"}, "docker"),
        ({"podman"}, "podman"),
        ({"cri", "podman"}, "cri"),
    ],
)
def test_containerd_is_taken_before_docker_and_docker_before_podman(answering: set[str], taken: str) -> None:
    name, reason = choose("auto", answering)
    assert name == taken
    assert reason.startswith(f"{ENGINES[taken]} answers")
    assert all(ENGINES[other] in reason for other in answering)


@pytest.mark.parametrize("wanted", ENGINES)
def test_an_engine_that_was_asked_for_is_taken_or_nothing(wanted: str) -> None:
    assert choose(wanted, set(ENGINES)) == (wanted, "it was asked for")
    with pytest.raises(NoEngine, match=f"The {ENGINES[wanted]} that was asked for"):
        choose(wanted, set(ENGINES) - {wanted})


def test_without_an_engine_the_operator_is_told_what_to_start() -> None:
    with pytest.raises(NoEngine, match="Neither containerd nor Docker nor Podman"):
        choose("auto", set())
