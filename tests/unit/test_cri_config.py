"""What a wish becomes in CRI's words."""

from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as cri
from hypothesis import given
from hypothesis import strategies as st

from higgins.model.errors import EngineError
from higgins.runtimes.base import Bind, EngineContainer, SandboxSpec
from higgins.runtimes.cri import config

words = st.text(max_size=20)
specs = st.builds(
    EngineContainer,
    uuid=st.uuids().map(str),
    incarnation=st.integers(1, 4000),
    sandbox=st.uuids().map(str),
    project_id=words,
    image=words,
    command=st.lists(words, max_size=3).map(tuple),
    entrypoint=st.none() | st.lists(words, max_size=3).map(tuple),
    environment=st.dictionaries(words, words, max_size=3),
    labels=st.dictionaries(st.sampled_from(["org.higgins.uuid", "org.higgins.managed", "mine"]), words),
    privileged=st.booleans(),
    tty=st.booleans(),
    cpu=st.sampled_from([0.0, 0.001, 0.5, 3.0]),
    memory=st.sampled_from([0, 1 << 20]),
    cpuset=st.lists(st.integers(0, 7), max_size=3).map(tuple),
    binds=st.lists(st.builds(Bind, source=words, destination=words), max_size=2).map(tuple),
)


def made(**spec: object) -> cri.ContainerConfig:
    wish: dict[str, object] = {"uuid": "c", "incarnation": 1, "sandbox": "s", "image": "busybox"} | spec
    return config.container_config(EngineContainer(**wish), attempt=1)  # type: ignore[arg-type]


def sandbox(**spec: object) -> cri.PodSandboxConfig:
    wish: dict[str, object] = {"uuid": "s", "project_id": "demo"} | spec
    return config.sandbox_config(
        SandboxSpec(**wish),  # type: ignore[arg-type]
        attempt=2,
        logs=Path("/logs"),
        cgroup_parent="/higgins",
    )


@given(specs)
def test_a_container_can_be_made_again_from_what_the_engine_keeps(spec: EngineContainer) -> None:
    kept = config.container_config(spec, attempt=1)
    assert config.container_spec(kept.annotations) == spec


@given(specs)
def test_no_label_is_a_tenants(spec: EngineContainer) -> None:
    kept = config.container_config(spec, attempt=1).labels
    assert kept[config.PREFIX + "uuid"] == spec.uuid
    assert kept[config.PREFIX + "sandbox"] == spec.sandbox
    assert kept[config.OURS] == "1"
    assert "mine" not in kept


@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 1_000_000)), min_size=2, max_size=2))
def test_attempts_are_in_the_order_of_incarnations_and_then_of_starts(pairs: list[tuple[int, int]]) -> None:
    one, other = pairs
    assert (config.attempt_number(*one) < config.attempt_number(*other)) == (one < other)
    assert config.attempt_number(*one) < 1 << 32


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, (), ((), ())),
        (None, ("a",), ((), ("a",))),
        (("e",), ("a",), (("e",), ("a",))),
        (("e",), (), (("e",), ())),
        ((), ("a", "b"), (("a", "b"), ())),
    ],
)
def test_an_entrypoint_replaces_the_images_and_an_empty_one_takes_it_away(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...], expected: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    kept = made(entrypoint=entrypoint, command=command)
    assert (tuple(kept.command), tuple(kept.args)) == expected


def test_limits_are_a_quota_of_microseconds_and_bytes() -> None:
    limits = made(cpu=0.5, memory=64 << 20).linux.resources
    assert (limits.cpu_quota, limits.cpu_period, limits.memory_limit_in_bytes) == (50_000, 100_000, 64 << 20)
    none = made().linux.resources
    assert (none.cpu_quota, none.memory_limit_in_bytes) == (0, 0)
    assert config.resources(0.001, 0).cpu_quota == 1000, "the kernel takes no less"


def test_a_limit_that_is_taken_away_is_said_to_be_none() -> None:
    limits = config.changed_resources(0, 0)
    assert (limits.cpu_quota, limits.memory_limit_in_bytes) == (-1, -1)


def test_a_container_has_the_safe_defaults_unless_it_is_privileged() -> None:
    safe = made().linux.security_context
    assert safe.no_new_privs
    assert set(safe.capabilities.drop_capabilities) == {"MKNOD", "NET_RAW"}
    assert safe.seccomp.profile_type == cri.SecurityProfile.RuntimeDefault
    assert "/proc/kcore" in safe.masked_paths
    assert "/proc/sys" in safe.readonly_paths
    free = made(privileged=True).linux.security_context
    assert free.privileged
    assert not free.no_new_privs
    assert free.seccomp.profile_type == cri.SecurityProfile.Unconfined
    assert not free.masked_paths
    for one in (safe, free):
        assert (one.namespace_options.network, one.namespace_options.pid) == (cri.POD, cri.CONTAINER)


def test_a_sandbox_has_a_directory_for_logs_and_a_place_in_the_control_groups() -> None:
    kept = sandbox(hostname="name", dns=("10.0.0.1",))
    assert (kept.log_directory, kept.hostname, kept.linux.cgroup_parent) == ("/logs/s", "name", "/higgins")
    assert list(kept.dns_config.servers) == ["10.0.0.1"]
    assert kept.metadata.attempt == 2
    assert config.sandbox_spec(kept.annotations).hostname == "name"


@pytest.mark.parametrize("uuid", ["", "..", ".", "../x", "a/b", "a\nb", "-x", "a\0"])
def test_what_is_no_plain_name_reaches_no_path(uuid: str) -> None:
    with pytest.raises(EngineError):
        sandbox(uuid=uuid)
    with pytest.raises(EngineError):
        made(uuid=uuid)
