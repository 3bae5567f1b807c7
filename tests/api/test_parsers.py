"""The parsers, on whatever there is: they answer with a value or with a refusal, never otherwise."""

import string
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from higgins.api import bodies, matching
from higgins.api.consoles import whole_characters
from higgins.api.images import split_tag
from higgins.api.matching import Matcher
from higgins.api.microversion import MAXIMUM, MINIMUM, Version, negotiate
from higgins.api.routes import ROUTES
from higgins.api.schemas import capsules, common, containers, kinds
from higgins.api.schemas.fields import read
from higgins.model.errors import HigginsError, Invalid, MethodNotAllowed, NotAcceptable, SchemaInvalid

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(sorted({field.name for field in containers.CREATE}))
VERSIONS = st.integers(MINIMUM.minor, MAXIMUM.minor).map(lambda minor: Version(1, minor))


@given(st.dictionaries(NAMES, JSON), VERSIONS)
def test_any_body_of_a_create_is_taken_or_refused(body: dict[str, Any], version: Version) -> None:
    try:
        taken = read(containers.CREATE, body, version)
    except Invalid as refused:
        assert 0 < len(str(refused)) < 1000
    else:
        assert set(taken) <= set(body)


@given(JSON, VERSIONS)
def test_any_template_is_taken_or_refused(template: Any, version: Version) -> None:
    try:
        capsules.read_template(read(capsules.CREATE, {"template": template}, version)["template"], version)
    except Invalid as refused:
        assert str(refused)


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        bodies.parse_json(data)
    except SchemaInvalid as refused:
        assert str(refused)


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_version_header_is_a_version_or_not_acceptable(values: list[str]) -> None:
    try:
        assert MINIMUM <= negotiate(values) <= MAXIMUM
    except NotAcceptable as refused:
        assert str(refused)


@given(VERSIONS)
def test_every_version_in_the_range_is_served(version: Version) -> None:
    assert negotiate([f"container {version}"]) == version


MATCHER = Matcher(ROUTES)


@given(st.text(string.printable, max_size=60), st.sampled_from(["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE"]))
def test_any_path_is_a_route_or_refused(path: str, method: str) -> None:
    try:
        route, values = MATCHER.match(method, path)
    except (MethodNotAllowed, HigginsError) as refused:
        assert refused.status in (404, 405)
    else:
        assert all(values.values())
        assert route.method in (method, "GET")


@given(st.sampled_from(ROUTES), st.text(string.ascii_letters + string.digits, min_size=1, max_size=9))
def test_every_route_is_found_however_its_path_is_written(route: Any, name: str) -> None:
    path = "/".join(name if part.startswith("{") else part for part in route.path.split("/"))
    for written in (path, path + "/", path.replace("/", "//"), path + ".json", path.removeprefix("/v1")):
        found, _ = MATCHER.match(route.method, written)
        assert found.path == route.path or name in found.path  # a name may be the word of another route


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)))
def test_a_moment_is_read_as_it_was_written(moment: datetime) -> None:
    written = moment.strftime("%Y-%m-%d %H:%M:%S,") + f"{moment.microsecond:06d}"
    assert common.moment(written) == moment
    seconds = int(moment.replace(tzinfo=UTC).timestamp())
    assert common.moment(str(seconds)) == moment.replace(microsecond=0)


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    try:
        assert isinstance(common.moment(text), datetime)
    except ValueError as refused:
        assert str(refused)


@given(st.text(max_size=12))
def test_any_text_is_a_signal_or_refused(text: str) -> None:
    try:
        parsed = common.SIGNAL.parse(text, "signal")
    except SchemaInvalid as refused:
        assert "'signal'" in str(refused)
    else:
        assert parsed is None or parsed.startswith("SIG")


@given(st.integers() | st.floats() | st.text(max_size=12) | st.none() | st.booleans())
def test_numbers_are_finite_and_in_range_or_refused(value: Any) -> None:
    for kind in (kinds.Whole(0, 10), kinds.Number(0, 10)):
        try:
            assert 0 <= kind.parse(value, "n") <= 10
        except SchemaInvalid as refused:
            assert "'n'" in str(refused)


@given(st.from_regex(r"[a-z0-9]{1,8}(:[0-9]{1,4})?(/[a-z0-9]{1,8}){0,2}", fullmatch=True), st.text("abc1.", min_size=1))
def test_a_tag_is_told_from_a_port(repo: str, tag: str) -> None:
    plain = repo if "/" in repo else repo.partition(":")[0]
    assert split_tag(f"{plain}:{tag}") == (plain, tag)
    assert split_tag(plain) == (plain, None)


@given(st.text(max_size=40), st.lists(st.integers(0, 160), max_size=4))
def test_no_frame_cuts_a_character_wherever_the_output_was_cut(text: str, cuts: list[int]) -> None:
    data = text.encode(errors="replace")
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    kept, sent = b"", []
    for start, end in pairwise(edges):
        whole, kept = whole_characters(kept + data[start:end])
        sent.append(whole.decode())  # raises where a character is cut
    assert "".join(sent).encode() + kept == data
    assert kept == b""


@given(st.binary(max_size=20))
def test_no_byte_is_lost_or_kept_for_long(data: bytes) -> None:
    whole, kept = whole_characters(data)
    assert whole + kept == data
    assert len(kept) < 4


@given(st.lists(st.text(string.ascii_letters, min_size=1, max_size=5), max_size=4))
def test_the_parts_of_a_path_are_what_stands_between_slashes(parts: list[str]) -> None:
    expected = parts[1:] if parts and parts[0] == "v1" else parts
    assert matching.segments("//" + "//".join(parts) + "/") == expected
