"""The Docker driver's frames, names, headers, versions and errors."""

import base64
import hashlib
import io
import json
import struct
import tarfile
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from higgins.model.errors import ContainerGone, EngineError, EngineUnavailable, ImageNotFound, NotImplementedHere
from higgins.runtimes.base import LogChunk, LogOptions, RegistryAuth
from higgins.runtimes.docker import archive, client, errors, images, pause, streams

quick_or_not = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick_or_not
@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=50))), st.integers(1, 20))
def test_frames_are_found_however_they_are_cut(written: list[tuple[int, bytes]], size: int) -> None:
    wire = b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in written)
    read: list[LogChunk] = []
    buffer = b""
    for at in range(0, len(wire), size):
        found, buffer = streams.frames(buffer + wire[at : at + size])
        read += found
    assert [(chunk.stream, chunk.data) for chunk in read] == written
    assert buffer == b""


def test_an_empty_frame_is_no_output() -> None:
    assert streams.frames(struct.pack(">BxxxL", 1, 0)) == ([], b"")


@quick_or_not
@given(st.lists(st.dictionaries(st.text(), st.integers())), st.integers(1, 20))
def test_lines_are_found_however_they_are_cut(written: list[dict[str, int]], size: int) -> None:
    wire = b"".join(json.dumps(value).encode() + b"\r\n" for value in written)
    read: list[bytes] = []
    buffer = b""
    for at in range(0, len(wire), size):
        found, buffer = client.lines(buffer + wire[at : at + size])
        read += found
    assert [json.loads(line) for line in read] == written


def test_the_newest_version_that_both_know_is_spoken() -> None:
    assert client.agree("1.41", "1.12") == "1.41"
    assert client.agree("1.47", "1.24") == "1.47"
    assert client.agree("1.52", "1.44") == "1.47"


@pytest.mark.parametrize(("newest", "oldest"), [("1.39", "1.12"), ("1.60", "1.50")])
def test_an_engine_without_a_version_in_common_is_refused(newest: str, oldest: str) -> None:
    with pytest.raises(EngineError, match=newest):
        client.agree(newest, oldest)


def test_errors_are_told_by_status() -> None:
    gone = ContainerGone("gone")
    assert errors.translate(404, "no such thing", gone) is gone
    assert type(errors.translate(404, "no such thing")) is EngineError
    assert type(errors.translate(500, "status 404 was seen", gone)) is EngineError
    assert type(errors.translate(503, "busy", gone)) is EngineUnavailable
    assert type(errors.translate(900, "no connection", gone)) is EngineUnavailable
    assert type(errors.translate(501, "never")) is NotImplementedHere


def test_an_error_keeps_the_engines_words_in_one_line() -> None:
    assert str(errors.translate(400, "bad\n  size")) == "The container engine answered: bad size."
    assert str(errors.translate(400, "bad\0size")) == "The container engine answered: bad size."


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
def test_a_lost_connection_is_an_engine_that_does_not_answer(error: Exception) -> None:
    with pytest.raises(EngineUnavailable), errors.engine_errors():
        raise error


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "busybox:latest"),
        ("busybox:1", "busybox:1"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("a@sha256:00", "a@sha256:00"),
    ],
)
def test_a_name_without_tag_means_latest(name: str, full: str) -> None:
    assert images.full_name(name) == full


@pytest.mark.parametrize("name", ["", ".", "../a", "a/../b", "a//b", "a?b", "a#b", "a b", "a\n", "/a", "%2e%2e/a"])
def test_what_could_change_a_url_is_no_name(name: str) -> None:
    with pytest.raises(ImageNotFound):
        images.full_name(name)


def test_the_registry_learns_who_asks_and_a_log_does_not() -> None:
    auth = RegistryAuth(username="u", password="hidden", domain="registry.example")
    header = images.auth_header(auth)["X-Registry-Auth"]
    assert json.loads(base64.urlsafe_b64decode(header)) == {
        "username": "u",
        "password": "hidden",
        "serveraddress": "registry.example",
    }
    assert "hidden" not in repr(auth)
    assert images.auth_header(None) == {}


def test_log_options_become_a_query() -> None:
    assert streams.log_params(LogOptions()) == {
        "stdout": "1",
        "stderr": "1",
        "timestamps": "0",
        "follow": "0",
        "tail": "all",
    }
    since = datetime(2026, 1, 1, tzinfo=UTC)
    params = streams.log_params(LogOptions(stderr=False, tail=0, since=since, follow=True, timestamps=True))
    assert (params["stderr"], params["tail"], params["since"]) == ("0", "0", f"{since.timestamp():.6f}")


def test_a_path_is_described_by_the_header() -> None:
    said = {"name": "f", "size": 3, "mode": 420, "mtime": "2026-01-01T00:00:00Z", "linkTarget": "/x"}
    stat = archive.path_stat(base64.b64encode(json.dumps(said).encode()).decode())
    assert (stat.name, stat.size, stat.mode, stat.link_target) == ("f", 3, 420, "")
    link = said | {"mode": 420 | archive.SYMLINK}
    assert archive.path_stat(base64.b64encode(json.dumps(link).encode()).decode()).link_target == "/x"


def test_the_pause_image_is_the_same_each_time_and_names_its_machine() -> None:
    saved = pause.archive("higgins-pause:1", b"program", "aarch64")
    assert saved == pause.archive("higgins-pause:1", b"program", "aarch64")
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        files = {name: tar.extractfile(name) for name in tar.getnames()}
        (manifest,) = json.load(files["manifest.json"] or io.BytesIO())
        image = json.load(files[manifest["Config"]] or io.BytesIO())
        layer = (files[manifest["Layers"][0]] or io.BytesIO()).read()
    assert (manifest["RepoTags"], image["architecture"]) == (["higgins-pause:1"], "arm64")
    assert image["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert [(member.name, member.mode) for member in tar.getmembers()] == [("pause", 0o755)]
