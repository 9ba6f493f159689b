"""Dataclasses to JSON and back: the round trip, and every way in which a document can be wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes import codec
from runtimes.errors import ArtifactError, UsageError
from tests.refusals import refuses


@dataclass(frozen=True)
class Inner:
    size: tuple[int, int]
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.size[0] < 0:
            raise UsageError(f"size must not be negative, not {self.size}", code="size-negative")


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    share: float
    yes: bool
    inner: Inner | None
    many: tuple[Inner, ...]
    free: Mapping[str, object]
    counts: Mapping[str, int]
    dims: tuple[int | str, ...] = ()


GOOD: dict[str, object] = {
    "name": "n",
    "count": 1,
    "share": 0.5,
    "yes": True,
    "inner": {"size": [1, 2], "mode": "b"},
    "many": [{"size": [3, 4]}],
    "free": {"x": [1, None, {"y": "z"}]},
    "counts": {"x": 1},
    "dims": ["batch", 3],
}

texts = st.text(st.characters(exclude_categories=()), max_size=8)
integers = st.integers(-codec.MAX_INTEGER, codec.MAX_INTEGER)
inners = st.builds(Inner, st.tuples(st.integers(0, 9), integers), st.sampled_from(("a", "b")))
outers = st.builds(
    Outer,
    texts,
    integers,
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none() | inners,
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(texts, st.none() | integers | texts, max_size=3),
    st.dictionaries(texts, integers, max_size=3),
    st.lists(integers | texts, max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(outers)
def test_what_is_written_is_read_again(value: Outer) -> None:
    text = codec.dumps(value)
    assert codec.loads(Outer, text) == value
    assert codec.loads(Outer, text.encode("utf-8", "backslashreplace")) == value


def test_a_document_is_decoded_and_defaults_are_filled() -> None:
    value = codec.decode(Outer, GOOD)
    assert value.inner == Inner((1, 2), "b")
    assert value.many == (Inner((3, 4)),)
    assert value.dims == ("batch", 3)
    assert codec.decode(Outer, GOOD | {"share": 1}).share == 1.0


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ({"extra": 1}, "field-unknown", ("'extra'",)),
        ({"inner": {"size": [1, 2], "x": 1}}, "field-unknown", ("'inner.x'",)),
        ({"inner": {}}, "field-missing", ("'inner.size'",)),
        ({"name": 1}, "field-type-mismatch", ("'name'", "str", "1")),
        ({"name": None}, "field-type-mismatch", ("'name'", "str", "null")),
        ({"count": 1.0}, "field-type-mismatch", ("'count'", "int", "1.0")),
        ({"count": True}, "field-type-mismatch", ("'count'", "int", "true")),
        ({"share": "x"}, "field-type-mismatch", ("'share'", "float", '"x"')),
        ({"share": True}, "field-type-mismatch", ("'share'", "float", "true")),
        ({"share": float("inf")}, "field-type-mismatch", ("'share'", "finite number", "Infinity")),
        ({"yes": 1}, "field-type-mismatch", ("'yes'", "bool", "1")),
        ({"inner": {"size": [1]}}, "field-type-mismatch", ("'inner.size'", "list of 2", "[1]")),
        ({"inner": {"size": 1}}, "field-type-mismatch", ("'inner.size'", "a list,", "1")),
        ({"inner": {"size": [1, "x"]}}, "field-type-mismatch", ("'inner.size[1]'", "int")),
        ({"inner": {"size": [-1, 1]}}, "size-negative", ("'inner'", "(-1, 1)")),
        ({"inner": {"size": [1, 2], "mode": "c"}}, "field-type-mismatch", ("'inner.mode'", "('a', 'b')", '"c"')),
        ({"inner": 3}, "field-type-mismatch", ("'inner'", "object", "3")),
        ({"many": [{}]}, "field-missing", ("'many[0].size'",)),
        ({"free": []}, "field-type-mismatch", ("'free'", "object", "[]")),
        ({"counts": {"x": "y"}}, "field-type-mismatch", ("'counts.x'", "int")),
        ({"dims": [1.5]}, "field-type-mismatch", ("'dims[0]'", "int or str", "1.5")),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], code: str, values: tuple[str, ...]) -> None:
    with refuses(ArtifactError, code, *values):
        codec.decode(Outer, GOOD | change)


@pytest.mark.parametrize(
    ("text", "code", "values"),
    [
        ("", "json-invalid", ("char 0",)),
        ("{", "json-invalid", ("char 1",)),
        ('{"share": NaN}', "json-invalid", ("NaN",)),
        ('{"share": -Infinity}', "json-invalid", ("-Infinity",)),
        ('{"share": 1e999,"name":""}', "field-missing", ("'count'",)),
        (b"\xff\xfe\x00", "json-invalid", ()),
        ("[" * 100_000, "json-invalid", ("recursion",)),
        ("1" * 5_000, "json-invalid", ("limit",)),
        ("[1]", "field-type-mismatch", ("'at the top'", "object", "[1]")),
        ("null", "field-type-mismatch", ("'at the top'", "object", "null")),
    ],
)
def test_what_is_no_document_is_refused(text: str | bytes, code: str, values: tuple[str, ...]) -> None:
    with refuses(ArtifactError, code, *values):
        codec.loads(Outer, text)


def test_a_long_wrong_value_is_cut() -> None:
    with pytest.raises(ArtifactError) as caught:
        codec.decode(Outer, GOOD | {"count": "x" * 10_000})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_has_not_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.dumps({"x": value})


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    ),
    st.sampled_from(sorted(GOOD)),
)
def test_any_value_in_any_field_is_taken_or_refused(value: object, field: str) -> None:
    with contextlib.suppress(ArtifactError):
        codec.decode(Outer, GOOD | {field: value})
